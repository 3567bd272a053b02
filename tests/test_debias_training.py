"""Training under an objective: a step by hand, the schedule, and runs that are killed and go on with the same bits."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from absence_utils import InputError
from absence_utils.debias.artefacts import border_bars, sample_artefact_presence
from absence_utils.debias.objectives import OBJECTIVES
from absence_utils.debias.tasks import ShortcutData
from absence_utils.debias.training import TrainingConfig, flushed_denormals, train
from absence_utils.models.xdnn import DenseXNet


def data(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.rand(n, 1, 10, 10, generator=generator)
    return ShortcutData(
        pixels, labels, border_bars(n, 10, seed), sample_artefact_presence(labels, "train bias"), grow=1
    )


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
        {"recipe": TrainingConfig(epochs=6, lr=0.02, batch_size=8, measure_every=2)},
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
