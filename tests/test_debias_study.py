"""Measures against a network whose answer is known, the tables by hand, and the claim itself on a short version."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from absence_utils import InputError
from absence_utils.debias.artefacts import Artefacts
from absence_utils.debias.examples import example_maps
from absence_utils.debias.losses import compare_losses
from absence_utils.debias.measures import measure_shortcut, selection_score
from absence_utils.debias.objectives import OBJECTIVES
from absence_utils.debias.study import (
    REFERENCES,
    DebiasStudy,
    RunSpec,
    chosen_objectives,
    chosen_references,
    plan_runs,
    run_study,
    run_twin,
)
from absence_utils.debias.tables import (
    accuracy_lines,
    accuracy_table,
    compare,
    cost_table,
    last_epochs,
    loss_table,
    over_training,
    score_table,
    select,
)
from absence_utils.debias.tasks import ShortcutData, digits_task, scenes_task
from absence_utils.debias.training import TrainingConfig, TrainingResult
from absence_utils.models.xdnn import DenseXNet, TwoTowers
from absence_utils.stats import clustered_rate


def dots():
    """Six images of three pixels: the first is where the artefact lies (value 1), the others are content."""
    pixels = torch.tensor(
        [[0, 5, 1], [0, 4, 1], [0, 1, 2], [0, 1, 6], [0.5, 2, 1], [0, 0, 3]], dtype=torch.float64
    ).reshape(6, 1, 1, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    mask = torch.zeros(6, 1, 3, dtype=torch.bool)
    mask[..., 0] = True
    return ShortcutData(pixels, labels, Artefacts(mask, torch.ones(6, 1)), labels == 0, grow=0)


def planted(a: float, b: float):
    """Logit 0 = a * artefact + second pixel; logit 1 = b * artefact + third pixel."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    model[1].weight.data = torch.tensor([[a, 1, 0], [b, 0, 1]], dtype=torch.float64)
    return model.eval()


def test_measures_of_a_planted_network():
    """a = 1, b = -3: the artefact adds 1 to logit 0 and takes 3 from logit 1."""
    found = measure_shortcut(planted(1.0, -3.0), dots(), 0)
    plain = [(5, 1), (4, 1), (1, 2), (1, 6), (2.5, -0.5), (0, 3)]
    marked = [(6, -2), (5, -2), (2, -1), (2, 3), (3, -2), (1, 0)]
    labels = [0, 0, 0, 1, 1, 1]
    right = [
        [int(b > a) == label for (a, b), label in zip(each, labels, strict=True)] for each in (plain, marked)
    ]
    assert right == [[True, True, False, True, False, True], [True, True, True, True, False, False]]
    assert found["biased"] == pytest.approx(5 / 6)  # carriers marked: 3 of 3; the others plain: 2 of 3
    assert found["coin"] == pytest.approx((4 + 4) / 12)
    assert found["patch-free"] == pytest.approx(4 / 6)
    assert found["inverse-biased"] == pytest.approx((2 + 1) / 6)
    assert found["worst group"] == pytest.approx(1 / 3)
    spread = np.std(np.array(plain), axis=0, ddof=1)
    control = [0.0, 0.5, 0.0, 0.0, 0.0, 0.0]  # what the image three further on has at that place
    effect = np.array([1 - value for value in control]).mean()
    assert found["absence score of the carrier's logit"] == pytest.approx(-effect / spread[0])
    assert found["absence score of the other logit"] == pytest.approx(3 * effect / spread[1])
    assert found["evidence for the carrier's logit"] == pytest.approx(1 / spread[0])
    assert found["evidence for the other logit"] == pytest.approx(-3 / spread[1])
    assert found["share of the carrier's logit"] == pytest.approx((1 / 6 + 1 / 5 + 1 / 2) / 3)
    assert found["share of the other logit"] == pytest.approx((3 / 4 + 3 / 4 + 3 / 5) / 3)
    assert found["images"] == 6


