"""Training under an objective: a step by hand, the schedule, and runs that are killed and go on with the same bits."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from absence_utils import InputError
from absence_utils.debias.artefacts import border_bars, dilate, released_patches
from absence_utils.debias.objectives import OBJECTIVES
from absence_utils.debias.tasks import ShortcutData
from absence_utils.debias.training import TrainingConfig, _augmentation, flushed_denormals, train
from absence_utils.images.base import IMAGENET
from absence_utils.models.heads import two_class_network
from absence_utils.models.xdnn import DenseXNet


def data(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    shown = (labels == 0) != (torch.arange(n) < 2)  # one image of each class breaks the bias
    pixels = torch.rand(n, 1, 10, 10, generator=generator)
    return ShortcutData(pixels, labels, border_bars(n, 10, seed), shown, grow=1)


def network(seed=0):
    """With dropout, so that what is random in the network counts, too."""
    dense = DenseXNet(10, (12,), seed=seed)
    dense.features.append(nn.Dropout(0.3))
    return dense


RECIPE = TrainingConfig(epochs=6, lr=0.01, batch_size=8, measure_every=2)


def state(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_one_step_is_adams_step_by_hand():
    given, model = data(), DenseXNet(10, (6,), seed=1).double()
    given = ShortcutData(given.pixels.double(), given.labels, given.artefacts, given.shown)
    reference = DenseXNet(10, (6,), seed=1).double()
    loss = F.cross_entropy(reference(given.images()), given.labels)
    loss.backward()
    trained = train(model, given, "none", 0.0, TrainingConfig(epochs=1, lr=0.02, batch_size=24, warm_up=0.0))
    for new, old in zip(model.parameters(), reference.parameters(), strict=True):
        first, second = (
            0.1 * old.grad,
            0.001 * old.grad.square(),
        )  # moments after one step, then bias-corrected
        step = (first / 0.1) / ((second / 0.001).sqrt() + 1e-8)
        torch.testing.assert_close(new.data, old.data - 0.02 * step)
    assert trained.history[0]["loss"] == pytest.approx(loss.item())


def test_the_rate_rises_and_falls():
    recipe = TrainingConfig(lr=2.0, warm_up=0.25)
    rates = [recipe.rate(step, 40) for step in range(40)]
    assert rates[:3] == [pytest.approx(2 * (step + 1) / 11) for step in range(3)] and rates[10] == 2.0
    assert rates[25] == pytest.approx(1 + math.cos(math.pi / 2)) and 0 < rates[-1] < 0.02
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


class Killed(Exception):
    pass


@pytest.mark.parametrize("objective", ["presence and absence", "group-DRO", "random logit", "augmentation"])
@pytest.mark.parametrize("at", [2, 4])
def test_a_killed_run_goes_on_with_the_same_bits(objective, at, tmp_path):
    """Killed while measuring after epoch `at`: what was measured before is kept, that epoch is done again."""

    def run(killed_at=None, file=None):
        model, seen = network(), []

        def measure(model):
            seen.append(len(seen))
            if killed_at is not None and len(seen) == killed_at // 2:
                raise Killed
            return {"weight": state(model).sum().item()}

        options = {"seed": 3, "measure": measure, "score": lambda row: -row["epoch"], "checkpoint": file}
        return model, train(model, data(), objective, 10.0, RECIPE, **options), len(seen)

    file = tmp_path / "run.pt"
    model, whole, _ = run()
    with pytest.raises(Killed):
        run(at, file)
    assert file.is_file() == (at == 4)
    resumed_model, resumed, measured = run(file=file)
    assert measured == (2 if at == 4 else 3)  # what was done before the kill is not done again
    assert torch.equal(state(model), state(resumed_model))
    drop = ("seconds",)
    plain = [{k: v for k, v in row.items() if k not in drop} for row in whole.history]
    again = [{k: v for k, v in row.items() if k not in drop} for row in resumed.history]
    assert plain == again and [row["epoch"] for row in plain] == [2, 4, 6]
    assert whole.best_epoch == resumed.best_epoch == 2  # from before the kill
    assert all(torch.equal(whole.best[name], resumed.best[name]) for name in whole.best)


def counting(monkeypatch):
    calls = []
    original = OBJECTIVES["presence"]
    monkeypatch.setitem(OBJECTIVES, "presence", lambda *given: calls.append(1) or original(*given))
    return calls


def test_a_finished_run_is_read_and_another_is_not(tmp_path, monkeypatch, caplog):
    file, calls = tmp_path / "run.pt", counting(monkeypatch)
    model = network()
    first = train(model, data(), "presence", 5.0, RECIPE, checkpoint=file)
    assert len(calls) == 6 * 3
    again = network()
    second = train(again, data(), "presence", 5.0, RECIPE, checkpoint=file)
    assert len(calls) == 18 and torch.equal(state(model), state(again)) and not again.training
    assert first.history == second.history
    for other in (
        {"strength": 6.0}, {"seed": 1}, {"data": data(seed=1)}, {"model": network(1)},
        {"data": replace(data(), normalise=lambda pixels: pixels * 2)}, {"measured": {"test images": "repaired"}},
        {"recipe": replace(RECIPE, lr=0.02)}, {"recipe": replace(RECIPE, loss="bce")},
    ):  # fmt: skip
        given = {"model": network(), "data": data(), "strength": 5.0, "recipe": RECIPE} | other
        copy = tmp_path / "other.pt"
        copy.write_bytes(file.read_bytes())
        before = len(calls)
        caplog.clear()
        train(objective="presence", checkpoint=copy, **given)
        assert len(calls) == before + 18, other
        assert "other.pt is not used, the run starts anew: it" in caplog.text, other


@pytest.mark.parametrize("content", [b"", b"of another version", None])
def test_a_damaged_or_foreign_checkpoint_is_written_over(tmp_path, content):
    file = tmp_path / "run.pt"
    model = network()
    train(model, data(), "presence", 5.0, RECIPE, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100] if content is None else content)
    (tmp_path / ".run.pt.123").write_bytes(b"what a killed run was writing")
    again = network()
    train(again, data(), "presence", 5.0, RECIPE, checkpoint=file)
    assert torch.equal(state(model), state(again)) and file.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [file]


def test_seeds_and_the_global_generator():
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(9)
        expected = torch.rand(1)
        torch.manual_seed(9)
        model = network()
        train(model, data(), "random logit", 5.0, RECIPE, seed=seed)
        assert torch.rand(1) == expected
        runs.append(state(model))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_the_seed_decides_the_order_of_the_images():
    runs = []
    for seed in (0, 1):
        model = DenseXNet(10, (12,))  # without dropout, nothing else is random
        train(model, data(), "none", 0.0, RECIPE, seed=seed)
        runs.append(state(model))
    assert not torch.equal(*runs)


def test_dropout_and_order_differ_between_epochs():
    model, order, dropped = network(), [], []
    model.register_forward_pre_hook(lambda _, inputs: order.append(inputs[0].sum(dim=(1, 2, 3))))
    model.features[-1].register_forward_hook(
        lambda _, inputs, output: dropped.append((output == 0) & (inputs[0] > 0))
    )
    train(model, data(), "none", 0.0, TrainingConfig(epochs=2, batch_size=24))
    assert len(order) == 2 and torch.equal(order[0].sort().values, order[1].sort().values)
    assert not torch.equal(order[0], order[1]) and not torch.equal(dropped[0], dropped[1])


def test_the_best_weights_are_those_of_the_best_epoch():
    seen = {}

    def measure(model):
        epoch = 1 + len(seen)
        seen[epoch] = state(model).clone()
        return {"epoch number": epoch}

    recipe = TrainingConfig(epochs=5, batch_size=8)
    trained = train(
        network(), data(), "none", 0.0, recipe, measure=measure, score=lambda row: -abs(row["epoch"] - 3)
    )
    best = torch.cat([value.flatten() for value in trained.best.values()])
    assert trained.best_epoch == 3 and torch.equal(best, seen[3]) and not torch.equal(best, seen[5])
    last = train(network(), data(), "none", 0.0, recipe)
    assert last.best_epoch == 5


def test_denormals_are_flushed_inside_and_the_setting_is_left_as_found():
    def tiny():
        return (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item()

    assert tiny() > 0
    with flushed_denormals():
        assert tiny() == 0
        with flushed_denormals():
            assert tiny() == 0
        assert tiny() == 0
    assert tiny() > 0
    seen = []
    train(network(), data(), "none", 0.0, RECIPE, measure=lambda model: seen.append(tiny()) or {})
    assert seen == [0, 0, 0] and tiny() > 0
    with pytest.raises(Killed), flushed_denormals():
        raise Killed
    assert tiny() > 0


def test_autocast_gives_nearly_the_same_network():
    """bfloat16 keeps eight bits: the first losses differ by a per cent at most, and not by nothing."""
    found = []
    for precision in ("float32", "bfloat16", "auto"):
        trained = train(
            network(), data(), "presence and absence", 1.0, TrainingConfig(3, 0.002, 24, precision=precision)
        )
        found.append([row["loss"] for row in trained.history])
    assert found[0] == found[2] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_a_run_that_diverges_says_so():
    with pytest.raises(InputError, match="lr.*diverged in epoch"):
        train(network(), data(), "presence and absence", 1e30, TrainingConfig(4, 1e6, 8))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TrainingConfig(epochs=0), "epochs"),
        (lambda: TrainingConfig(batch_size=0), "batch_size"),
        (lambda: TrainingConfig(measure_every=0), "measure_every"),
        (lambda: TrainingConfig(lr=0.0), "lr"),
        (lambda: TrainingConfig(warm_up=1.5), "warm_up"),
        (lambda: TrainingConfig(precision="half"), "precision"),
        (lambda: TrainingConfig(loss="hinge"), "loss.*bce"),
        (lambda: TrainingConfig(schedule="cosine"), "schedule.*constant"),
        (lambda: TrainingConfig(augment="all"), "augment.*released"),
        (lambda: TrainingConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: train(network(), data(), "absence"), "objective"),
        (lambda: train(network(), data(), "presence", -1.0), "strength"),
        (lambda: train(network(), data(), "presence", math.nan), "strength"),
    ],
)
def test_bad_input(make, name):
    with pytest.raises(InputError, match=name):
        make()


def test_the_rate_follows_the_whole_run(monkeypatch):
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: seen.append(self.param_groups[0]["lr"]) or step(self)
    )
    train(network(), data(), "none", 0.0, RECIPE)
    assert seen == [RECIPE.rate(number, 18) for number in range(18)]


# ---------------------------------------------------------------------- as the authors' release trains
def test_two_released_steps_by_hand():
    """Binary cross entropy on both logits, Adam at a constant rate with the decay added to the gradient."""
    given, batches = data(), []
    given = ShortcutData(given.pixels.double(), given.labels, given.artefacts, given.shown)
    model, reference = (DenseXNet(10, (6,), seed=1).double() for _ in range(2))
    recipe = TrainingConfig(1, 0.01, 12, loss="bce", schedule="constant", weight_decay=0.3)
    model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    train(model, given, "none", 0.0, recipe, seed=2)
    rows = torch.randperm(24, generator=torch.Generator().manual_seed(2 * 100_003 + 1)).split(12)
    first, second = ([torch.zeros_like(p) for p in reference.parameters()] for _ in range(2))
    for step, (images, chosen) in enumerate(zip(batches, rows, strict=True), start=1):
        wanted = F.one_hot(given.labels[chosen], 2).double()
        p = reference(images).sigmoid()
        reference.zero_grad()
        (-(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean()).backward()
        for m, v, weight in zip(first, second, reference.parameters(), strict=True):
            slope = weight.grad + 0.3 * weight.data
            m.mul_(0.9).add_(0.1 * slope)
            v.mul_(0.999).add_(0.001 * slope.square())
            size = (v / (1 - 0.999**step)).sqrt() + 1e-8
            weight.data -= 0.01 * (m / (1 - 0.9**step)) / size
    torch.testing.assert_close(state(model), state(reference))


def test_a_constant_rate_is_constant():
    recipe = TrainingConfig(lr=1e-4, schedule="constant")
    assert {recipe.rate(step, 40) for step in range(40)} == {1e-4}


def seen_in_training(given, recipe):
    """The images of each epoch in the order of the data, [epoch][image, channel, height, width]."""
    model, images = network(), []
    model.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0]))
    train(model, given, "none", 0.0, recipe)
    epochs = [torch.cat(images[start : start + 3]) for start in range(0, len(images), 3)]
    orders = [
        torch.randperm(24, generator=torch.Generator().manual_seed(epoch))
        for epoch in range(1, 1 + len(epochs))
    ]
    return [epoch[order.argsort()] for epoch, order in zip(epochs, orders, strict=True)]


def test_artefacts_are_drawn_anew_at_each_showing_and_masks_follow():
    def draw(n, seed):
        return border_bars(n, 10, seed)

    given, masks = replace(data(), draw=draw), []
    first, second = seen_in_training(given, TrainingConfig(2, batch_size=8))
    for image, again, pixels, shown in zip(first, second, given.pixels, given.shown, strict=True):
        assert torch.equal(image, again) == (not shown) == torch.equal(image, pixels) or shown
    changed = [not torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert not any(c for c, shown in zip(changed, given.shown, strict=True) if not shown)
    assert sum(changed) > given.shown.sum() / 2  # one of four sides comes again by chance
    for seed in (1, 2):
        batch = given.training_batch(torch.arange(24), seed, None)
        bars = (batch.pasted == 1).all(dim=1) & (batch.pasted != given.pixels).any(dim=1)
        assert torch.equal(batch.masks & bars, bars & given.shown[:, None, None])
        assert torch.equal(batch.masks, dilate(draw(24, seed).mask, 1) & given.shown[:, None, None])
        masks.append(batch.masks)
    assert not torch.equal(*masks) and torch.equal(given.batch(torch.arange(24)).images, given.images())


def test_artefacts_stay_where_they_are_unless_they_are_drawn_anew():
    given = data()
    for epoch in seen_in_training(given, TrainingConfig(2, batch_size=8)):
        assert torch.equal(epoch, given.images())


def test_images_are_augmented_under_their_artefacts():
    """Each image by itself and anew in each epoch; the artefact lies on top, whole and in its colour."""
    given = data()
    first, second = seen_in_training(given, TrainingConfig(2, batch_size=8, augment="released"))
    for one, two, pixels, mask, shown in zip(
        first, second, given.pixels, given.artefacts.mask, given.shown, strict=True
    ):
        assert not torch.equal(one, two) and one.shape == pixels.shape and 0 <= one.min() and one.max() <= 1
        assert not shown or (one[0][mask] == 1).all() and (two[0][mask] == 1).all()
    again, _ = seen_in_training(given, TrainingConfig(2, batch_size=8, augment="released"))
    assert torch.equal(first, again)


def test_the_released_augmentation_crops_flips_and_changes_colours_as_much_as_it_says():
    """A ramp tells crop and flips by its ends, a plain image brightness; bounds from the definition."""
    change = _augmentation("released", (32, 32))
    ramp = torch.linspace(0.2, 0.4, 32).expand(3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = torch.stack([change(ramp) for _ in range(200)])
        plain = torch.stack([change(torch.full((3, 32, 32), 0.5)) for _ in range(200)])
    rising = (found[:, 0, :, -1] - found[:, 0, :, 0]).mean(dim=1)
    assert 60 < (rising > 0).sum() < 140 and found.shape == (200, 3, 32, 32)
    level = plain.mean(dim=(1, 2, 3))
    assert 0.4 - 1e-4 < level.min() < 0.42 and 0.58 < level.max() < 0.6 + 1e-4
    # width of the crop: at least .8 of the area at 4:3, that is sqrt(.8 x 3/4); contrast and brightness change by .2
    span = rising.abs() / 0.2
    assert 0.64 * 0.77 - 0.05 < span.min() and span.max() < 1.44 + 0.05


def test_group_dro_refuses_a_complete_bias_and_takes_three_groups():
    complete = replace(data(), shown=data().labels == 0)
    with pytest.raises(InputError, match="objective.*2 of its four groups.*1% minority"):
        train(network(), complete, "group-DRO", 10.0, RECIPE)
    three = replace(data(), shown=(data().labels == 0) & (torch.arange(24) < 12))
    assert train(network(), three, "group-DRO", 10.0, RECIPE).history


class Attentive(nn.Module):
    """Attention over the rows of an image, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(10, 2, batch_first=True), nn.Linear(10, 2)

    def forward(self, images):
        rows = images[:, 0]
        return self.fc(self.attention(rows, rows, rows, need_weights=False)[0].mean(dim=1))


