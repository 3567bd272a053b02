"""Figures of the debiasing study: the numbers drawn, not the picture."""

import numpy as np
import pandas as pd
import pytest
import torch

from absence_utils.debias.examples import Example
from absence_utils.debias.objectives import PENALISED
from absence_utils.plots import debias as plots

SIDES = {0: "artefact on even", 1: "artefact on odd"}
NAMES = ("none", "presence", "presence and absence")


def accuracies():
    rows = []
    for rule in ("biased", "patch_free"):
        for carrier in SIDES:
            for number, objective in enumerate(NAMES):
                for place, name in enumerate(("biased", "inverse-biased", "worst group")):
                    value = 0.1 * number + 0.2 * place + 0.01 * carrier
                    rows.append((rule, carrier, objective, name, value, value - 0.05, value + 0.08))
    return pd.DataFrame(rows, columns=["rule", "carrier", "objective", "set", "accuracy", "low", "high"])


def drawn(container):
    """Points and ends of the error bars of one errorbar container: x, low, high."""
    points = container.lines[0].get_xdata()
    (bars,) = container.lines[2]
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    return points, ends[:, 0], ends[:, 1]


def test_inverse_biased_accuracies_are_drawn_in_percent_with_their_intervals():
    table = accuracies()
    table.loc[(table.rule == "patch_free") & (table.objective == "presence"), "accuracy"] += 0.05
    figure = plots.accuracy_by_objective(table, SIDES, {"biased": "honest", "patch_free": "published"})
    assert [ax.get_title() for ax in figure.axes] == list(SIDES.values())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(NAMES)
    for carrier, ax in enumerate(figure.axes):
        by_rule = [ax.containers[:3], ax.containers[3:]]
        for number, containers in enumerate(by_rule):
            points, low, high = (np.concatenate(each) for each in zip(*map(drawn, containers), strict=True))
            expected = 100 * (0.1 * np.arange(3) + 0.2 + 0.01 * carrier)
            np.testing.assert_allclose(points, expected + [0, 5 * number, 0])
            np.testing.assert_allclose(low[[0, 2]], expected[[0, 2]] - 5)
            np.testing.assert_allclose(high, expected + 8)
            filled = {each.lines[0].get_markerfacecolor() == "white" for each in containers}
            assert filled == {bool(number)}
    title = "Inverse-biased accuracy (artefact on even): presence-only 30–35%, presence and absence 40%"
    assert figure.get_suptitle() == title
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"honest", "published"}


def test_an_unknown_interval_is_a_point():
    table = accuracies().assign(low=np.nan, high=np.nan)
    figure = plots.accuracy_by_objective(table, {0: "side"}, {"biased": "honest"})
    points, low, high = drawn(figure.axes[0].containers[2])
    np.testing.assert_allclose(low, points)
    np.testing.assert_allclose(high, points)


def test_strengths_are_lines_and_the_rest_are_levels():
    rows = [
        (carrier, objective, strength, name, value, value - 0.1, value + 0.1)
        for carrier in SIDES
        for objective, strength, value in (
            ("none", 0.0, 0.05), ("presence", 10.0, 0.5), ("presence", 1.0, 0.2), ("RRR", 1.0, 0.9), ("RRR", 10.0, 0.7),
            ("presence and absence", 1.0, 0.6), ("presence and absence", 10.0, 0.8), ("augmentation", 0.0, 0.65),
        )
        for name in ("inverse-biased", "biased")
    ]  # fmt: skip
    columns = ["carrier", "objective", "strength", "set", "accuracy", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table.set == "biased", "accuracy"] = 1.0  # not to be drawn
    figure = plots.accuracy_by_strength(table, SIDES, PENALISED)
    ax = figure.axes[0]
    lines = {container.get_label(): container.lines[0] for container in ax.containers}
    np.testing.assert_allclose(
        lines["presence"].get_ydata().astype(float), [20, 50]
    )  # in order of the strength
    np.testing.assert_allclose(lines["RRR"].get_ydata().astype(float), [90, 70])
    ratio = lines["presence"].get_xdata().astype(float) / [1, 10]
    assert ratio == pytest.approx([ratio[0]] * 2) and 0.8 < ratio[0] < 1.25
    (level,) = [line for line in ax.lines if line.get_label() == "none"]
    assert set(level.get_ydata()) == {5.0} and ax.get_xscale() == "log"
    assert "augmentation" not in {*lines, *(line.get_label() for line in ax.lines)}, "it has no strength"
    assert (
        figure.get_suptitle()
        == "Penalty of strength 1: 20% right with presence-only, 60% with presence and absence"
    )
    names = {text.get_text(): text.get_position()[1] for text in figure.axes[1].texts}
    assert list(names) == ["none", "presence", "RRR", "presence and absence"], "from the bottom to the top"
    assert names["presence"] == pytest.approx(50) and min(np.diff(list(names.values()))) >= 7.5
    colours = {text.get_text(): text.get_color() for text in figure.axes[1].texts}
    assert len({colours[name] for name in NAMES}) == 3 and colours["RRR"] not in plots.COLOURS.values()


