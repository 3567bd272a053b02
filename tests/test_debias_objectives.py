"""Objectives against penalties by hand in float64, what each can and cannot reach, and bad input."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from absence_utils.debias.objectives import (
    LOSSES,
    OBJECTIVES,
    PENALISED,
    Batch,
    artefact_penalty,
    attribution_inside,
    group_dro,
)
from absence_utils.models.xdnn import SmallXNet, TwoTowers

CLASSES = 3


def batch(n=5, size=8, classes=CLASSES):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 2, size, size, generator=generator, dtype=torch.float64)
    masks = torch.zeros(n, size, size, dtype=torch.bool)
    masks[1, :3, 2:6] = masks[4, 5:, :2] = True
    labels = torch.arange(n) % classes
    pasted = torch.where(torch.arange(size) < 2, 1.0, images)
    return Batch(images, labels, masks, masks.any(dim=(1, 2)), pasted.double())


def network(classes=CLASSES):
    return SmallXNet(2, classes, width=4, seed=3).double()


def slow_gradient(model, image, function, step=1e-6):
    """d function(model(image)) / d image by central differences, one pixel at a time: [channel, height, width]."""
    found = torch.zeros_like(image)
    for place in itertools.product(*map(range, image.shape)):
        ends = []
        for sign in (1, -1):
            moved = image.clone()
            moved[place] += sign * step
            with torch.no_grad():
                ends.append(function(model(moved[None])[0]))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def inside(model, given, chosen):
    """Mean over masked pixels of |input x gradient| of logit chosen[i] summed over channels, by loops."""
    total, count = 0.0, 0
    for i in range(len(given.images)):
        slope = slow_gradient(model, given.images[i], lambda logits, k=chosen[i]: logits[k])
        for row, column in given.masks[i].nonzero().tolist():
            total += (given.images[i] * slope)[:, row, column].abs().sum().item()
            count += 1
    return total / count


def penalty_of(name, strength=7.0, given=None, seed=0):
    model, given = network(), given or batch()
    with torch.no_grad():
        plain = F.cross_entropy(model(given.images), given.labels).item()
    loss = OBJECTIVES[name](model, given, strength, torch.Generator().manual_seed(seed))
    return (loss.item() - plain) / strength, model, given


def test_presence_by_hand():
    penalty, model, given = penalty_of("presence")
    assert penalty == pytest.approx(inside(model, given, given.labels.tolist()), rel=1e-5)


def test_presence_and_absence_by_hand():
    penalty, model, given = penalty_of("presence and absence")
    step = torch.randint(1, CLASSES, given.labels.shape, generator=torch.Generator().manual_seed(0))
    other = ((given.labels + step) % CLASSES).tolist()
    assert all(o != label for o, label in zip(other, given.labels.tolist(), strict=True))
    halves = [inside(model, given, chosen) / 2 for chosen in (given.labels.tolist(), other)]
    assert penalty == pytest.approx(sum(halves), rel=1e-5)


def test_random_logit_by_hand_and_it_draws_every_class():
    penalty, model, given = penalty_of("random logit", seed=4)
    drawn = torch.randint(CLASSES, given.labels.shape, generator=torch.Generator().manual_seed(4))
    assert penalty == pytest.approx(inside(model, given, drawn.tolist()), rel=1e-5)
    assert len({round(penalty_of("random logit", seed=seed)[0], 9) for seed in range(6)}) > 3


def test_rrr_by_hand():
    penalty, model, given = penalty_of("RRR")
    total = 0.0
    for image, mask in zip(given.images, given.masks, strict=True):
        slope = slow_gradient(model, image, lambda logits: F.log_softmax(logits, 0).sum())
        total += sum(slope[:, row, column].square().sum().item() for row, column in mask.nonzero().tolist())
    assert penalty == pytest.approx(total / len(given.images), rel=1e-4)


def test_none_is_cross_entropy_whatever_the_strength():
    assert penalty_of("none")[0] == 0


def test_augmentation_pastes_into_half_of_all():
    given, model = batch(400, classes=2), network(2)
    seen = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    OBJECTIVES["augmentation"](model, given, 1.0, torch.Generator().manual_seed(0))
    handle.remove()
    pasted = (seen[0] == given.pasted).flatten(1).all(dim=1)
    assert torch.equal(seen[0][~pasted], given.images[~pasted])
    for label in (0, 1):
        assert 0.4 < pasted[given.labels == label].float().mean() < 0.6


def test_group_dro_weights_by_hand():
    """One step from equal weights: each group's weight grows by exp(step x its loss); the loss is the weighted mean."""
    model, given = network(2), batch(6, classes=2)
    with torch.no_grad():
        losses = F.cross_entropy(model(given.images), given.labels, reduction="none").tolist()
    groups = [
        2 * label + shown for label, shown in zip(given.labels.tolist(), given.shown.tolist(), strict=True)
    ]
    means = {
        g: sum(loss for loss, own in zip(losses, groups, strict=True) if own == g) / groups.count(g)
        for g in set(groups)
    }
    grown = {g: torch.tensor(0.5 * mean).exp().item() for g, mean in means.items()}
    expected = sum(grown[g] * means[g] for g in means) / sum(grown.values())
    assert group_dro(model, given, 500.0, None).item() == pytest.approx(expected, rel=1e-5)
    first = given.memory["weights"].clone()
    group_dro(model, given, 500.0, None)
    worst = max(means, key=means.get)
    assert given.memory["weights"][worst] > first[worst] and given.memory["weights"].sum() == pytest.approx(1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_stepped_and_leaves_the_images(name):
    model, given = network(2), batch(classes=2)
    before = given.images.clone()
    OBJECTIVES[name](model, given, 1.0, torch.Generator().manual_seed(0)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert sum(parameter.grad.abs().sum() for parameter in model.parameters()) > 0
    assert torch.equal(given.images, before) and not given.images.requires_grad


@pytest.mark.parametrize("name", PENALISED)
def test_nothing_masked_is_no_penalty(name):
    given = batch()
    assert penalty_of(name, given=replace(given, masks=torch.zeros_like(given.masks)))[0] == pytest.approx(
        0, abs=1e-12
    )


def test_gradient_of_a_penalty_reaches_the_weights():
    """Double backpropagation: the slope of the penalty in one weight, by differences."""
    given, step = batch(), 1e-6

    def penalty(model):
        with_penalty, without = (
            OBJECTIVES["presence"](model, given, strength, None) for strength in (1.0, 0.0)
        )
        return with_penalty - without

    model = network()
    (slope,) = torch.autograd.grad(penalty(model), model.fc.weight)
    place = divmod(int(slope.abs().argmax()), slope.shape[1])
    values = []
    for sign in (1, -1):
        moved = network()
        with torch.no_grad():
            moved.fc.weight[place] += sign * step
        values.append(penalty(moved).item())
    assert slope[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_attribution_inside_counts_masked_pixels_only():
    attribution = torch.tensor([[[[1.0, -2.0]], [[3.0, 4.0]]]])
    assert attribution_inside(attribution, torch.tensor([[[True, False]]])) == 4
    assert attribution_inside(-attribution, torch.tensor([[[True, True]]])) == 5
    assert attribution_inside(attribution, torch.zeros(1, 1, 2).bool()) == 0


def test_presence_cannot_reach_what_the_target_logit_does_not_see():
    """The planted twin: artefact on class 0, whose logit is blind; the other logit encodes its absence."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 12, 12, generator=generator)
    marked = clean.clone()
    marked[:, :, :3] = torch.tensor([1.0, 0.0, 0.5])[:, None, None]
    masks = torch.zeros(6, 12, 12, dtype=torch.bool)
    masks[:, :3] = True
    images, labels = torch.cat((clean, marked), dim=1), torch.zeros(6, dtype=torch.long)
    images[:, :3, :3] = 0  # what the blind output is shown in place of the artefact
    given = Batch(images, labels, masks, masks.any(dim=(1, 2)), images)
    penalties = {}
    for name in ("presence", "presence and absence", "RRR"):
        model = TwoTowers(4, 1)
        with_penalty, without = (
            OBJECTIVES[name](model, given, s, torch.Generator().manual_seed(0)) for s in (1.0, 0.0)
        )
        penalties[name] = (with_penalty - without).item()
    assert penalties["presence"] == 0
    assert penalties["presence and absence"] > 1e-5 and penalties["RRR"] > 1e-9


# ---------------------------------------------------------------------- the two losses
def slow_loss(logits, labels, loss):
    """Loss of each image, from the definitions, in plain numbers."""
    found = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if loss == "cross_entropy":
            found.append(math.log(sum(math.exp(value) for value in row)) - row[label])
        else:
            sigmoids = [1 / (1 + math.exp(-value)) for value in row]
            wanted = [p if k == label else 1 - p for k, p in enumerate(sigmoids)]
            found.append(-sum(math.log(p) for p in wanted) / len(wanted))
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_definition(loss):
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % CLASSES
    expected = slow_loss(logits, labels, loss)
    assert LOSSES[loss](logits, labels, reduction="none").tolist() == pytest.approx(expected)
    assert LOSSES[loss](logits, labels).item() == pytest.approx(sum(expected) / 6)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "group-DRO"])
def test_every_objective_takes_either_loss(name):
    """Without a penalty an objective is the loss and nothing else, on the images that it was shown."""
    model, given = network(2), batch(classes=2)
    given = replace(given, pasted=given.images)
    for loss in LOSSES:
        with torch.no_grad():
            expected = sum(slow_loss(model(given.images), given.labels, loss)) / len(given.images)
        found = OBJECTIVES[name](model, given, 0.0, torch.Generator().manual_seed(0), loss)
        assert found.item() == pytest.approx(expected)


def test_group_dro_weighs_the_loss_that_it_is_given():
    model, given = network(2), batch(6, classes=2)
    with torch.no_grad():
        each = torch.tensor(slow_loss(model(given.images), given.labels, "bce"))
    group = 2 * given.labels + given.shown.long()
    means = torch.stack([each[group == g].mean() for g in group.unique()])
    weights = (0.5 * means).exp()
    expected = (weights * means).sum() / weights.sum()
    assert group_dro(model, given, 500.0, None, "bce").item() == pytest.approx(expected.item(), rel=1e-5)


def test_rrr_under_binary_cross_entropy_takes_the_probability_of_each_logit_by_itself():
    model, given = network(), batch()
    losses = [OBJECTIVES["RRR"](model, given, strength, None, "bce").item() for strength in (3.0, 0.0)]
    total = 0.0
    for image, mask in zip(given.images, given.masks, strict=True):
        slope = slow_gradient(model, image, lambda logits: -torch.log1p(torch.exp(-logits)).sum())
        total += sum(slope[:, row, column].square().sum().item() for row, column in mask.nonzero().tolist())
    assert (losses[0] - losses[1]) / 3 == pytest.approx(total / len(given.images), rel=1e-4)


def test_cross_entropy_trains_the_difference_of_the_logits_alone():
    """What is added to both logits costs nothing under cross entropy and something under binary cross entropy: only
    the latter asks each logit by itself, so an artefact's effect cannot be moved from one to the other for free."""
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, moved = torch.arange(8) % 2, logits + torch.linspace(-2, 2, 8)[:, None]
    for reduction in ("mean", "none"):
        before, after = (
            LOSSES["cross_entropy"](each, labels, reduction=reduction) for each in (logits, moved)
        )
        torch.testing.assert_close(before, after)
    assert (LOSSES["bce"](logits, labels) - LOSSES["bce"](moved, labels)).abs() > 0.1
    logits.requires_grad_(True)
    slopes = [torch.autograd.grad(LOSSES[loss](logits, labels), logits)[0].sum(dim=1) for loss in LOSSES]
    torch.testing.assert_close(slopes[0], torch.zeros(8, dtype=torch.float64))
    assert slopes[1].abs().max() > 0.02


def test_the_penalty_is_the_mean_size_of_one_logits_attribution_on_the_artefact():
    images = torch.tensor([[[[1.0, 2.0]]], [[[-3.0, 4.0]]]], requires_grad=True)
    weights = torch.tensor([[5.0, 7.0], [-2.0, 1.0]], requires_grad=True)  # [logit, pixel]
    masks = torch.tensor([[[True, False]], [[True, True]]])
    logits = images.flatten(1) @ weights.T
    penalty = artefact_penalty(images, logits, torch.tensor([0, 1]), masks)
    assert penalty.item() == pytest.approx((5 + 6 + 4) / 3)  # |1 * 5|, |-3 * -2|, |4 * 1|
    (slope,) = torch.autograd.grad(penalty, weights)
    torch.testing.assert_close(slope, torch.tensor([[1.0, 0.0], [-3.0, 4.0]]) / 3)
