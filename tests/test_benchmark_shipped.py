"""The networks and tables of the benchmark that ship: whole, as accurate as said, and what is claimed of them."""

import json

import numpy as np
import pandas as pd
import pytest

from absence_utils.benchmark import rule_networks as rn
from absence_utils.benchmark import submission
from absence_utils.benchmark.leaderboard import order_stability
from absence_utils.benchmark.methods import GROUPS, METHODS
from absence_utils.benchmark.running import BenchmarkConfig, run_network
from absence_utils.benchmark.scores import OUTPUTS, PAIR
from absence_utils.benchmark.truth import output_truth, pair_effects
from absence_utils.paths import DATA, ROOT

EVERY = [*rn.network_names(), *rn.network_names(twins=True), *rn.detector_names()]


@pytest.fixture(scope="module")
def full():
    return submission.shipped_tables()


@pytest.fixture(scope="module")
def accuracy():
    entries = json.loads((DATA / "manifest.json").read_text())["files"]
    found = {}
    for entry in entries:
        if entry["path"].startswith("data/rule_networks/"):
            found |= entry["facts"]["accuracy"]
    return found


def test_every_network_twin_and_detector_ships_and_says_how_right_it_is(accuracy):
    assert set(accuracy) == set(EVERY)
    for name in EVERY:
        assert list(accuracy[name]) == rn.output_names(name)
    values = pd.DataFrame([(name, *item) for name in EVERY for item in accuracy[name].items()])[2]
    assert values.median() > 0.95 and values.quantile(0.05) > 0.8
    name = "together/0"
    again = rn.output_accuracy(rn.load_rule_network(name), name, n=400)
    assert np.abs(again.numpy() - list(accuracy[name].values())).max() < 0.05


def test_weights_are_small(accuracy):
    sizes = [path.stat().st_size for path in rn.FOLDER.glob("*.safetensors")]
    assert len(sizes) == len(rn.WORLDS) and max(sizes) < 4e6
    assert (
        sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file() and "parts" not in path.parts)
        < 20e6
    )


def test_positives_are_enough_and_every_method_was_asked_for_all_of_them(full):
    board, outcomes = full["methods"], submission.shipped_outcomes()
    assert set(board.method) == set(METHODS)
    area = board[board.score == "AUROC"]
    assert (area.absences >= 60).all() and (area.networks >= 38).all(), (
        "those with an absence that was learnt"
    )
    assert area.low.notna().sum() == area["mean"].notna().sum()
    asked = outcomes[(outcomes.score == "AUROC") & (outcomes.method == "insertion, absence score")][PAIR]
    named = [
        (name, OUTPUTS, unit, rn.world_of(name).names[concept])
        for name in rn.NAMES
        for unit, concept in np.argwhere(output_truth(name) == "absence").tolist()
    ]
    assert sorted(asked.itertuples(index=False, name=None)) == sorted(named)


def test_the_benchmark_separates(full):
    """Where concepts come together the difference by label fails and something does not; the order is no accident."""
    together = full["correlations"].set_index("method")["0.6"]
    assert together["difference by label"] < 0.8 and together.max() > 0.9
    assert together["regression on labels"] > together["difference by label"]
    stable = order_stability(submission.shipped_outcomes())
    assert stable["half against all"] > 0.9
    area = full["methods"][full["methods"].score == "AUROC"].set_index("method")
    assert area.low["insertion, absence score"] > area.high["difference by label"]
    assert area.low["random_map, all"] < 0.5 < area.high["random_map, all"]
    assert set(full["groups"].group) == set(GROUPS)


@pytest.mark.slow
def test_running_a_shipped_network_again_gives_the_shipped_outcomes(full):
    name, chosen = "together/0", ["insertion, absence score", "difference by label", "input_x_gradient, all"]
    methods = {label: METHODS[label] for label in chosen}
    answers, _ = run_network(name, BenchmarkConfig(networks=40, hidden=0), methods)
    own = submission.all_outcomes(answers)
    shipped = submission.shipped_outcomes()
    both = own.merge(shipped, on=["method", "score", *PAIR], suffixes=("", "_shipped"))
    assert len(both) == len(own) > 0
    np.testing.assert_allclose(both.value, both.value_shipped, atol=0.02)


def test_trained_networks_encode_what_was_planted(full):
    """By exact pairs: every planted absence surely lowers its output, and what no rule asks for does little."""
    truth = full["truth"]
    absences, none = (truth[truth.truth == kind] for kind in ("absence", "none"))
    assert len(absences) == full["groups"].absences.iloc[0] and absences.high.max() < -0.1
    assert none.effect.abs().quantile(0.95) < 0.3 < absences.effect.abs().quantile(0.05)


@pytest.mark.slow
def test_the_measured_truth_again(full):
    name = "together/0"
    shipped = full["truth"][full["truth"].network == name].set_index(["unit", "concept"]).effect
    effects = pair_effects(rn.load_rule_network(name), [None], rn.world_of(name), 30)[None]
    for concept, effect in effects.items():
        for unit, mean in enumerate(effect.mean.tolist()):
            assert mean == pytest.approx(shipped[unit, concept], abs=0.3)


def test_the_page_says_what_the_tables_say(full):
    page, how = (
        " ".join((ROOT / "docs" / name).read_text().split()) for name in ("beyond.md", "benchmark.md")
    )
    one = full["groups"].iloc[0]
    assert f"{one.absences} absences on {one.networks} networks" in how and one.networks == len(rn.NAMES) - 1
    board = full["methods"].pivot(index="method", columns="score", values="mean")
    together = full["correlations"].set_index("method")
    best = full["methods"].set_index(["method", "score"])

    def area(method):
        return f"{board.AUROC[method]:.2f}"

    def both(method):
        return f"{area(method)}, {board['false alarms'][method]:.0%}"

    silent = 1 - best.coverage["integrated_gradients, target", "AUROC"]
    for sentence in (
        f"is right (AUROC {together['0.0']['difference by label']:.2f})",
        f"it falls to {together['0.6']['difference by label']:.2f}:",
        f"stays at {together['0.6']['regression on labels']:.2f}, and so does inserting",
        f"Over {full['groups'].absences.iloc[0]} absences, inserting the concept (AUROC "
        f"{area('insertion, absence score')})",
        f"Lowest patches find them too ({both('lowest patches')} false alarms)",
        f"as a detector of concepts reads it ({both('minimisation')})",
        f"TCAV ({both('tcav')})",
        f"guided backpropagation ({both('guided_backprop, all')})",
        f"that knows nothing of the unit has {area('edge_detector, all')}",
        f"say nothing of {silent:.0%}",
        f"rank correlation {order_stability(submission.shipped_outcomes())['half against all']:.2f}",
    ):
        assert sentence in page, sentence
    assert together["0.6"]["insertion, absence score"].round(2) == together["0.6"][
        "regression on labels"
    ].round(2)
    for name in ("gradient_shap", "deeplift", "integrated_gradients"):
        assert area(f"{name}, all") == "0.99" and board["false alarms"][f"{name}, all"] < 0.005
    assert board["false alarms"]["insertion, absence score"] < 0.005
