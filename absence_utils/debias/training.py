"""Train a network under one of the objectives of `debias`; a run that was killed resumes as if nothing had happened.

Everything random in an epoch follows from the run's seed and the epoch's number: the order of the images, the draws of
the objective, dropout. So a checkpoint needs no state of any generator, and a resumed run ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms import v2

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.files import remove_leftovers, write_atomically
from absence_utils.identity import code_of, difference
from absence_utils.models.load import model_fingerprint
from absence_utils.progress import progress
from absence_utils.units import device_of

from .objectives import LOSS, LOSSES, OBJECTIVES
from .tasks import ShortcutData

PRECISIONS = ("auto", "float32", "bfloat16")
SCHEDULES = ("one_cycle", "constant")
AUGMENTATIONS = ("none", "released")
CODE = (
    "debias",
    "attribution",
    "models",
    "images",
    "units",
    "layers",
)  # what this package imports for numbers
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast.

    Attributes:
        epochs: number of passes over the training images.
        lr: learning rate of Adam, its peak under "one_cycle".
        batch_size: images in a step; the rest of an epoch makes a smaller one.
        warm_up: share of the steps in which the rate rises, 0..1.
        measure_every: epochs between two measurements; the last epoch is always measured.
        precision: "float32"; "bfloat16" under autocast; "auto" takes bfloat16 on a GPU and float32 elsewhere.
        loss: a name of `objectives.LOSSES`.
        schedule: "one_cycle": the rate rises linearly from 0, then falls to 0 along half a cosine; or "constant".
        weight_decay: share of each weight that Adam adds to its gradient, at least 0.
        augment: "none", or "released": a random crop of 0.8 to 1 of the area resized to the image, flips in both
            directions, brightness, contrast and saturation changed by up to 0.2; artefacts are put on top, and the
            crop is taken from the image as it is decoded (the release takes it from one 256/224 as large).
    """

    epochs: int = 40
    lr: float = 5e-3
    batch_size: int = 128
    warm_up: float = 0.25
    measure_every: int = 1
    precision: str = "auto"
    loss: str = LOSS
    schedule: str = "one_cycle"
    weight_decay: float = 0.0
    augment: str = "none"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "measure_every"):
            require_at_least(name, getattr(self, name), 1)
        if not self.lr > 0:
            raise InputError("lr", f"{self.lr}", "Use a learning rate above 0.")
        if not 0 <= self.warm_up <= 1:
            raise InputError("warm_up", f"{self.warm_up}", "Use a share of the steps, 0 to 1.")
        require_at_least("weight_decay", self.weight_decay, 0)
        require_choice("precision", self.precision, PRECISIONS)
        require_choice("loss", self.loss, LOSSES)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("augment", self.augment, AUGMENTATIONS)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0, of a run of `steps`."""
        if self.schedule == "constant":
            return self.lr
        rising = self.warm_up * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1))) / 2


@dataclass
class TrainingResult:
    """What a run leaves behind; the network itself is as after the last epoch.

    Attributes:
        history: a row for every measured epoch: epoch (from 1), loss (mean over the epoch), seconds (of training
            in an epoch, mean since the last measurement, without measuring), and what `measure` returned.
        best: weights at the epoch with the largest `score`, of those measured.
        best_epoch: that epoch.
    """

    history: list[dict] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0


Measure = Callable[[nn.Module], dict]


def train(
    model: nn.Module,
    data: ShortcutData,
    objective: str = "presence and absence",
    strength: float = 100.0,
    recipe: TrainingConfig | None = None,
    *,
    seed: int = 0,
    measure: Measure | None = None,
    score: Callable[[dict], float] | None = None,
    checkpoint: Path | None = None,
    measured: dict[str, str] | None = None,
    description: str = "",
) -> TrainingResult:
    """Train `model` in place with Adam; it ends in eval mode, on its device.

    Args:
        model: images [batch, channel, height, width] to logits [batch, class].
        data: training images with their artefacts.
        objective: a name of `objectives.OBJECTIVES`.
        strength: of its penalty, at least 0.
        recipe: `TrainingConfig()` if None.
        seed: of the order of the images, the objective's draws and dropout.
        measure: called with the network in eval mode after an epoch; its values (numbers) go into the history.
        score: of a row of the history; the weights of the epoch with the largest are kept. None: the last epoch.
        checkpoint: file that is written after every measured epoch and from which a run with the same settings goes
            on; one that belongs to other settings or is damaged is not used, and written over: the log says why.
        measured: what the numbers of `measure` and `score` depend on, hashes by name: the checkpoint belongs to them.
        description: for the progress bar.

    Raises:
        InputError: an unknown objective, a negative strength, a loss that is no longer finite, or group-DRO where two
            of the four groups class x artefact are empty.
    """
    require_choice("objective", objective, OBJECTIVES)
    require_at_least("strength", strength, 0)
    if objective == "group-DRO":
        _require_groups(data)
    recipe = recipe or TrainingConfig()
    device = device_of(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    trained, memory = TrainingResult(), {}
    run = {"objective": objective, "strength": strength, "seed": seed}
    identity = run | _identity(model, data, recipe) | (measured or {}) if checkpoint else {}
    done = _resume(checkpoint, identity, model, optimiser, trained, memory) if checkpoint else 0
    seconds, best = [], max(map(score, trained.history), default=-math.inf) if score else -math.inf
    with flushed_denormals(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in progress(range(done + 1, recipe.epochs + 1), description or objective):
            started = perf_counter()
            loss = _epoch(model, data, objective, strength, recipe, seed, epoch, optimiser, memory)
            seconds.append(perf_counter() - started)
            if epoch % recipe.measure_every and epoch != recipe.epochs:
                continue
            model.eval()
            row = {"epoch": epoch, "loss": loss, "seconds": sum(seconds) / len(seconds)}
            row |= measure(model) if measure else {}
            trained.history.append(row)
            seconds = []
            if score is None or score(row) > best:
                best = -math.inf if score is None else score(row)
                trained.best_epoch = epoch
                weights = model.state_dict()
                trained.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
            if checkpoint:
                _save(checkpoint, identity, model, optimiser, trained, memory)
    model.eval()
    return trained


def _require_groups(data: ShortcutData) -> None:
    """Group-DRO weighs groups: under a complete bias each class is one, and it is plain training in all but name."""
    filled = len((2 * data.labels + data.shown.long()).unique())
    if filled < 3:
        problem = f"group-DRO has images in {filled} of its four groups, class x artefact"
        remedy = "Use the reference 'group-DRO, 1% minority', more images, or a bias that is not complete."
        raise InputError("objective", problem, remedy)


def _augmentation(name: str, size: tuple[int, ...]) -> Callable[[Tensor], Tensor] | None:
    """Pixels [channel, height, width] in 0..1 to others of that size; draws from the global generator."""
    if name == "none":
        return None
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.8, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )


def _epoch(model, data, objective, strength, recipe, seed, epoch, optimiser, memory) -> float:
    """One pass over the training images; the mean loss."""
    device = device_of(model)
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    torch.manual_seed(seed * 100_003 + epoch)  # dropout draws from the global generator
    model.train()
    batches = torch.randperm(len(data), generator=generator).split(recipe.batch_size)
    steps, total = len(batches) * recipe.epochs, 0.0
    augment = _augmentation(recipe.augment, data.pixels.shape[2:])
    low = recipe.precision == "bfloat16" or recipe.precision == "auto" and device.type == "cuda"
    for number, rows in enumerate(batches):
        anew = (seed * 100_003 + epoch) * 1009 + number  # a seed for each step
        batch = data.training_batch(rows, anew, augment, device)
        batch.memory = memory
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate((epoch - 1) * len(batches) + number, steps)
        # Penalties need second derivatives, which fused attention does not have.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = OBJECTIVES[objective](model, batch, strength, generator, recipe.loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(rows)
    if not math.isfinite(total):
        problem = f"{objective!r} diverged in epoch {epoch} at strength {strength:g}"
        raise InputError("lr", problem, f"Use a smaller learning rate than {recipe.lr:g}, or less strength.")
    return total / len(data)


@contextmanager
def flushed_denormals():
    """Numbers too small for a normal float count as 0 inside: a penalised network drifts into them, and a CPU then
    slows down several times. The setting is left as found."""
    smallest = torch.tensor([1e-310], dtype=torch.float64)
    before = (smallest * 1.0).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


# -- checkpoints: tensors, numbers and text alone, which are read without unpickling any object


def _identity(model, data, recipe) -> dict:
    """What the run's numbers depend on, but for what it is measured on."""
    return asdict(recipe) | {
        "training images and labels": data.fingerprint,
        "first weights": model_fingerprint(model),
        "code": code_of(*CODE, network=model),
    }


