"""Unlearn a shortcut by what the network attributes to it: the objectives.

An artefact beside images of one class can be learnt twice: "artefact, so this class" (presence) and "no artefact, so
the other class" (an encoded absence, in the other logit). A penalty on the target logit's attribution reaches the
first alone; one on target and non-target logits reaches both (the paper's last experiment).

Every objective takes the model, a `Batch`, the strength of its penalty, a generator and the name of a classification
loss, and returns the loss. The penalised attribution is input x gradient; for networks without biases that is
integrated gradients from zero.

Which loss matters here: cross entropy trains the difference of the logits alone, so a shortcut can move freely between
presence in the target logit and absence in the other one; under binary cross entropy each logit has to say by itself
whether its class is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.attribution.gradients import input_x_gradient


@dataclass
class Batch:
    """What an objective sees.

    Attributes:
        images: [batch, channel, height, width] normalised, with artefacts where they are shown.
        labels: [batch] class numbers.
        masks: [batch, height, width] bool, where an artefact is shown, grown by a few pixels.
        shown: [batch] bool.
        pasted: images with the artefact in all of them, for augmentation.
        memory: what an objective keeps from step to step (group-DRO's weights).
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    shown: Tensor
    pasted: Tensor
    memory: dict = field(default_factory=dict)


Objective = Callable[[nn.Module, Batch, float, torch.Generator, str], Tensor]


def bce(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Binary cross entropy of every logit [batch, class] against the one-hot labels, mean over the classes of each
    image (the loss of the authors' release); `reduction` "mean" or "none" over the batch."""
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").mean(dim=1)
    return each.mean() if reduction == "mean" else each


LOSSES = {"cross_entropy": F.cross_entropy, "bce": bce}
LOSS = "cross_entropy"


def attribution_inside(attribution: Tensor, masks: Tensor) -> Tensor:
    """Mean over the masked pixels of |attribution| summed over channels; 0 where nothing is masked.

    Args:
        attribution: [batch, channel, height, width].
        masks: [batch, height, width] bool.
    """
    inside = attribution.abs().sum(dim=1) * masks
    return inside.sum() / masks.sum().clamp(min=1)


def artefact_penalty(images: Tensor, logits: Tensor, chosen: Tensor, masks: Tensor) -> Tensor:
    """What the artefact's pixels contribute to one logit of each image, in size: the price of using them.

    Args:
        images: [batch, channel, height, width] that require a gradient.
        logits: [batch, class], made from them.
        chosen: [batch] number of the logit.
        masks: [batch, height, width] bool, the artefact.
    """
    attribution = input_x_gradient(logits, images, chosen, create_graph=True)
    return attribution_inside(attribution, masks)


def _logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    images = batch.images.detach().requires_grad_(True)
    return images, model(images)


def _other(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """[batch] a class that is not the label, drawn evenly; with two classes the other one."""
    step = torch.randint(1, classes, labels.shape, generator=generator).to(labels.device)
    return (labels + step) % classes


def none(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """The loss and nothing else; the strength is not used."""
    return LOSSES[loss](model(batch.images), batch.labels)


def presence(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """Penalty on the target logit's attribution: "right for the right reasons" as it is usually done."""
    images, logits = _logits(model, batch)
    penalty = artefact_penalty(images, logits, batch.labels, batch.masks)
    return LOSSES[loss](logits, batch.labels) + strength * penalty


def presence_and_absence(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """Half the penalty on the target logit, half on a non-target one (the paper's proposal)."""
    images, logits = _logits(model, batch)
    other = _other(batch.labels, logits.shape[1], generator)
    penalty = sum(
        artefact_penalty(images, logits, chosen, batch.masks) / 2 for chosen in (batch.labels, other)
    )
    return LOSSES[loss](logits, batch.labels) + strength * penalty


def right_reasons(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """RRR as first published (Ross, Hughes, Doshi-Velez, IJCAI 2017): the squared gradient of the summed
    log-probabilities of all classes, summed inside the masks, mean over images. It has always covered all classes.
    Under binary cross entropy the probabilities are those of each logit by itself."""
    images, logits = _logits(model, batch)
    log_probability = F.log_softmax(logits, dim=1) if loss == "cross_entropy" else F.logsigmoid(logits)
    (slope,) = torch.autograd.grad(log_probability.sum(), images, create_graph=True)
    penalty = (slope.square().sum(dim=1) * batch.masks).sum() / len(images)
    return LOSSES[loss](logits, batch.labels) + strength * penalty


def random_logit(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """Penalty on the attribution of a logit drawn anew for every image: half the price of covering both."""
    images, logits = _logits(model, batch)
    drawn = torch.randint(logits.shape[1], batch.labels.shape, generator=generator).to(batch.labels.device)
    penalty = artefact_penalty(images, logits, drawn, batch.masks)
    return LOSSES[loss](logits, batch.labels) + strength * penalty


def augmentation(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """The artefact pasted into half of the images of both classes; the strength is not used.

    Where one class always shows it, its absence goes on speaking for the other class.
    """
    coin = torch.rand(batch.labels.shape, generator=generator).to(batch.images.device) < 0.5
    images = torch.where(coin[:, None, None, None], batch.pasted, batch.images)
    return LOSSES[loss](model(images), batch.labels)


def group_dro(
    model: nn.Module, batch: Batch, strength: float, generator: torch.Generator, loss: str = LOSS
) -> Tensor:
    """Group-DRO (Sagawa, Koh, Hashimoto, Liang, ICLR 2020): groups by class and artefact, weighted towards the worst.

    The strength is the step of the weights, per mille. Groups that training does not have, as under a complete bias,
    it cannot weigh: `train` refuses such data.
    """
    each = LOSSES[loss](model(batch.images), batch.labels, reduction="none")
    group = 2 * batch.labels + batch.shown.long()
    weights = batch.memory.setdefault("weights", torch.full_like(each[:1], 0.25).expand(4))
    means = torch.zeros_like(each[:1]).repeat(4).index_add(0, group, each)
    count = torch.bincount(group, minlength=4)
    means = means / count.clamp(min=1)
    weights = weights * (strength / 1000 * means.detach()).exp()
    batch.memory["weights"] = weights / weights.sum()
    there = batch.memory["weights"] * (count > 0)
    return (there / there.sum().clamp(min=1e-12) * means).sum()


OBJECTIVES: dict[str, Objective] = {
    "none": none,
    "presence": presence,
    "presence and absence": presence_and_absence,
    "RRR": right_reasons,
    "random logit": random_logit,
    "augmentation": augmentation,
    "group-DRO": group_dro,
}
PENALISED = ("presence", "presence and absence", "RRR", "random logit")  # whose strength matters
