"""Means, intervals and comparisons: by hand, and that an interval covers as often as it says."""

import numpy as np
import pandas as pd
import pytest

from absence_utils import InputError
from absence_utils.benchmark import leaderboard as lb
from absence_utils.benchmark.methods import METHODS
from absence_utils.benchmark.scores import ANSWERS, OUTCOMES

NAN = float("nan")


def outcomes(values, networks, score="AUROC", layer="outputs"):
    """Outcomes of methods {name: [absence]} whose absences lie in networks [absence]."""
    rows = [
        (method, f"plain/{network}", layer, number, "a", score, value)
        for method, said in values.items()
        for number, (network, value) in enumerate(zip(networks, said, strict=True))
    ]
    return pd.DataFrame(rows, columns=OUTCOMES)


def answers(values, networks, twins):
    """What is said of absences, as in `outcomes`, and of the pairs of the twins {method: [network][pair]}."""
    rows = [
        (method, f"plain/{network}", False, "outputs", number, "a", value, "absence")
        for method, said in values.items()
        for number, (network, value) in enumerate(zip(networks, said, strict=True))
    ] + [
        (method, f"plain/{network} twin", True, "outputs", pair, "a", value, "none")
        for method, of in twins.items() for network, said in enumerate(of) for pair, value in enumerate(said)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=ANSWERS)


def test_each_draw_has_as_many_networks_and_as_many_absences_of_each():
    networks = np.array(["a"] * 3 + ["b"] + ["c"] * 2)
    weights = lb._weights(networks, 300, 0)
    for own in ("a", "b", "c"):
        copies = weights[:, networks == own].sum(axis=1) / (networks == own).sum()
        assert np.array_equal(copies, copies.round()), "all absences of a network once for each of its copies"
        assert 0.85 < copies.mean() < 1.15 and copies.max() >= 2
    total = sum(weights[:, networks == own].sum(axis=1) / (networks == own).sum() for own in ("a", "b", "c"))
    assert (total == 3).all()
    assert (weights[:, :3].std(axis=1) > 0).any(), "absences are drawn, too"
    assert np.array_equal(weights, lb._weights(networks, 300, 0))
    assert not np.array_equal(weights, lb._weights(networks, 300, 1))


def test_means_of_draws_by_loops_and_near_the_plain_mean():
    table = outcomes({"m": [0.1, 0.5, NAN, 0.9, 0.3]}, [0, 0, 1, 1, 2])
    wide = table.pivot(index=lb.PAIR, columns="method", values="value")
    drawn = lb.draw_means(wide, 400).m.to_numpy()
    weights = lb._weights(wide.index.get_level_values("network").to_numpy(), 400, 0)
    for draw in (0, 17):
        many = np.repeat(wide.m.to_numpy(), weights[draw].astype(int))
        assert drawn[draw] == pytest.approx(np.nanmean(many))
    assert drawn.mean() == pytest.approx(wide.m.mean(), abs=0.05)


def test_intervals_cover_what_they_say():
    """Networks with a level of their own, absences around it: the true mean is 0."""
    generator, hits = np.random.default_rng(0), 0
    networks = np.repeat(np.arange(20), 2)
    names = np.array([f"plain/{network}" for network in networks])
    index = pd.MultiIndex.from_arrays([names, networks, networks, range(40)], names=lb.PAIR)
    for _ in range(150):
        values = generator.normal(size=20)[networks] + generator.normal(size=40)
        drawn = lb.draw_means(pd.DataFrame({"m": values}, index=index), 300).m
        low, high = drawn.quantile([0.025, 0.975])
        hits += low <= 0 <= high
    assert 0.88 <= hits / 150 <= 0.99


def board(values, networks, twins, **given):
    found = lb.leaderboard(answers(values, networks, twins), outcomes(values, networks), draws=200, **given)
    return found.set_index(["method", "score"])