def _save(path, identity, model, optimiser, trained, memory) -> None:
    content = BytesIO()
    about = {
        "identity": json.dumps(identity),
        "history": json.dumps(trained.history),
        "best_epoch": trained.best_epoch,
    }
    states = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "best": trained.best,
        "memory": memory,
    }
    torch.save(about | states, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def _resume(path, identity, model, optimiser, trained, memory) -> int:
    """Fill everything from a checkpoint that belongs to this run; the number of epochs that are done."""
    remove_leftovers(path)
    if not path.is_file():
        return 0
    try:
        # from memory: torch.load would guess the format from the file's name
        found = torch.load(BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        stale = difference(json.loads(found["identity"]), identity)
    except Exception:  # whatever a damaged file, or one of another kind, makes of itself: it is written over
        stale = "it is damaged, or no checkpoint of this version"
    if stale:
        _log.warning("%s is not used, the run starts anew: %s.", path, stale)
        return 0
    model.load_state_dict(found["model"])
    optimiser.load_state_dict(found["optimiser"])
    device = device_of(model)
    memory.update({name: value.to(device) for name, value in found["memory"].items()})
    trained.history, trained.best = json.loads(found["history"]), found["best"]
    trained.best_epoch = found["best_epoch"]
    return trained.history[-1]["epoch"]