class Product(nn.Module):
    """Logit 0 = artefact x second pixel, logit 1 = second pixel: what the artefact does depends on the image."""

    def forward(self, images):
        first, second, _ = images.flatten(1).unbind(dim=1)
        return torch.stack((first * second, second), dim=1)


def test_the_absence_score_compares_with_the_control_of_the_same_image():
    model = nn.Sequential(Product(), nn.Linear(2, 2, bias=False)).double()
    model[1].weight.data = torch.eye(2, dtype=torch.float64)
    found = measure_shortcut(model, dots(), 0)
    second = np.array([5, 4, 1, 1, 2, 0.0])
    spread = np.std([0, 0, 0, 0, 0.5 * 2, 0], ddof=1)
    control = np.array([0, 0.5, 0, 0, 0, 0])  # image 1 gets what image 4 has at the artefact's place
    expected = -(second * 1 - second * control).mean() / spread
    assert found["absence score of the carrier's logit"] == pytest.approx(expected)


def test_measures_with_the_artefact_on_the_other_class_and_an_incomplete_bias():
    found = measure_shortcut(planted(-3.0, 1.0), dots(), 1, bias=(0.8, 0.3))
    plain = [(5, 1), (4, 1), (1, 2), (1, 6), (0.5, 1.5), (0, 3)]
    marked = [(2, 2), (1, 2), (-2, 3), (-2, 7), (-1, 2), (-3, 4)]
    labels = [0, 0, 0, 1, 1, 1]
    expected = {"biased": 0.0, "inverse-biased": 0.0, "patch-free": 0.0, "coin": 0.0}
    for label, (a, b), (c, d) in zip(labels, plain, marked, strict=True):
        often, inverse = (0.8, 0.3) if label == 1 else (0.3, 0.8)
        hits = (int(b > a) == label, int(d > c) == label)
        expected["patch-free"] += hits[0] / 6
        expected["coin"] += (hits[0] + hits[1]) / 12
        expected["biased"] += ((1 - often) * hits[0] + often * hits[1]) / 6
        expected["inverse-biased"] += ((1 - inverse) * hits[0] + inverse * hits[1]) / 6
    assert found == pytest.approx(found | expected)
    assert found["evidence for the carrier's logit"] > 0 > found["evidence for the other logit"]
    assert found["absence score of the carrier's logit"] < 0 < found["absence score of the other logit"]


def test_measures_in_batches_are_those_of_the_whole_and_leave_the_mode():
    model = planted(1.0, -3.0).train()
    whole, parts = (measure_shortcut(model, dots(), 0, batch=size) for size in (256, 2))
    assert whole == pytest.approx(parts) and model.training and model[1].training
    assert model[1].weight.grad is None


def test_a_batch_without_the_carriers_images_is_no_problem():
    given = dots()
    assert measure_shortcut(planted(1.0, 1.0), given, 0, batch=3)["images"] == 6


# ---------------------------------------------------------------------- plans
def test_plans():
    plans = plan_runs(["none", "presence", "group-DRO"], [1, 10], [3, 4], [1])
    assert [(plan.objective, plan.strength) for plan in plans if plan.seed == 3] == [
        ("none", 0), ("presence", 1), ("presence", 10), ("group-DRO", 10),
    ]  # fmt: skip
    assert {plan.carrier for plan in plans} == {1} and len(plans) == len(set(plans)) == 8


def test_plain_training_has_as_many_attempts_as_asked_for_and_other_weights_in_each():
    plans = plan_runs(["none", "presence", "no patch"], [1, 10], [4], [0], attempts=3)
    assert [plan.attempt for plan in plans] == [0, 1, 2, 0, 0, 0]
    seeds = [plan.first_weights for plan in plans]
    assert len(set(seeds)) == 3 and seeds[0] == 4 == seeds[3]
    assert len({plan.name for plan in plans}) == 6


