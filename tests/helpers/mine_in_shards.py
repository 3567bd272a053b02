"""What the test of resuming starts and kills: mine shards of random images into a folder, write the merged book."""

import os
import resource
import signal
import sys

import torch
from torch import nn

from absence_utils.images.base import TensorImages
from absence_utils.patches.shards import mine_shards

torch.set_num_threads(1)
SHARDS = 2
SETTINGS = {"patch": 12, "stride": 6, "k": 5, "reservoir": 40, "batch_size": 50, "exact": True}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)).eval()


def images(n=6):
    pixels = torch.randn(n, 2, 40, 40, generator=torch.Generator().manual_seed(5))
    return TensorImages(pixels, torch.zeros(n).long(), ["all"])


def run(folder, step=0, half_written=False):
    """Mine into the folder; be killed right before its `step`-th change of a file, or halfway through a write."""
    if step:
        _die_at(step, folder, half_written)
    mine_shards(network(), "1", images(), folder, SHARDS, **SETTINGS).save(folder / "merged.safetensors")


def _die_at(step, folder, half_written):
    """Python tells an audit hook of every file that is about to be opened, renamed or removed."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # deadly again: Python makes an exception of it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def hook(event, arguments):
        nonlocal step
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.remove")) and str(arguments[0]).startswith(str(folder)):
            step -= 1
            if step == 0 and half_written:  # the file system kills whoever writes more than that to a file
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            elif step == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