def test_a_leaderboard_by_hand():
    values = {"b": [0.5, 0.7, NAN, 0.6], "a": [0.9, 1.0, 0.9, 0.8]}
    twins = {"a": [[0.8, 0.1], [0.95, 0.2]], "b": [[0.0, 0.0], [0.0, 0.9]]}
    found = board(values, [0, 0, 1, 1], twins)
    assert found.index.tolist() == [
        ("a", "AUROC"), ("a", "false alarms"), ("b", "AUROC"), ("b", "false alarms"),
    ]  # fmt: skip
    assert found["mean"].tolist()[:3] == pytest.approx([0.9, 0.5, 0.6])
    assert np.isnan(found["mean"]["b", "false alarms"]), "three of four are not 80%"
    assert found.coverage.tolist() == [1, 1, 0.75, 0.75]
    assert set(found.absences) == {4} and set(found.networks) == {2}
    assert found.low["a", "AUROC"] < 0.9 < found.high["a", "AUROC"]
    assert found.low["a", "false alarms"] < 0.5 <= found.high["a", "false alarms"]


def test_one_network_has_no_interval():
    found = board({"a": [0.5, 0.7]}, [0, 0], {"a": [[0.1, 0.2]]})
    assert found[["low", "high"]].isna().all(axis=None) and found["mean"]["a", "AUROC"] == 0.6


def test_a_method_that_says_nothing_comes_last():
    values = {"silent": [NAN, NAN], "a": [0.1, 0.2]}
    found = board(values, [0, 1], {"silent": [[NAN], [NAN]], "a": [[0.0], [0.0]]})
    assert found.index.get_level_values("method").tolist() == ["a", "a", "silent", "silent"]
    assert found.coverage["silent", "AUROC"] == 0 and np.isnan(found["mean"]["silent", "AUROC"])


def test_false_alarms_are_drawn_with_the_twins_of_the_networks_drawn():
    """All absences at 1; the twin of network 0 is called everywhere, that of network 1 nowhere."""
    values, networks = {"a": [1.0, 1.0, 1.0]}, [0, 0, 1]
    found, drawn, said = lb.draw_alarms(answers(values, networks, {"a": [[2.0, 2.0], [0.0, 0.0]]}), 300)
    assert found.a == 0.5 and said.a.all()
    assert set(drawn.a) == {0.0, 0.5, 1.0} and drawn.a.mean() == pytest.approx(0.5, abs=0.1)


def test_hidden_layers_have_scores_of_their_own():
    own = answers({"a": [1.0]}, [0], {"a": [[0.0]]})
    extra = own.assign(concept="b", truth="none", value=0.0)
    both = pd.concat([own, extra, *(t.assign(layer="hidden, signed") for t in (own, extra))])
    findings = outcomes({"a": [0.25]}, [0], "pointing game")
    found = lb.all_outcomes(both, findings).set_index("score").value
    assert found.to_dict() == {
        "AUROC": 1, "name, reciprocal rank": 1, "name, recall at 1": 1, "name, recall at 5": 1,
        "AUROC, hidden, signed": 1, "pointing game": 0.25,
    }  # fmt: skip


def test_of_each_group_the_best_by_auroc():
    networks, groups = [0, 1], {"two": ["a", "b", "not run"], "none": ["not run"], "one": ["c"]}
    values = {"a": [0.2, NAN], "b": [0.4, 0.6], "c": [NAN, 1.0]}
    twins = {name: [[0.5], [0.0]] for name in values}
    table = lb.leaderboard(answers(values, networks, twins), outcomes(values, networks), draws=100)
    found = lb.best_of_groups(table, groups)
    assert found.drop_duplicates("group").set_index("group").method.to_dict() == {"two": "b", "one": "c"}
    assert found.score.tolist() == ["AUROC", "false alarms"] * 2
    assert found["mean"].tolist()[0] == pytest.approx(0.5)
    assert found["mean"].tolist()[1] == pytest.approx(0.5), "b finds 80% of the absences at 0.4: one of two"
    assert not set(groups) & set(METHODS)