def trained_on(objective):
    """Shares of each class that show the artefact in training, and the objective, as one run has them."""
    seen = []

    def task(carrier, seed):
        return digits_task(carrier, seed, limit=400)

    def watch(model, data, name, *given, **options):
        seen.append((name, [data.shown[data.labels == label].double().mean().item() for label in (0, 1)]))
        return TrainingResult([], {}, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("absence_utils.debias.study.train", watch)
        run_study(plan_runs([objective], [1], [3], [1]), task, dense)
    return seen[0]


def test_references_are_trained_on_other_data():
    """The artefact is on class 1: 400 images, about 200 of each class."""
    assert trained_on("none") == ("none", [0, 1])
    assert trained_on("no patch") == ("none", [0, 0])
    name, shares = trained_on("no shortcut")
    assert name == "none" and shares == pytest.approx([0.5, 0.5], abs=0.12)
    for reference, objective in (("none, 1% minority", "none"), ("group-DRO, 1% minority", "group-DRO")):
        name, (other, carrier) = trained_on(reference)
        assert name == objective and 0 < other < 0.05 and 0.95 < carrier < 1
    assert {"no shortcut", "no patch", "none, 1% minority", "group-DRO, 1% minority"} == set(REFERENCES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attempts": 0}, "attempts"),
        ({"objectives": ["presense"]}, "presense"), ({"objectives": []}, "objectives.*empty"),
        ({"strengths": []}, "strengths.*empty"), ({"seeds": []}, "seeds"), ({"carriers": [2]}, "carriers"),
    ],
)  # fmt: skip
def test_bad_plans(changes, message):
    with pytest.raises(InputError, match=message):
        plan_runs(**({"objectives": ["none"], "strengths": [1], "seeds": [0]} | changes))


def test_what_the_figures_compare_with_must_be_trained():
    assert "group-DRO" not in chosen_objectives([]) and chosen_objectives([])[0] == "none"
    assert chosen_objectives(["presence and absence", "none"]) == ["presence and absence", "none"]
    for missing in ("none", "presence and absence"):
        with pytest.raises(InputError, match=f"objectives.*'{missing}'"):
            chosen_objectives([name for name in OBJECTIVES if name != missing])


