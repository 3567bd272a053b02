"""Cost of mining: against the bare forward pass to the layer, and against the released scheme. `make bench`.

Every measurement is a process of its own, since only so a peak of memory belongs to it; rounds go through all of them
in turn, so that a busy machine disturbs all alike. Ratios are medians over the rounds, with the lowest and the highest.
On a CPU seconds are those that the process computed (all its threads), which other work beside it stretches less than
the time that passes.

ours        mine_patches as it comes
exact       mine_patches(exact=True): every operation of the network as it is written
eager       the same patches, already cut, through the plain network as far as the layer, in the same batches
released    benchmarks/published_scheme.py

ABSENCE_REAL names a folder with imagenet/val and models/networks.py: real images and, where it has the network, trained
weights.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "SqueezeNet 1.0 features.12.expand3x3": ("squeezenet1_0", "features.12.expand3x3"),
    "ResNet-50 layer4.2.conv3": ("resnet50", "layer4.2.conv3"),
    "ResNet-50 layer1.2.conv3": ("resnet50", "layer1.2.conv3"),
}
MODES = ("ours", "exact", "eager", "released")
RATIOS = (("ours", "eager"), ("exact", "eager"), ("released", "ours"))
PATCH, STRIDE, K, BATCH = 48, 16, 8, 2**18 // 48**2  # the batch that mine_patches takes on a CPU
TARGETS = {"ours / eager": "<= 1.0", "ours GiB": "< 1.5"}
HERE = Path(__file__).resolve().parent


def images_for(network, count: int):
    """Real images if ABSENCE_REAL names their folder (decoded when asked for), otherwise noise in memory."""
    import torch

    from absence_utils import load_images
    from absence_utils.images.base import TensorImages

    if os.environ.get("ABSENCE_REAL"):
        return load_images(Path(os.environ["ABSENCE_REAL"], "imagenet", "val"), network, limit=count)
    pixels = torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return TensorImages(pixels, torch.zeros(count, dtype=torch.long), ["noise"])


def cut(dataset, device: str) -> list:
    """All windows of all images in batches of one shape, the last one filled up: [BATCH, channel, PATCH, PATCH]."""
    import torch

    windows = [
        dataset[number][0]
        .unfold(1, PATCH, STRIDE)
        .unfold(2, PATCH, STRIDE)
        .permute(1, 2, 0, 3, 4)
        .flatten(0, 1)
        for number in range(len(dataset))
    ]
    batches = torch.cat([*windows, windows[0][: -sum(map(len, windows)) % BATCH]]).split(BATCH)
    return [batch.to(device) for batch in batches]


def work_of(mode: str, network, layer: str, device: str):
    """(prepare, run): what is done to a dataset before the clock starts, and what is timed."""
    import torch
    from published_scheme import published_scheme
    from torchvision.models.feature_extraction import create_feature_extractor

    from absence_utils import mine_patches

    if mode == "released":
        return (lambda images: images), lambda images: published_scheme(
            network, layer, images, PATCH, STRIDE, K
        )
    if mode != "eager":
        how = {"patch": PATCH, "stride": STRIDE, "k": K, "exact": mode == "exact"}
        return (lambda images: images), lambda images: mine_patches(network, layer, images, **how)
    truncated = create_feature_extractor(network, [layer]).eval()

    def forward(batches):
        with torch.inference_mode():
            for batch in batches:
                truncated(batch)[layer].mean(dim=(2, 3))

    return (lambda images: cut(images, device)), forward


def network_for(name: str, device: str):
    """Trained, if ABSENCE_REAL has it; otherwise with random weights, which cost the same."""
    from absence_utils import load_model, open_model

    real = Path(os.environ.get("ABSENCE_REAL", ""), "models", "networks.py")
    if os.environ.get("ABSENCE_REAL") and f"def {name}(" in real.read_text():
        return open_model(f"{real}:{name}", device=device).model
    return load_model(name, "random", device=device)


def measure(mode: str, case: str, count: int, device: str) -> dict:
    """Run one mode on one image and on `count`, after a start on one: seconds an image, peak memory in GiB.

    "seconds" are all of them by the number of images, "further" those of each image after the first: what is left
    when the start-up has vanished.
    """
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    name, layer = CASES[case]
    network = network_for(name, device)
    prepare, run = work_of(mode, network, layer, device)
    run(prepare(images_for(network, 1)))
    clock, taken = time.process_time if device == "cpu" else time.perf_counter, []
    for number in (1, count):
        given = prepare(images_for(network, number))
        began = clock()
        run(given)
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(clock() - began)
    first, seconds = taken
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "linux" else 30)
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if device != "cpu" else 0.0
    further = (seconds - first) / (count - 1) if count > 1 else float("nan")
    return {"seconds": seconds / count, "further": further, "GiB": peak, "GPU GiB": on_gpu}


def in_a_process(mode: str, case: str, count: int, device: str) -> dict:
    """`measure` in a process of its own; nothing measured (nan) if it is killed, as for want of memory."""
    command = [sys.executable, __file__, "--measure", mode, case, str(count), device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    nothing = dict.fromkeys(("seconds", "further", "GiB", "GPU GiB"), float("nan"))
    return nothing if done.returncode else json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import pandas as pd
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", default=str(HERE.parent / "results" / "bench" / "mining.csv"))
    parser.add_argument(
        "--measure", nargs=4, metavar=("MODE", "CASE", "COUNT", "DEVICE"), help="one, as JSON"
    )
    options = parser.parse_args()
    if options.measure:
        mode, case, count, device = options.measure
        return print(json.dumps(measure(mode, case, int(count), device)))
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    rows = []
    for turn in range(options.rounds):
        for device in devices:
            for case in options.cases:
                for mode in options.modes:
                    found = in_a_process(mode, case, options.images, device)
                    print(
                        f"round {turn + 1}/{options.rounds}  {device}  {case}  {mode}  {found}",
                        file=sys.stderr,
                    )
                    rows.append({"device": device, "layer": case, "mode": mode, "round": turn} | found)
    table = pd.DataFrame(rows)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False, float_format="%.6g")
    print(summary(table).to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    print(f"Targets: {', '.join(f'{name} {target}' for name, target in TARGETS.items())}")
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {options.out}")


def summary(table):
    """One row a device and layer: medians over the rounds; ratios are taken within each round and have their range."""
    import pandas as pd

    keys = ["device", "layer"]
    wide = table.pivot(
        index=[*keys, "round"], columns="mode", values=["seconds", "further", "GiB", "GPU GiB"]
    )
    out = {f"{mode} s/image": wide["seconds"][mode] for mode in table["mode"].unique()}
    pairs = [(a, b) for a, b in RATIOS if {a, b} <= set(table["mode"])]
    ratios = {f"{a} / {b}": wide["seconds"][a] / wide["seconds"][b] for a, b in pairs}
    ratios |= {f"{a} / {b}, further": wide["further"][a] / wide["further"][b] for a, b in pairs}
    memory = ("GiB", "GPU GiB") if (table.device != "cpu").any() else ("GiB",)
    out |= {f"{mode} {kind}": wide[kind][mode] for kind in memory for mode in ("ours", "released")}
    grouped = pd.DataFrame(ratios).groupby(keys, sort=False)
    ends = {f"{name}, {end}": getattr(grouped, end)()[name] for name in ratios for end in ("min", "max")}
    medians = pd.DataFrame(out | ratios).groupby(keys, sort=False).median()
    return medians.assign(**ends).reset_index()


if __name__ == "__main__":
    main()