def test_a_constant_difference_is_certain():
    networks = np.repeat(np.arange(8), 2)
    base = np.random.default_rng(0).random(16)
    table = outcomes({"a": base + 0.1, "b": base, "c": base[::-1]}, networks)
    found = lb.compare(table, against="a", draws=500).set_index("method")
    assert found.loc["b", ["difference", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert found.p["b"] == pytest.approx(2 / 501) and found.q["b"] == pytest.approx(4 / 501)
    assert found.low["c"] < found.difference["c"] < found.high["c"] and found.p["c"] > 0.05
    assert found.index.tolist() == found.difference.sort_values().index.tolist()
    turned = lb.compare(table, against="b", draws=500).set_index("method")
    assert turned.difference["a"] == pytest.approx(-0.1) and turned.p["a"] == pytest.approx(2 / 501)


def test_comparisons_are_over_the_absences_of_which_both_say_something():
    table = outcomes({"a": [0.5, 0.9, 0.1], "b": [0.4, NAN, NAN], "silent": [NAN] * 3}, [0, 1, 2])
    found = lb.compare(table, against="a", draws=400).set_index("method")
    assert found.index.tolist() == ["b"] and found.difference["b"] == pytest.approx(0.1)
    assert found.absences["b"] == 1
    drawn = lb.draw_means(pd.DataFrame({"b": [0.1, NAN, NAN]}, index=pd.MultiIndex.from_tuples(
        [(f"plain/{i}", "outputs", i, "a") for i in range(3)], names=lb.PAIR)), 400)  # fmt: skip
    assert drawn.b.isna().any(), "some draws have none of them, and are no evidence"
    assert found.p["b"] == pytest.approx(2 / (drawn.b.notna().sum() + 1))


def test_the_best_that_mostly_speaks_is_compared_if_none_is_named():
    table = outcomes({"a": [0.5, 0.6, 0.7], "b": [NAN, NAN, 1.0], "c": [0.1, 0.2, 0.3]}, [0, 1, 2])
    assert lb.compare(table, draws=50).attrs["against"] == "a"


def test_an_unknown_method_or_score_is_refused():
    table = outcomes({"a": [0.5], "b": [0.1]}, [0])
    with pytest.raises(InputError, match="against"):
        lb.compare(table, against="z")
    with pytest.raises(InputError, match="score"):
        lb.compare(table, score="z")


def test_a_method_compared_with_none_gives_no_row():
    assert len(lb.compare(outcomes({"a": [0.5, 0.1]}, [0, 1]))) == 0


def test_order_stability_of_a_clear_order_and_of_noise():
    generator = np.random.default_rng(0)
    clear = {str(rank): rank + 0.01 * generator.random(40) for rank in range(8)}
    found = lb.order_stability(outcomes(clear, np.repeat(np.arange(20), 2)), draws=40)
    assert found.tolist() == pytest.approx([1.0, 1.0])
    noise = {str(rank): generator.random(40) for rank in range(12)}
    found = lb.order_stability(outcomes(noise, np.repeat(np.arange(20), 2)), draws=100)
    assert found["half against the other half"] < 0.3 < found["half against all"]


def test_mostly_silent_methods_are_left_out_of_the_order():
    values = {"a": [0.9] * 4, "b": [0.5] * 4, "c": [0.7, NAN, NAN, NAN]}
    assert lb.order_stability(outcomes(values, range(4)), draws=5).tolist() == pytest.approx([1.0, 1.0])


def test_worlds_by_hand():
    table = outcomes({"a": [0.2, 0.4, 0.9]}, [0, 1, 2])
    table.loc[2, "network"] = "natural together/0"
    found = lb.by_world(table)
    assert found.loc["a"].to_dict() == {"plain": pytest.approx(0.3), "natural together": 0.9}


def test_the_conclusion_says_each_group_with_its_false_alarms_or_its_silence():
    rows = [("one", 0.974, 1.0, 0.02), ("two", 1.0, 0.36, NAN)]
    best = pd.DataFrame(
        [
            {"method": group, "score": score, "mean": value, "coverage": coverage}
            for group, first, coverage, alarms in rows
            for score, value in (("name, recall at 1", first), ("false alarms", alarms))
        ]
    )
    maps = pd.DataFrame({"method": ["x_y, all", "z, all"], "score": "mask precision", "mean": [0.5, 0.6]})
    said = lb.conclusion(best, maps)
    assert "one, 97% (2% false alarms); two, 100% of the 36% that it says anything of." in said
    assert said.endswith("most: z, x y.")


def test_the_shift_is_that_of_the_scores_both_boards_have():
    one = pd.DataFrame({"method": ["a", "b", "c"], "score": "AUROC", "mean": [0.5, 0.9, 0.1]})
    other = pd.DataFrame({"method": ["b", "a", "d"], "score": "AUROC", "mean": [0.8, 0.8, 1.0]})
    assert lb.median_shift(one, other) == pytest.approx(0.2), "of 0.3 and 0.1"
