"""Kill work at random moments, start it again, and compare what comes out with work that nobody disturbed.

    python benchmarks/kills.py mining training figures --kills 20 --terms 10 --changes 5

in a checkout without other runs: sharded mining, training with checkpoints in two processes, and `make figures` (the
notebooks that --notebooks names, in the profile smoke). SIGKILL goes to all of a run's group, as from a system without
memory, SIGTERM to its first process. With --changes an input (an image, a label, the weights) is another one when the
work is resumed. Prints a row for each kind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from absence_utils.paths import ROOT

TOKEN = "ABSENCE_KILLS"  # in the environment of all that a run starts, whatever session it moves to
CHAIN = 5  # kills of one piece of work before it is left alone
SAID = {"mining": "is mined anew", "training": "starts anew", "figures": "has other contents"}


# ---------------------------------------------------------------------- the work, in a process of its own
def mine(folder: Path) -> None:
    import torch
    from torch import nn

    from absence_utils.images.base import IMAGENET
    from absence_utils.images.folders import FolderImages
    from absence_utils.patches.shards import mine_shards

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 16, 5)).eval()
    print("ready", flush=True)
    dataset = FolderImages(folder / "images", IMAGENET, size=96)
    mine_shards(network, "2", dataset, folder / "out", 6, patch=32, stride=8, k=4).save(
        folder / "out" / "book.safetensors"
    )


def study(folder: Path) -> None:
    from functools import partial

    from safetensors.torch import save_file

    from absence_utils.debias import TrainingConfig, plan_runs, run_study
    from absence_utils.models import two_class_network

    plans = plan_runs(["none", "presence"], [10], [0], [0, 1])
    network = partial(two_class_network, model="dense_xnet", weights="", size=14, channels=1, device="cpu")
    task, recipe = partial(digits_with, labels=str(folder / "labels")), TrainingConfig(6, 0.006, 192)
    print("ready", flush=True)
    found = run_study(plans, task, network, recipe, keep=0, checkpoints=folder / "out", workers=2)
    found.history.drop(columns="seconds").to_csv(folder / "out" / "history.csv")
    for number, weights in enumerate(found.weights.values()):
        save_file(weights, folder / "out" / f"{number}.safetensors")


def digits_with(carrier: int, seed: int, labels: str):
    """The digits, with validation labels moved by as many images as the file says."""
    from dataclasses import replace

    from absence_utils.debias.tasks import digits_task

    task = digits_task(carrier, seed)
    moved = task.validation.labels.roll(int(Path(labels).read_text()))
    return replace(task, validation=replace(task.validation, labels=moved))


# ---------------------------------------------------------------------- what is done to it
@dataclass
class Work:
    """One kind of work in a folder: how it is started, which input is changed, and what of its files must be equal."""

    kind: str
    folder: Path
    notebooks: str = ""
    changed: bool = False

    def command(self) -> list[str]:
        if self.kind != "figures":
            return [sys.executable, __file__, "--work", str(self.folder), self.kind]
        config = f"notebooks={self.notebooks}"
        if "06" in self.notebooks:
            config += f" weights={self.folder / 'weights.safetensors'}"
        return ["make", "figures", "PROFILE=smoke", "JOBS=2", f"CONFIG={config}"]

    def prepare(self) -> None:
        """Inputs as they are at first, and nothing made yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "images" / "all").mkdir(parents=True)
        draw = np.random.default_rng(0)
        for number in range(30):
            pixels = draw.integers(0, 256, (110, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.folder / "images" / "all" / f"{number:02}.png")
        (self.folder / "labels").write_text("0")
        (self.folder / "weights.safetensors").write_bytes(
            (ROOT / "data" / "concept_scenes.safetensors").read_bytes()
        )
        if self.kind == "figures":
            shutil.rmtree("results/smoke", ignore_errors=True)

    def change(self) -> None:
        """Another input of the same size."""
        image, weights = self.folder / "images" / "all" / "29.png", self.folder / "weights.safetensors"
        Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
        (self.folder / "labels").write_text("1")
        content = bytearray(weights.read_bytes())
        # The first weight: all layers see it. The last ones do not reach block4, which notebook 06 looks at.
        first = 8 + int.from_bytes(content[:8], "little")  # behind the header and its length
        content[first + 2] ^= 64
        weights.write_bytes(content)

    def made(self) -> dict[str, str]:
        """sha256 of every file that must be the same whoever was killed, by name."""
        out = Path("results/smoke") if self.kind == "figures" else self.folder / "out"
        files = [path for path in sorted(out.rglob("*")) if path.is_file() and self._compared(path)]
        return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def _compared(self, path: Path) -> bool:
        """All but what holds times: records and executed notebooks, checkpoints, and the record of inputs."""
        return path.suffix in ((".png", ".csv") if self.kind == "figures" else (".safetensors", ".csv"))

    def damaged(self) -> list[str]:
        """Files under their final names that are not whole."""
        out = Path("results/smoke") if self.kind == "figures" else self.folder / "out"
        return [path.name for path in out.rglob("*") if path.is_file() and not whole(path, out)]


def whole(path: Path, out: Path) -> bool:
    """Whether a file can be read; what lies under a hidden name may be anything while the work is not finished."""
    if any(part.startswith(".") for part in path.relative_to(out).parts):
        return True
    try:
        if path.suffix == ".safetensors":
            from absence_utils.patches import PatchBook

            if "shard" in path.name or "book" in path.name:
                PatchBook.load(path)
        elif path.suffix == ".pt":
            import torch

            torch.load(path, weights_only=True)
        elif path.suffix in (".json", ".ipynb"):
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        return path.stat().st_size > 0
    except Exception as error:
        print(f"{path}: {error}", file=sys.stderr)
        return False


@dataclass
class Run:
    """The work under way; `mark` stands in the environment of all its processes."""

    work: Work
    mark: str = field(default_factory=lambda: f"{random.getrandbits(64):x}")

    def __post_init__(self):
        self.log = tempfile.TemporaryFile("w+")
        environment = os.environ | {TOKEN: self.mark, "ABSENCE_CACHE": str(self.work.folder.parent / "cache")}
        self.process = subprocess.Popen(
            self.work.command(), env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def wait_until_ready(self) -> None:
        while self.work.kind != "figures" and "ready" not in self.said() and self.process.poll() is None:
            time.sleep(0.02)

    def left(self) -> list[int]:
        """Processes of this run that are still there."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if (
                    folder.name.isdigit()
                    and f"{TOKEN}={self.mark}".encode() in (folder / "environ").read_bytes()
                ):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def kill(self, number: signal.Signals) -> list[int]:
        """Kill it; the processes that are there a minute later, which are then ended as well."""
        (os.killpg if number == signal.SIGKILL else os.kill)(self.process.pid, number)
        self.process.wait()
        until = time.monotonic() + 60
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


def finish(work: Work) -> tuple[dict[str, str], str, float]:
    """Let the work run to its end: what it made, what it said, and its seconds after it was ready."""
    run = Run(work)
    run.wait_until_ready()
    started = time.monotonic()
    if run.process.wait():
        raise SystemExit(f"{work.kind} failed:\n{run.said()}")
    return work.made(), run.said(), time.monotonic() - started


def disturb(
    work: Work, number: signal.Signals, kills: int, seconds: float, expected: dict, change: bool
) -> dict:
    """So many kills in chains of `CHAIN`, each chain ended by a run that is left alone; what went wrong."""
    counts = dict.fromkeys(
        ("kills", "runs left alone", "processes left", "half-written", "other bytes", "not said"), 0
    )
    while counts["kills"] < kills:
        work.prepare()
        progressed = False
        for _ in range(1 if change else min(CHAIN, kills - counts["kills"])):
            run = Run(work)
            run.wait_until_ready()
            time.sleep(random.uniform(0.3 * change, 0.8) * seconds)
            if run.process.poll() is None:
                counts["processes left"] += len(run.kill(number))
                counts["kills"] += 1
            counts["half-written"] += len(work.damaged())
            progressed |= bool(work.made()) or any((work.folder / "out").glob("*.pt"))
        if change:
            work.change()
        made, said, _ = finish(work)
        counts["runs left alone"] += 1
        counts["other bytes"] += made != expected
        counts["not said"] += change and progressed and SAID[work.kind] not in said
        print(number.name, "changed" * change, counts, file=sys.stderr, flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="+", choices=["mining", "training", "figures"])
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of each kind")
    parser.add_argument("--terms", type=int, default=10, help="SIGTERMs of each kind")
    parser.add_argument("--changes", type=int, default=5, help="SIGKILLs after which an input is changed")
    parser.add_argument("--notebooks", default="01,06", help="for figures; 06 has an input that can change")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return {"mining": mine, "training": study}[options.kinds[0]](options.work)
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            work = Work(kind, Path(folder) / kind, options.notebooks)
            work.prepare()
            expected, _, seconds = finish(work)
            work.prepare()
            work.change()
            other = finish(work)[0] if options.changes else {}
            assert other != expected, "the change must matter"
            for number, kills, change in (
                (signal.SIGKILL, options.kills, False),
                (signal.SIGTERM, options.terms, False),
                (signal.SIGKILL, options.changes, True),
            ):
                if kills:
                    counts = disturb(work, number, kills, seconds, other if change else expected, change)
                    row = {"work": kind, "signal": number.name, "input changed": change} | counts
                    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