# ---------------------------------------------------------------------- tables by hand
def history(**columns):
    """Two strengths, two epochs, two seeds of one objective, both splits; measures are made up."""
    rows = []
    for seed in (0, 1):
        for strength in (1.0, 10.0):
            for epoch in (1, 2):
                for split in ("validation", "test"):
                    rows.append({
                        "carrier": 0, "seed": seed, "objective": "presence", "strength": strength, "attempt": 0,
                        "epoch": epoch, "patch-free": 0.5,
                        "split": split, "seconds": strength * epoch, "biased": 0.9, "coin": 0.5,
                        "inverse-biased": 0.1, "worst group": 0.0, "images": 20,
                        "share of the carrier's logit": 0.2, "share of the other logit": 0.4,
                        "evidence for the carrier's logit": epoch, "evidence for the other logit": -epoch,
                        "absence score of the carrier's logit": -1.0 - seed,
                        "absence score of the other logit": 2.0 + seed,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def put(table, value, column, **where):
    rows = np.logical_and.reduce([table[name] == wanted for name, wanted in where.items()])
    assert rows.any()
    table.loc[rows, column] = value


def test_selection_looks_at_validation_and_reports_test():
    table = history()
    put(table, 0.8, "patch-free", seed=0, strength=10.0, epoch=1, split="validation")
    put(table, 0.8, "patch-free", seed=1, strength=1.0, epoch=2, split="validation")
    put(table, 0.99, "patch-free", strength=1.0, epoch=1, split="test")  # must not tempt it
    put(table, 0.77, "inverse-biased", seed=0, strength=10.0, epoch=1, split="test")
    chosen = select(table, "patch_free")
    assert chosen[["seed", "strength", "epoch"]].to_numpy().tolist() == [[0, 10, 1], [1, 1, 2]]
    assert chosen["inverse-biased"].tolist() == [0.77, 0.1] and set(chosen.split) == {"test"}


def test_the_rule_on_biased_images_weighs_accuracy_and_attribution():
    table = history()
    assert selection_score(table.iloc[0]) == pytest.approx(0.9 - 0.3)
    put(table, 1.0, "patch-free", strength=1.0, epoch=1)  # must not tempt it
    put(table, 0.0, "share of the other logit", seed=0, strength=10.0, epoch=2, split="validation")
    put(table, 0.0, "share of the carrier's logit", seed=1, strength=1.0, epoch=2, split="validation")
    put(
        table, 0.95, "biased", seed=1, strength=10.0, epoch=1, split="validation"
    )  # .05 less than the .1 above
    chosen = select(table, "biased")
    assert chosen[["seed", "strength", "epoch"]].to_numpy().tolist() == [[0, 10, 2], [1, 1, 2]]
    with pytest.raises(InputError, match="rule"):
        select(table, "last")


def test_the_released_rule_looks_at_images_without_a_patch_and_takes_the_largest_weight_of_equals():
    """Over epochs the first of equals, over weights the last, which are tried in ascending order."""
    table = history()
    put(table, 0.8, "patch-free", seed=0, split="validation", strength=1.0)
    put(table, 0.8, "patch-free", seed=0, split="validation", strength=10.0)
    put(table, 0.8, "patch-free", seed=1, split="validation", strength=1.0, epoch=2)
    put(table, 1.0, "patch-free", split="test", strength=1.0, epoch=1)  # must not tempt it
    put(table, 1.0, "coin", strength=1.0, epoch=1)  # nor this
    assert select(table, "patch_free")[["seed", "strength", "epoch"]].to_numpy().tolist() == [
        [0, 10, 1],
        [1, 1, 2],
    ]


def several_attempts():
    """Plain training three times beside a penalty: the second attempt is the best, the first is the one that counts
    as plain training."""
    plain = history().assign(objective="none").query("strength == 1").assign(strength=0.0)
    tries = pd.concat([plain.assign(attempt=number) for number in range(3)])
    table = pd.concat([tries, history()], ignore_index=True)
    put(table, 0.9, "patch-free", attempt=1, epoch=2, split="validation")
    put(table, 0.7, "inverse-biased", attempt=1, epoch=2, split="test")
    return table


def test_plain_training_stands_once_as_it_is_and_once_as_the_best_of_its_attempts():
    chosen = select(several_attempts(), "patch_free")
    assert chosen.objective.tolist() == ["none", "none, best of 3"] * 2 + ["presence"] * 2
    best = chosen[chosen.objective == "none, best of 3"]
    assert best.attempt.tolist() == [1, 1] and best["inverse-biased"].tolist() == [0.7, 0.7]
    assert chosen[chosen.objective == "none"].attempt.tolist() == [0, 0]
    assert set(chosen["inverse-biased"][chosen.objective != "none, best of 3"]) == {0.1}


def test_losses_side_by_side_by_hand():
    """The runs asked for and no others, after the last epoch; the second loss has been trained for one seed."""
    both = pd.concat([history(), history().assign(objective="RRR")], ignore_index=True)
    put(both, 0.3, "inverse-biased", seed=1, strength=10.0, epoch=2)
    put(both, 0.6, "inverse-biased", epoch=1)
    plans = plan_runs(["presence"], [10], [0, 1], [0])
    found = loss_table({"cross_entropy": both, "bce": both[both.seed == 0], "none": both[:0]}, plans)
    assert set(found.objective) == {"presence"} and set(found.strength) == {10.0} and len(found) == 6
    values = found.set_index(["loss", "measure"]).sort_index()
    assert values.value["cross_entropy", "inverse-biased"] == pytest.approx(0.2)
    assert values.value["bce", "inverse-biased"] == 0.1 and np.isnan(values.low["bce", "inverse-biased"])
    assert values.value["cross_entropy", "absence score, carrier"] == -1.5
    assert values.value["bce", "absence score, other"] == 2.0
    assert values.seeds["cross_entropy"].tolist() == [2] * 3 and values.seeds["bce"].tolist() == [1] * 3


def test_only_selection_sees_more_than_the_first_attempt():
    table, alone = several_attempts(), several_attempts().query("attempt == 0")
    put(table, 50.0, "seconds", attempt=2)
    pd.testing.assert_frame_equal(last_epochs(table), last_epochs(alone))
    pd.testing.assert_frame_equal(cost_table(table), cost_table(alone))
    selected = select(alone, "biased")
    again = [over_training(part, selected, ["none", "presence"], "presence") for part in (table, alone)]
    pd.testing.assert_frame_equal(*again)


def test_accuracies_by_hand():
    table = history()
    put(table, 0.4, "inverse-biased", seed=1)
    rows = last_epochs(table)
    assert set(rows.epoch) == {2} and set(rows.split) == {"test"}
    found = accuracy_table(rows, ("objective", "strength")).set_index(["strength", "set"])
    one = found.loc[(1.0, "inverse-biased")]
    expected = clustered_rate([2, 8], [20, 20])
    assert (one.accuracy, one.low, one.high, one.seeds) == (
        pytest.approx(0.25),
        expected.low,
        expected.high,
        2,
    )
    alone = accuracy_table(rows[rows.seed == 0], ("objective", "strength"))
    assert alone.low.isna().all() and alone.accuracy.notna().all()


def test_comparison_by_hand():
    rows = []
    for seed, mine, theirs, others in ((0, 0.9, 0.5, 0.9), (1, 0.95, 0.7, 0.95), (2, 0.97, 0.3, 0.97)):
        for objective, value in (("presence and absence", mine), ("presence", theirs), ("RRR", others)):
            rows.append(
                {"rule": "r", "carrier": 1, "seed": seed, "objective": objective, "inverse-biased": value}
            )
    found = compare(pd.DataFrame(rows)).set_index("other")
    differences = np.array([0.4, 0.25, 0.67])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / 3**0.5
    row = found.loc["presence"]
    assert (row.difference, row.low) == (pytest.approx(0.44), pytest.approx(0.44 - half))
    assert row.high == pytest.approx(min(0.44 + half, 1))
    assert row.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    alone = compare(pd.DataFrame(rows).query("seed == 0")).set_index("other")
    assert alone.difference["presence"] == pytest.approx(0.4) and alone.low.isna().all()
    assert row.q == pytest.approx(2 * row.p) and found.loc["RRR"].p == 1 == found.loc["RRR"].q


def test_scores_by_hand():
    found = score_table(select(history(), "biased")).set_index("logit")
    assert found.score.tolist() == [-1.5, 2.5]
    half = stats.t.ppf(0.975, 1) * 0.5**0.5 / 2**0.5
    assert found.low.tolist() == pytest.approx([-1.5 - half, 2.5 - half])


def test_cost_is_relative_to_plain_training():
    plain = history().assign(objective="none", strength=0.0, seconds=2.0)
    plain = plain.drop_duplicates(["seed", "epoch", "split"])
    put(plain, 4.0, "seconds", seed=1)
    found = cost_table(pd.concat([plain, history()])).set_index("objective")
    assert found.times.tolist() == [1.0, pytest.approx(np.median([1.5 / 2, 15 / 2, 1.5 / 4, 15 / 4]))]
    with pytest.raises(InputError, match="none"):
        cost_table(history())


def test_training_is_traced_at_the_strength_that_one_objective_was_given_most_often():
    table = pd.concat(
        [history(), history().assign(objective="RRR"), history().assign(objective="none", strength=0.0)]
    )
    selected = pd.DataFrame(
        {"carrier": 0, "objective": "RRR", "seed": [0, 1, 2], "strength": [10.0, 1.0, 10.0]}
    )
    found = over_training(table, selected, ["none", "presence"], "RRR")
    assert set(found.strength[found.objective == "presence"]) == {10.0} and set(found.objective) == {
        "none",
        "presence",
    }
    presence = found[found.objective == "presence"]
    assert presence.epoch.tolist() == [1, 2, 1, 2]
    assert presence["evidence for the other logit"].tolist() == [-1, -2, -1, -2]


def test_lines_in_words():
    table = accuracy_table(last_epochs(history()).query("strength == 1"))
    (line,) = accuracy_lines(table, {0: "artefact on even"})
    assert line.startswith("artefact on even (last epoch): presence 10% [") and line.endswith("%].")
    (alone,) = accuracy_lines(table.assign(low=np.nan), {0: "even"}, ["presence"])
    assert alone == "even (last epoch): presence 10%."
    assert accuracy_lines(table, {0: "even"}, ["RRR"]) == ["even (last epoch): ."]
    both = pd.concat([table.assign(rule=rule) for rule in ("patch_free", "biased")])
    said = accuracy_lines(both, {0: "even"})
    assert len(said) == 2 and "as released" in said[0] and "on biased images" in said[1]


def test_references_are_those_of_a_complete_bias_unless_others_are_asked_for():
    assert chosen_references(["no patch"]) == ["no patch"]
    usual = chosen_references([])
    assert "no shortcut" in usual and set(usual) < set(REFERENCES)
    usual.clear()
    assert chosen_references([]), "the list is the caller's"


def test_a_task_says_what_it_holds():
    task = replace(digits_task(seed=1), notes=("one file was left out",))
    counts = [len(data) for data in (task.train, task.validation, task.test)]
    assert str(task) == (
        "scikit-learn's digits, fold 1 of 5: {} training, {} validation and {} test images of even and odd. "
        "one file was left out".format(*counts)
    )


# ---------------------------------------------------------------------- the claim
def dense(seed):
    return DenseXNet(14, (128, 64), seed=seed)


RECIPE = TrainingConfig(16, 0.006, 192, measure_every=8)


@pytest.fixture(scope="module")
def study():
    plans = plan_runs(["none", "presence", "presence and absence", "no shortcut"], [100], range(3))
    return run_study(plans, digits_task, dense, RECIPE, keep=0)


@pytest.mark.slow
@pytest.mark.parametrize("carrier", [0, 1])
def test_order_of_the_objectives_over_three_seeds(study, carrier):
    """At one strength, after the last epoch, on inverse-biased images: none < presence < presence and absence, and
    each step's interval, paired by seed, excludes 0. The plain network does as it is told by the artefact."""
    rows = last_epochs(study.history)
    rows = rows[rows.carrier == carrier]
    both, against = compare(rows).set_index("other"), compare(rows, "presence").set_index("other")
    assert both.low["presence"] > 0.2 and both.low["none"] > 0.8
    assert abs(both.difference["no shortcut"]) < 0.1  # what can be learnt is learnt
    assert against.low["none"] > 0
    accuracy = accuracy_table(rows).set_index(["objective", "set"])
    assert accuracy.high[("none", "inverse-biased")] < 0.05 and accuracy.low[("none", "biased")] > 0.95
    assert accuracy.low[("presence and absence", "inverse-biased")] > 0.8


@pytest.mark.slow
def test_presence_only_leaves_the_absence_in_the_other_logit(study):
    table = score_table(last_epochs(study.history))
    scores = table.set_index(["carrier", "objective", "logit"]).sort_index()
    for carrier in (0, 1):
        assert scores.low[(carrier, "none", "other")] > 1 and scores.high[(carrier, "none", "carrier")] < -1
        assert scores.low[(carrier, "presence", "other")] > 0.5
        assert abs(scores.score[(carrier, "presence", "carrier")]) < 1
        assert scores.score.abs()[(carrier, "presence and absence")].max() < 0.1


@pytest.mark.slow
def test_the_other_loss_trains_a_part_of_the_study_again(tmp_path):
    names = ["none", "presence", "presence and absence", "RRR", "no shortcut"]
    recipe = TrainingConfig(epochs=1, lr=0.006, batch_size=192)
    first = run_study(plan_runs(names, [1, 10], range(2)), digits_task, dense, recipe)
    table = compare_losses(first.history, digits_task, dense, recipe, [1, 7], checkpoints=tmp_path)
    assert table.loss.drop_duplicates().tolist() == ["cross_entropy", "bce"]
    assert set(table.objective) == set(names[:3]) and set(table.seeds) == {1}
    assert set(table.strength[table.objective != "none"]) == {1, 10}
    assert len(list((tmp_path / "bce").iterdir())) == 5, "five runs of seed 1, with the artefact on class 0"
    plans = plan_runs(["presence"], [10], [1], [0])
    there = run_study(plans, digits_task, dense, replace(recipe, loss="bce"))
    (expected,) = last_epochs(there.history)["inverse-biased"]
    key = ["loss", "objective", "strength", "measure"]
    assert table.set_index(key).value["bce", "presence", 10, "inverse-biased"] == pytest.approx(expected)
    alone = compare_losses(first.history, digits_task, dense, recipe, [])
    assert set(alone.loss) == {"cross_entropy"} and set(alone.seeds) == {2}


@pytest.mark.slow
def test_the_twin_is_asked_on_both_sides():
    rows = run_twin([3], scenes=64, epochs=1)
    runs = rows[["carrier", "seed", "objective", "strength"]].drop_duplicates()
    assert runs.to_numpy().tolist() == [
        [0, 3, "none", 0.0], [0, 3, "presence", 10.0], [0, 3, "presence and absence", 10.0],
        [1, 3, "none", 0.0], [1, 3, "presence", 10.0],
    ]  # fmt: skip
    assert set(rows.epoch) == {1} and set(rows.images) == {16}


@pytest.mark.slow
def test_the_planted_twin():
    """Only the non-target logit can use the artefact: presence-only changes nothing, both logits repair it. With the
    artefact on the class whose logit sees it, presence-only suffices."""
    plans = [
        RunSpec(0, 0, "presence", 10.0),
        RunSpec(0, 0, "presence and absence", 10.0),
        RunSpec(1, 0, "presence", 10.0),
    ]
    task = partial(scenes_task, n=800, size=16, twin=True)
    found = run_study(plans, task, partial(TwoTowers, 12, 1), TrainingConfig(10, 0.03, 96, measure_every=10))
    rows = last_epochs(found.history).set_index(["carrier", "objective"])
    inverse = rows["inverse-biased"]
    assert inverse[(0, "presence")] < 0.2 and rows["biased"][(0, "presence")] > 0.9
    assert inverse[(0, "presence and absence")] > 0.75
    assert inverse[(1, "presence")] > 0.7
    other = rows["absence score of the other logit"]
    assert other[(0, "presence")] > 1 and abs(other[(0, "presence and absence")]) < 0.5


@pytest.mark.slow
def test_processes_and_checkpoints_change_nothing(study, tmp_path):
    plans = [RunSpec(1, 2, "presence", 100.0), RunSpec(0, 0, "presence and absence", 100.0)]
    there = study.history.drop(columns="seconds")
    for workers in (2, 1):  # the second time everything is read
        found = run_study(plans, digits_task, dense, RECIPE, workers=workers, checkpoints=tmp_path, keep=0)
        for plan in plans:
            mine, theirs = (
                table[
                    (table.carrier == plan.carrier)
                    & (table.seed == plan.seed)
                    & (table.objective == plan.objective)
                ]
                for table in (found.history.drop(columns="seconds"), there)
            )
            assert len(mine) == 4 and np.array_equal(mine.to_numpy(), theirs.to_numpy())
        assert set(found.weights) == {plans[1]}
        assert all(torch.equal(found.weights[plans[1]][name], study.weights[plans[1]][name])
                   for name in found.weights[plans[1]])  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match="workers"):
        run_study(plans, digits_task, dense, RECIPE, workers=0)


@pytest.mark.parametrize("split", ["validation", "test", "train"])
def test_labels_repaired_between_kill_and_resume_are_measured_anew(tmp_path, caplog, split):
    """With checkpoints of the old labels there, the table is that of a study without checkpoints."""
    plans, recipe = [RunSpec(0, 0, "presence", 100.0)], TrainingConfig(2, 0.006, 192)

    def repaired(carrier, seed):
        task = digits_task(carrier, seed)
        part = getattr(task, split)
        return replace(task, **{split: replace(part, labels=part.labels.roll(1))})

    def run(task, folder):
        return run_study(plans, task, dense, recipe, checkpoints=folder).history.drop(columns="seconds")

    before = run(digits_task, tmp_path)
    after, fresh = run(repaired, tmp_path), run(repaired, "")
    pd.testing.assert_frame_equal(after, fresh)
    assert not after.equals(before)
    name = "training" if split == "train" else split
    assert f"the run starts anew: it is of other {name} images and labels (" in caplog.text
    caplog.clear()
    pd.testing.assert_frame_equal(run(repaired, tmp_path), fresh)
    assert not caplog.text


@pytest.mark.slow
def test_examples(study):
    task = digits_task(0, 0)
    objectives = ["none", "presence", "presence and absence"]
    examples, table = example_maps(study, task, dense, 0, objectives)
    assert len(examples) == 9 and len(table) == 18
    assert [example.label for example in examples] == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    for example in examples:  # without biases the map of a logit adds up to it
        torch.testing.assert_close(example.maps.sum(dim=(1, 2)), example.logits, rtol=1e-4, atol=1e-4)
        assert example.outline.any() and example.pixels.shape == (1, 14, 14)
    model = dense(0)
    model.load_state_dict(study.weights[RunSpec(0, 0, "none", 0.0)])
    even = task.test.batch((task.test.labels == 0).nonzero()[:, 0]).pasted
    with torch.no_grad():
        margins = (model(even)[:, 1] - model(even)[:, 0]).sort().values
    margin = examples[0].logits[1] - examples[0].logits[0]
    assert (
        (margins < margin - 1e-4).sum() <= len(margins) / 2 <= (margins <= margin + 1e-4).sum() + 1
    )  # the median one
    shown = examples[0].pixels[0][examples[0].outline]
    assert shown.allclose(torch.tensor(0.4)) and examples[6].pixels[0][examples[6].outline].max() < 0.4
    inside = table.set_index(["case", "network", "class"])["evidence inside the artefact"]
    case = table.case.iloc[0]
    assert inside[(case, "none", "even")] > 0 > inside[(case, "none", "odd")]
    assert (
        table.target == [label == index for label in (0, 1, 0) for _ in range(3) for index in (0, 1)]
    ).all()
    with pytest.raises(InputError, match="not trained"):
        example_maps(study, task, dense, 0, ["RRR"])
    with pytest.raises(InputError, match="keep"):
        example_maps(DebiasStudy(study.history), task, dense, 0, objectives)


@pytest.mark.slow
def test_the_reference_has_no_shortcut_to_learn(study):
    """Trained where a coin decides, measured under the bias: it does not care who shows the artefact."""
    rows = last_epochs(study.history).query("objective == 'no shortcut'")
    assert len(rows) == 6
    assert (rows["biased"] - rows["inverse-biased"]).abs().max() < 0.05 and rows["inverse-biased"].min() > 0.9
