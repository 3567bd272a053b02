"""Figures of the benchmark: the numbers drawn, not the picture; and what is put into them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils import InputError
from absence_utils.benchmark import gallery as shown
from absence_utils.benchmark.faithfulness import Faithfulness
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, RULES
from absence_utils.plots import benchmark as plots
from absence_utils.plots.base import signed_number


@pytest.fixture(scope="module")
def subject():
    return shown.scene_task(256, 2)


MEMBERS = {"one": ["a", "b"], "not run": ["z"], "two on three": ["c"]}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def tables():
    """The board of all methods, and the best of each group, in another order than that of the rows."""
    single = [
        (name, score, value + shift, value + shift - 0.1, value + shift + 0.05, coverage)
        for score, shift in zip(plots.PANELS, (0.0, 0.3), strict=True)
        for name, value, coverage in (("c", 0.6, 0.3), ("b", 0.1, 1.0), ("a", 0.3, 1.0))
    ]
    board = pd.DataFrame(single, columns=["method", "score", "mean", "low", "high", "coverage"])
    best = [
        board[board.method == name].assign(group=group)
        for group, name in (("two on three", "c"), ("one", "a"))
    ]
    return board, pd.concat(best, ignore_index=True)


def test_groups_draw_the_best_its_interval_and_the_others_in_the_order_of_the_members():
    board, best = tables()
    small = board.assign(mean=board["mean"] + 0.02, networks=1)
    figure = plots.groups(board, best, MEMBERS, chance=1 / 7, run=small)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["one\n(a)", "two on three\n(c)"], "the group that was not run has no row"
    # of all absences: c says something of three in ten, which says nothing of its false alarms
    for ax, shift, share in zip(figure.axes, (0.0, 0.3), (0.3, 1.0), strict=True):
        (points,) = ax.containers
        np.testing.assert_allclose(points.lines[0].get_xdata(), [0.3 + shift, share * (0.6 + shift)])
        np.testing.assert_allclose(points.lines[0].get_ydata(), [0, 1])
        (bars,) = points.lines[2]
        np.testing.assert_allclose(
            bars.get_segments()[1][:, 0], [share * (0.5 + shift), share * (0.65 + shift)]
        )
        dots = [line for line in ax.lines if line.get_color() == plots.METHOD]
        np.testing.assert_allclose(dots[0].get_xdata(), [0.1 + shift])
        assert len(dots[1].get_xdata()) == 0
        (small,) = [line for line in ax.lines if line.get_color() == plots.ORANGE]
        np.testing.assert_allclose(small.get_xdata(), [0.32 + shift, share * (0.62 + shift)])
    (chance,) = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert chance.get_xdata() == [1 / 7, 1 / 7] and not [
        line for line in figure.axes[1].lines if line.get_linestyle() == ":"
    ]
    said = [[text.get_text() for text in ax.texts if text.get_weight() == "bold"] for ax in figure.axes]
    assert said == [["30%", "18%"], ["60%", "90%"]], "the number of each row, at its end"
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"this run (1 network)", "chance"} < labels


def test_groups_say_of_how_many_absences_they_are_silent():
    figure = plots.groups(*tables(), MEMBERS)
    (said,) = [text for text in figure.axes[0].texts if text.get_weight() != "bold"]
    assert said.get_text() == "says nothing of 70%" and said.get_position()[1] > 0.5, "beside the second row"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == ["best of the group, 95% interval", "other methods of the group"]


def test_the_claim_counts_the_groups_that_say_something_of_nearly_all():
    rows = pd.DataFrame({"mean": [1.0, 0.972, 0.968, 0.4], "coverage": [0.3, 1, 0.96, 1]}, index=[*"abcd"])
    claim = plots._claim_of_groups(rows).split("\n")
    assert claim[0].startswith("In 2 of 4 groups") and "97% of absences" in claim[0]
    assert claim[1] == "a says nothing of 70% of them"
    assert len(plots._claim_of_groups(rows.iloc[1:]).split("\n")) == 1


def test_faithfulness_curves_are_means_over_images():
    def result(shift):
        release = torch.tensor([[0.0, 1.0], [2.0, 3.0]]) + shift
        return Faithfulness((0.01, 0.1), release, release + 10)

    figure = plots.faithfulness_curves({"oracle": {"background": result(0), "inpaint": result(5)}})
    drawn = [ax.containers[0].lines[0].get_ydata().astype(float).tolist() for ax in figure.axes]
    assert drawn == [[1, 2], [6, 7], [11, 12]]
    score = result(0).score.mean()
    assert f"oracle +{score:.2f}" in figure.get_suptitle()
    assert plots._decimals(-0.004) == "0" and plots._decimals(-0.3) == "−0.30"


def test_bookkeeping_adds_up_in_the_picture():
    table = shown.compiled_diagnoses()
    figure = plots.diagnosis_waterfall(table)
    baseline, presence, absence, response = figure.axes[0].containers
    for bars, before in (
        (presence, baseline),
        (absence, presence),
    ):  # each step starts where the one before ends
        ends = [bar.get_x() + bar.get_width() for bar in before]
        np.testing.assert_allclose([bar.get_x() for bar in bars], ends)
    np.testing.assert_allclose([bar.get_width() for bar in absence], -table.absence)
    ends = [bar.get_x() + bar.get_width() for bar in absence]
    np.testing.assert_allclose(ends, table.response, atol=0.15)  # up to the gap of the integration
    np.testing.assert_allclose([bar.get_width() for bar in response], table.response)
    assert (figure.axes[0].lines[0].get_xdata() == table.response).all(), "a response of 0 is seen, too"
    texts = [text.get_text().replace("\n", " ") for text in figure.axes[1].texts]
    after = [said or "–" for said in table.after_showing]
    assert texts == ["from the account alone", *table.verdict, "after showing concepts", *after]
    assert (
        "of 3 responses driven by the baseline\n2 rest on an absence, of 3 held down 2"
        in figure.get_suptitle()
    )


def test_both_verdicts_of_the_shown_cases():
    table = shown.compiled_diagnoses().set_index("case")
    said = dict(zip(table.index, zip(table.verdict, table.after_showing, strict=True), strict=True))
    assert said == {
        "A: shows A": ("presence-driven", ""),
        "not B: shows nothing": ("baseline-driven", "absence-driven"),
        "not B: shows B": ("held down", "suppressed"),
        "A and not B: shows A": ("presence-driven", ""),
        "A and not B: shows A + B": ("outweighed", "vetoed"),
        "A xor B: shows A + B": ("depends on the baseline", ""),
        "count below k: shows A": ("baseline-driven", "absence-driven"),
        "A left of B: shows A right + B left": ("held down", "suppressed"),
        "only the bias: shows B": ("baseline-driven", "bias-driven"),
        "superposed decoy: shows B": ("held down", "interference"),
    }


def test_the_twin_has_the_same_scenes_and_its_own_rules(subject):
    twin = shown.scene_task(256, 2, kind="twin")
    assert torch.equal(twin.images, subject.images) and not torch.equal(twin.target, subject.target)
    assert ((twin.response > 0) == twin.target).double().mean() > 0.97
    assert ((subject.response > 0) == subject.target).double().mean() > 0.97
    with pytest.raises(InputError, match="kind"):
        shown.scene_task(8, kind="rule")


@pytest.mark.slow
def test_gallery_shows_what_it_says(subject):
    rows = shown.gallery_rows(subject)
    assert [row["rule"] for row in rows] == list(RULES)
    scenes = []
    for index, row in enumerate(rows):
        rule = list(RULES.values())[index]
        assert bool(row["mask"].any()) is bool(
            rule.absent
        )  # the concept is there where its absence is planted
        scene = int((subject.scenes.pixels == row["image"]).flatten(1).all(dim=1).nonzero()[0, 0])
        target = int((subject.scenes.pixels == row["target_image"]).flatten(1).all(dim=1).nonzero()[0, 0])
        assert not rule(subject.scenes.presence[scene]) and rule(subject.scenes.presence[target])
        scenes += [scene, target]
        numbers = row["numbers"]
        logits = subject.unit(index).response(subject.images[[target, scene]]).tolist()
        np.testing.assert_allclose([numbers["target_response"], numbers["response"]], logits, atol=1e-4)
        np.testing.assert_allclose(numbers["target_evidence"], float(row["target_map"].sum()), rtol=1e-5)
        assert row["patch"].shape == (3, 24, 24) and row["maximum"].shape == (3, 64, 64)
        if rule.absent:  # what suppresses lies in the mask
            evidence = float(row["non_target_map"][row["mask"]].sum())
            assert evidence < 0 and numbers["on_concept"] == pytest.approx(evidence)
            assert numbers["patch_shows"] > 0.5, "the lowest patch shows what must be absent"
        assert np.isnan(numbers["on_concept"]) is not bool(rule.absent)
        unit = subject.unit(index)
        ends = torch.stack([row["minimum"], row["maximum"]])
        low, high = unit.response(NORMALISATION.apply(ends)).tolist()
        assert low < high
        assert [low, high] == pytest.approx(
            [numbers["minimum_response"], numbers["maximum_response"]], rel=0.01
        )
    assert len(set(scenes)) == 2 * len(RULES), "no row shows the images of another"
    figure, table = plots.gallery(rows)
    assert len(figure.axes) == 7 * len(RULES) and list(table.rule) == list(RULES)
    under = [ax.get_xlabel() for ax in figure.axes]
    assert under[3].startswith("cross −") and under[2 * 7 + 3] == "none planted"
    assert under[0] == signed_number(table.target_response[0])
    assert figure.get_suptitle().startswith("In 3 of 3 rules")


@pytest.mark.slow
def test_faithfulness_of_scene_maps_keeps_the_order(subject):
    results = shown.scene_faithfulness(subject, "disc and not cross", 12, shares=(0.1, 0.2))
    table = shown.faithfulness_table(results).set_index(["map", "fill"])
    for fill in ("background", "inpaint"):
        score = table.score.xs(fill, level="fill")
        assert score["oracle"] > score["integrated gradients"] > score["random"]
        assert table.low[("integrated gradients", fill)] > table.high[("random", fill)]
        assert score["absolute values"] == 0
    assert (table.images == 12).all()


def test_the_suppressed_scenes_are_those_where_the_concept_decides(subject):
    unit, inputs, masks, targets, behind = shown._suppressed(subject, "disc and not cross", 8)
    assert masks[:, CONCEPTS.index("cross")].flatten(1).any(1).all()
    assert masks[:, CONCEPTS.index("disc")].flatten(1).any(1).all()
    outside = ~masks.any(dim=1)
    assert torch.equal(inputs[:, 0][outside], behind[:, 0][outside]) and not torch.equal(inputs, behind)
    assert unit.response(targets).min() > 0 > unit.response(inputs).max()


def test_descending_removal_prefers_the_map_that_is_silent_about_the_absence(subject):
    found = shown.descending_example(subject, "disc and not cross", 12)
    assert found["disc only"] > found["oracle"] + 0.1 and abs(found["oracle"] - found["random"]) < 0.5
