"""One small seeded training loop for the networks that are trained inside this companion."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.progress import progress
from absence_utils.units import device_of, reading

Loss = Callable[[Tensor, Tensor], Tensor]


def fit(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    loss: Loss = nn.functional.cross_entropy,
    epochs: int = 20,
    lr: float = 1e-2,
    batch_size: int = 64,
    seed: int = 0,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    schedule: str = "one_cycle",
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    description: str = "training",
    **optimiser_options,
) -> list[float]:
    """Train `model` in place on tensors held in memory; return the mean training loss of every epoch.

    The order of the images, and everything random in the network, follow from `seed` alone; the global
    generators are left as found. The network ends in eval mode and stays on its device.

    Args:
        model: a network that maps images to what `loss` expects.
        images: [n, channel, height, width].
        targets: [n, ...], moved with their images: class numbers [n] for cross entropy.
        loss: maps (outputs, targets) to a scalar, the mean over the batch.
        epochs, lr, batch_size: with "one_cycle", `lr` is the peak of the schedule.
        seed: of the order of the images, of `augment` and of dropout.
        optimiser: built as optimiser(parameters, lr=lr, **optimiser_options).
        schedule: "one_cycle" (warm up, then anneal to zero; Smith & Topin, arXiv 1708.07120) or "constant".
        augment: maps (batch of images, generator) to images, called for every training batch.

    Raises:
        InputError: sizes that disagree, an unknown schedule, or a loss that is no longer finite.
    """
    _check(images, targets, epochs, batch_size, schedule)
    device = device_of(model)
    updater = optimiser(model.parameters(), lr=lr, **optimiser_options)
    steps_per_epoch = -(-len(images) // batch_size)
    scheduler = None
    if schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(updater, lr, total_steps=epochs * steps_per_epoch)
    generator = torch.Generator().manual_seed(seed)
    history = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model.train()
        for _ in progress(range(epochs), description):
            total = 0.0
            for rows in torch.randperm(len(images), generator=generator).split(batch_size):
                batch = images[rows] if augment is None else augment(images[rows], generator)
                value = loss(model(batch.to(device)), targets[rows].to(device))
                updater.zero_grad(set_to_none=True)
                value.backward()
                updater.step()
                if scheduler is not None:
                    scheduler.step()
                total += value.item() * len(rows)
            history.append(total / len(images))
            if not math.isfinite(history[-1]):
                raise InputError("lr", f"training diverged with {lr:g}", "Use a smaller learning rate.")
        model.eval()
    return history


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """The network's outputs [n, output] for `images` [n, channel, height, width], on the CPU, in eval mode.

    The training flag of every module is left as found.
    """
    device = device_of(model)
    with reading(model):
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> float:
    """Share of `images` [n, channel, height, width] whose largest output is their label [n], in 0..1."""
    return (predict(model, images, batch_size).argmax(1) == labels.cpu()).double().mean().item()


def _check(images: Tensor, targets: Tensor, epochs: int, batch_size: int, schedule: str) -> None:
    if len(images) != len(targets) or len(images) == 0:
        problem = f"{len(targets)} targets for {len(images)} images"
        raise InputError("targets", problem, "Pass one for each image.")
    require_at_least("epochs", epochs, 1)
    require_at_least("batch_size", batch_size, 1)
    require_choice("schedule", schedule, ("one_cycle", "constant"))