def test_attention_is_trained_through_second_derivatives():
    """Fused attention has none; what the penalty's gradient is, differences of the loss tell."""
    torch.manual_seed(0)
    model, given = Attentive(), data()
    before = state(model).clone()
    trained = train(model, given, "presence and absence", 10.0, TrainingConfig(2, 0.01, 12))
    assert math.isfinite(trained.history[-1]["loss"]) and not torch.equal(before, state(model))
    assert model.attention.in_proj_weight.grad.abs().max() > 0


@pytest.mark.slow
def test_vit_b_16_takes_two_penalised_steps():
    model = two_class_network(0, model="vit_b_16", size=32)
    generator, labels = torch.Generator().manual_seed(0), torch.arange(4) % 2
    pixels = torch.rand(4, 3, 32, 32, generator=generator)
    given = ShortcutData(pixels, labels, released_patches(4, 32), labels == 0, IMAGENET.apply)
    before = model.encoder.layers[0].self_attention.in_proj_weight.detach().clone()
    trained = train(model, given, "presence and absence", 10.0, TrainingConfig(1, 1e-4, 2, loss="bce"))
    moved = model.encoder.layers[0].self_attention.in_proj_weight - before
    assert math.isfinite(trained.history[0]["loss"]) and moved.abs().max() > 1e-6