def test_losses_stand_side_by_side():
    rows = [
        (loss, objective, strength, measure, sign * (strength + shift), sign * strength - 1, sign * strength + 2)
        for loss, shift in (("cross_entropy", 0.0), ("bce", 0.25))
        for objective, strengths in (("none", [0.0]), ("presence", [0.5, 0.1]), ("presence and absence", [0.1, 0.5]))
        for strength in strengths
        for measure, sign in (("inverse-biased", 1), ("absence score, carrier", -1), ("absence score, other", 1))
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["loss", "objective", "strength", "measure", "value", "low", "high"])
    figure = plots.loss_comparison(table)
    for number, (top, bottom) in enumerate(np.array(figure.axes).reshape(2, 2).T):
        curves = {
            each.get_label(): each.lines[0].get_ydata() for each in (*top.containers, *bottom.containers)
        }
        shift = 0.25 * number
        assert set(curves) == {"presence", "presence and absence", "target logit", "non-target logit"}
        np.testing.assert_allclose(curves["presence"], 100 * np.array([0.1 + shift, 0.5 + shift]))
        np.testing.assert_allclose(curves["target logit"], [-0.1 - shift, -0.5 - shift])
        np.testing.assert_allclose(curves["non-target logit"], [0.1 + shift, 0.5 + shift])
        assert ("binary" in top.get_title()) == bool(number) and bottom.get_xscale() == "log"
    assert figure.get_suptitle().endswith("in the non-target logit: at least 0.10 and 0.35 sd (left, right)")
    alone = plots.loss_comparison(table[table.loss == "bce"])
    assert len(alone.axes) == 2


def test_evidence_keeps_its_sign_and_is_the_mean_over_seeds():
    rows = [
        (carrier, objective, 10.0 * (objective != "none"), seed, epoch, 2.0 * epoch + seed, -3.0 * epoch - seed)
        for carrier in SIDES for objective in NAMES for seed in (0, 1) for epoch in (1, 2)
    ]  # fmt: skip
    columns = ["carrier", "objective", "strength", "seed", "epoch", "evidence for the carrier's logit",
               "evidence for the other logit"]  # fmt: skip
    figure = plots.evidence_over_training(pd.DataFrame(rows, columns=columns), SIDES)
    assert len(figure.axes) == 6
    for ax in figure.axes:
        target, other = ax.lines[:2]
        np.testing.assert_allclose(target.get_ydata(), [2.5, 4.5])
        np.testing.assert_allclose(other.get_ydata(), [-3.5, -6.5])
        band = ax.collections[1].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (-7.0, -3.0)
    assert figure.get_suptitle().endswith("4.50 sd target, −6.50 sd non-target logit")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "none" and titles[1] == "presence\nstrength 10" and titles[3:] == ["", "", ""]


def test_scores_of_both_logits_keep_their_sign():
    rows = [
        (carrier, objective, logit, sign * (3 - number), sign * (3 - number) - 0.5, sign * (3 - number) + 0.5)
        for carrier in SIDES
        for number, objective in enumerate(NAMES)
        for logit, sign in (("carrier", -1), ("other", 1))
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["carrier", "objective", "logit", "score", "low", "high"])
    figure = plots.artefact_scores(table, SIDES)
    assert figure.get_suptitle().endswith("2.00 sd after presence-only, 1.00 sd after both")
    target, other = figure.axes[1].containers
    np.testing.assert_allclose(drawn(target)[0], [-3, -2, -1])
    np.testing.assert_allclose(drawn(other)[0], [3, 2, 1])
    np.testing.assert_allclose(drawn(other)[1], [2.5, 1.5, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [0.0, 0.05])
def test_examples_show_the_target_map_first_and_outline_the_artefact(smooth):
    examples = []
    for case, label in (("even, artefact", 0), ("odd, artefact", 1)):
        for network in ("none", "presence 10"):
            maps = torch.stack([torch.full((8, 8), 2.0), torch.full((8, 8), -1.0)])
            outline = torch.zeros(8, 8, dtype=torch.bool)
            outline[:2] = True
            logits = torch.tensor([2.0, -1.0])
            examples.append(Example(case, network, torch.rand(1, 8, 8), maps, outline, logits, label))
    figure = plots.shortcut_examples(examples, ("even", "odd"), smooth)
    axes = np.array(figure.axes).reshape(2, 5)
    values = [[float(ax.images[0].get_array().mean()) for ax in row[1:]] for row in axes]
    np.testing.assert_allclose(values, [[2, -1, 2, -1], [-1, 2, -1, 2]], atol=1e-6)
    titles = [axes[0, column].get_title(loc="left") for column in (1, 4)]
    assert titles == ["none\ntarget", "\nnon-target"]
    assert [ax.get_xlabel() for ax in axes[:, 2]] == ["odd: −1.0", "even: +2.0\n(wrong)"]
    assert figure.get_suptitle() == "Of 2 typical images right: 1 (none), 1 (presence 10)"
    assert axes[0, 1].get_xlabel() == "even: +2.0" and len(axes[0, 1].collections) == 1
    assert axes[1, 0].get_ylabel() == "odd, artefact"
