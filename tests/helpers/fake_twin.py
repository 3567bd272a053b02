"""A digital twin made by hand: what drives each neuron, and what suppresses it, is known in closed form.

The core is two convolutions: oriented filters of both polarities and a rectifier, then a sum over polarities. So it has
two maps, as complex cells answer: of an image that is a vertical bar of height c on the blank, the vertical map is |c|
at the bar's middle and the horizontal one 0, and the reverse. A neuron reads both maps at one place. With bars of
heights v and h, added, and a baseline b

    x = excitation * |v| - suppression * |h| + b,    response = ELU(x) + 1.
"""

import torch
import torch.nn.functional as F
from torch import nn

from absence_utils.models import DigitalTwin

EDGE, MIDDLE = 16, 8  # px: of the images, and where the neurons look
BAR = 7  # px: length of a bar, which is one pixel wide
NEURONS = {  # data key: rows of (excitation by the vertical, suppression by the horizontal, baseline)
    "monkey": [(3.0, 2.0, 0.0), (3.0, 0.0, 0.0), (6.0, 6.0, -1.0)],
    "mouse": [(1.0, 1.0, 0.5)],
}


def oriented_filters():
    """[2, 1, BAR, BAR]: a vertical and a horizontal line with flanks; each gives 1 for its own bar, 0 for the other."""
    vertical = torch.zeros(BAR, BAR)
    vertical[:, BAR // 2] = 1 / BAR
    vertical[:, BAR // 2 - 1] = vertical[:, BAR // 2 + 1] = -0.5 / BAR
    return torch.stack([vertical, vertical.T])[:, None]


class Readout(nn.Module):
    """Reads the core's maps [batch, 2, ...] at the middle: [batch, neuron]."""

    def __init__(self, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([(up, -down) for up, down, _ in rows]))
        self.bias = nn.Parameter(torch.tensor([baseline for _, _, baseline in rows]))

    def forward(self, maps):
        return F.linear(maps[..., MIDDLE, MIDDLE], self.weight, self.bias)


class FakeTwin(nn.Module):
    """Called as `model(images, data_key=...)`. `gain` scales what the core gives; `rate=False` leaves ELU + 1 out."""

    def __init__(self, gain=1.0, rate=True, neurons=NEURONS):
        super().__init__()
        first, last = nn.Conv2d(1, 4, BAR, padding=BAR // 2, bias=False), nn.Conv2d(4, 2, 1, bias=False)
        first.weight.data = torch.cat([oriented_filters(), -oriented_filters()])
        last.weight.data = gain * torch.eye(2).repeat(1, 2)[:, :, None, None]
        self.core = nn.Sequential(first, nn.ReLU(), last)
        self.readout = nn.ModuleDict({key: Readout(rows) for key, rows in neurons.items()})
        self.rate = rate

    def forward(self, images, data_key=None):
        drive = self.readout[data_key](self.core(images))
        return F.elu(drive) + 1 if self.rate else drive


class FakeMovieTwin(nn.Module):
    """Takes clips [batch, 1, frame, height, width] and gives a response for each frame but the first."""

    def __init__(self):
        super().__init__()
        self.still = FakeTwin()

    def forward(self, clips, data_key=None):
        seen = clips[:, :, 1:] - clips[:, :, :-1]  # what is new in a frame
        batch, _, frames = seen.shape[:3]
        answers = self.still(seen.transpose(1, 2).flatten(0, 1), data_key=data_key)
        return answers.unflatten(0, (batch, frames))


def bars(vertical=0.0, horizontal=0.0, row=MIDDLE, column=MIDDLE, edge=EDGE):
    """[1, 1, edge, edge]: bars of these heights, added, on the blank; they cross at (row, column)."""
    image, half = torch.zeros(1, 1, edge, edge), BAR // 2
    image[..., row - half : row + half + 1, column] += vertical
    image[..., row, column - half : column + half + 1] += horizontal
    return image


def twin(models=None, data_key="monkey", **options):
    """The adapter around the fake twin; 0.5 is the blank, and 4 units of input the range of pixels."""
    defaults = {"size": EDGE, "mean": 0.5, "std": 0.25, "undo": "elu+1"}
    return DigitalTwin(models or FakeTwin(), data_key, **defaults | options)


def make_twin():
    """For "helpers.fake_twin:make_twin"."""
    made = twin()
    return made, made.preprocessing
