"""What a trained network makes of the artefact: accuracies and absence scores on each set of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.attribution.gradients import input_x_gradient
from absence_utils.units import device_of, reading

from .artefacts import COIN, NO_PATCH, Bias
from .tasks import ShortcutData
from .training import flushed_denormals

SETS = ("biased", "coin", "inverse-biased", "patch-free")  # what the accuracy is measured on


def measure_shortcut(
    model: nn.Module,
    data: ShortcutData,
    carrier: int,
    bias: tuple[float, float] = (1.0, 0.0),
    batch: int = 256,
) -> dict:
    """What a network makes of the artefact, on images that it was not trained on.

    Every image is shown as it is, with its artefact, and with its control (`ShortcutData.controls`), so the accuracies
    are exact expectations over who shows the artefact, and effects are paired.

    Args:
        model: in eval mode, images to logits [batch, 2].
        data: the images.
        carrier: class that shows the artefact in training.
        bias: who shows it in training.
        batch: images at a time.

    Returns:
        The measures by their names.

        - biased, coin, inverse-biased, patch-free: accuracy, 0..1; images show the artefact as in training, by a coin
          whatever their class, with the shares of both classes exchanged, or not at all.
        - worst group: smallest accuracy of the four groups class x artefact, 0..1.
        - share of the carrier's logit, share of the other logit: share of |input x gradient| (summed over channels)
          that lies in the grown mask, mean over the carrier's images, all showing the artefact, 0..1.
        - evidence for ...: the same attribution, signed and summed inside the mask, in standard deviations of that
          logit. Negative for the other logit: the network counts on the artefact's absence there.
        - absence score of ...: minus the mean of logit(with artefact) - logit(with control), in the same unit.
          Positive: the logit encodes the artefact's absence; negative: its presence.
        - images: how many there were.
    """
    with flushed_denormals(), reading(model):
        plain, marked, control, inside = _read(model, data, carrier, batch)
    right = {shown: (logits.argmax(1) == data.labels).double() for shown, logits in ((0, plain), (1, marked))}
    found, bias = {}, Bias(*bias)
    for name, shares in zip(SETS, (bias, COIN, bias.inverse, NO_PATCH), strict=True):
        chance = torch.where(data.labels == carrier, *map(float, shares)).double()
        found[name] = (chance * right[1] + (1 - chance) * right[0]).mean().item()
    found["worst group"] = min(
        hit[data.labels == label].mean().item() for hit in right.values() for label in (0, 1)
    )
    spread = plain.std(dim=0).clamp(min=1e-12)
    effect = -(marked - control).mean(dim=0) / spread
    for column, name in ((carrier, "the carrier's logit"), (1 - carrier, "the other logit")):
        found[f"share of {name}"] = inside["share"][:, column].mean().item()
        found[f"evidence for {name}"] = (inside["sum"][:, column].mean() / spread[column]).item()
        found[f"absence score of {name}"] = effect[column].item()
    return found | {"images": len(data)}


def _read(model, data, carrier, batch):
    """Logits [image, 2] of plain, marked and control images; attribution inside the mask on the carrier's images."""
    device = device_of(model)
    logits, inside = ([], [], []), {"share": [], "sum": []}
    for rows in torch.arange(len(data)).split(batch):
        given, plain = data.batch(rows, device), data.plain(rows).to(device)
        shown = (plain, given.pasted, data.controls(rows).to(device))
        with torch.no_grad():
            for found, images in zip(logits, shown, strict=True):
                found.append(model(images).double().cpu())
        own = given.labels == carrier
        if own.any():
            masks = data.grown[rows].to(device)[own]
            for name, values in _inside(model, given.pasted[own], masks).items():
                inside[name].append(values)
    return *(torch.cat(found) for found in logits), {name: torch.cat(parts) for name, parts in inside.items()}


def _inside(model, images, masks) -> dict[str, Tensor]:
    """Share and signed sum of input x gradient inside the masks, each [image, class]."""
    images = images.detach().requires_grad_(True)
    logits = model(images)
    found = {"share": [], "sum": []}
    for column in range(logits.shape[1]):
        attribution = input_x_gradient(logits, images, column)
        size = attribution.abs().sum(dim=1)
        share = (size * masks).sum(dim=(1, 2)) / size.sum(dim=(1, 2)).clamp(min=1e-12)
        found["share"].append(share.double().cpu())
        found["sum"].append((attribution.sum(dim=1) * masks).sum(dim=(1, 2)).double().cpu())
    return {name: torch.stack(values, dim=1) for name, values in found.items()}


def selection_score(row) -> float:
    """Rule "biased": accuracy on biased images less the artefact's share of the attribution, mean of both logits.

    It needs the masks, which a penalty needs anyway, and no image that breaks the bias. A network that lives off the
    artefact has a high accuracy and a high share, one that was ruined by the penalty a low share and a low accuracy.
    Taking the artefact's signed attribution out of the logits instead was tried and is worse: it is first-order, and
    misses what the artefact gates.
    """
    return row["biased"] - (row["share of the carrier's logit"] + row["share of the other logit"]) / 2
