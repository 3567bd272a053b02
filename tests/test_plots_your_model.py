"""What the panels of a card draw are the numbers they are given, with their sign."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from absence_utils.attribution.columns import matrix_columns
from absence_utils.insertion.decisions import DECISIONS
from absence_utils.plots import your_model as plots
from absence_utils.plots.base import ABSENCE, PRESENCE, companion_style
from absence_utils.your_model.cards import CardOptions, collect_cards
from absence_utils.your_model.offer import Naming


@pytest.fixture(scope="module")
def card(layer_study):
    study, dataset = layer_study
    effort = CardOptions(shown=3, steps=2, facets=1, maps=2, evidence_images=40)
    (found,) = collect_cards(study, dataset, matrix_columns(dataset), [1], effort, {"network": "scenes"})
    return found


@pytest.fixture
def ax():
    return plt.subplots()[1]


def colour(artist):
    return plt.matplotlib.colors.to_hex(artist.get_facecolor())


@pytest.mark.parametrize(
    "responses", [np.linspace(-3, 5, 97), np.linspace(2, 3, 20), -np.ones(5), np.zeros(3)]
)
def test_histogram_counts_every_image_and_divides_at_zero(ax, responses):
    plots.response_histogram(ax, responses, blank=1.5)
    bars = [bar for bar in ax.patches if bar.get_height()]
    assert sum(bar.get_height() for bar in bars) == len(responses)
    for bar in bars:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        assert right <= 1e-9 or left >= -1e-9  # no bar hides the zero
        assert colour(bar) == (ABSENCE if right <= 1e-9 else PRESENCE)
    assert ax.lines[0].get_xdata()[0] == 0
    assert ax.lines[1].get_xdata()[0] == np.median(responses) and ax.lines[2].get_xdata()[0] == 1.5
    assert ax.get_title("right").startswith(f"{(responses < 0).mean():.0%} of {len(responses)}")


def hidden(card):
    """The card with a second reading, as a hidden unit has it."""
    both = card.effects.assign(reading="passed on", value=card.effects["value"] / 10)
    rows = [*card.decisions.to_dict("records")]
    rows.append(rows[0] | {"reading": "passed on", "delta": 0.15})
    decided = pd.DataFrame(rows).set_index("reading", drop=False)
    return replace(card, effects=pd.concat([card.effects, both], ignore_index=True), decisions=decided)


def test_effects_stand_where_they_are_beside_the_size_that_counts(ax, card):
    card = replace(card, context=card.context.assign(context=0.5, low=0.25, high=0.75))
    shown = hidden(card)
    plots.effect_intervals(ax, shown)
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == shown.effects["value"].tolist()
    intervals = [
        line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    ]
    assert np.allclose(intervals[: len(shown.effects)], shown.effects[["low", "high"]])
    (context,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert context.get_xdata()[0] == card.context["context"].iloc[0]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [set(line.get_xdata()) for line in dashed] == [{0.75}, {0.15}]
    assert [tuple(line.get_ydata()) for line in dashed] == [(-0.5, 1.5), (1.5, 3.5)]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "signed:\nrandom patch" and names[3] == "passed on:\nmean colour"
    assert names[4].startswith("context")


def test_a_context_that_was_not_asked_for_is_not_drawn(ax, card):
    plots.effect_intervals(ax, replace(card, context=card.context.iloc[:0]))
    plots.effect_intervals(ax, card)  # "not ring" has no trigger
    assert not [line for line in ax.lines if line.get_marker() == "D"]
    assert len(ax.get_yticklabels()) == len(card.effects)


def test_classes_are_drawn_in_order_with_their_sign(ax, card):
    plots.class_bars(ax, card.evidence)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == card.evidence.classes["absence"].head(plots.CLASSES).tolist()
    assert [colour(bar) for bar in ax.patches] == [ABSENCE if width > 0 else PRESENCE for width in widths]
    assert ax.get_yticklabels()[0].get_text() == card.evidence.classes["name"][0]


@pytest.mark.slow
def test_one_scale_for_all_maps(card):
    limit = plots.map_limit(card)
    both = [plots.smoothed(maps.signed, 0.03) for maps in (card.evidence.target, card.evidence.other)]
    assert limit == pytest.approx(np.quantile(np.abs(np.concatenate(both)), 0.995))
    strips = card_pictures(plots.card_figure(card))
    shown = np.asarray(strips[-1].images[0].get_array())  # the last map of a non-target input
    at = np.unravel_index(both[1][-1].argmin(), both[1][-1].shape)
    red, _, blue = shown[at]
    assert blue > red  # what lowers the response most is blue
    assert {ax.get_xlabel() for ax in strips if ax.get_xlabel().startswith("±")} == {f"±{limit:.2g}"}


def card_pictures(figure):
    halves = [half for part in figure.subfigs for half in part.subfigs]
    return [ax for half in halves for ax in half.axes if ax.images]


@pytest.mark.slow
def test_whole_card_has_all_pictures(card):
    figure = plots.card_figure(card)
    assert len(card_pictures(figure)) == 2 * (1 + 3 + 3 + 4) and figure.get_figwidth() == 7.5
    texts = " ".join(text.get_text() for part in figure.subfigs for text in part.texts).replace("\n", " ")
    assert card.title in texts and card.headline in texts and "network: scenes" in texts
    assert card.sentence in texts
    bare = plots.card_figure(replace(card, pair=None, evidence=None))
    assert len(card_pictures(bare)) == 2 * (3 + 3)


@pytest.mark.slow
def test_text_stays_inside_every_drawing(card):
    """As a page has them: nothing is cut off at an edge."""
    for panel in [panel for row in plots.card_rows(hidden(card)) for panel in row.panels]:
        with companion_style():
            figure = plt.figure(figsize=(panel.width, panel.height), layout="constrained")
            panel.draw(figure)
            figure.canvas.draw()
            box = figure.get_tightbbox()
        assert min(box.min) >= -0.02 and box.x1 <= panel.width + 0.02 and box.y1 <= panel.height + 0.02, (
            panel.alt
        )


def test_long_labels_make_a_row_taller_and_stay_short(card):
    ends = {side: replace(end, label=["a, " * 40] * len(end.label)) for side, end in card.patches.items()}
    rows, longer = plots.card_rows(card), plots.card_rows(replace(card, patches=ends))
    assert longer[0].panels[0].height > rows[0].panels[0].height
    assert longer[0].panels[0].alt.count("…") == 3 and "mostly in the patch" in rows[0].note


def test_overview_of_an_output_has_every_unit_by_name_with_its_interval(layer_study):
    study, _ = layer_study
    figure = plots.layer_overview(study, [1])
    left, right = figure.axes
    signed = study.decisions[study.decisions["reading"] == "signed"].sort_values("effect", ascending=False)
    points = [bars.lines[0] for bars in left.containers]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], signed["effect"])
    ends = [bars.lines[2][0].get_segments()[0][:, 0] for bars in left.containers]
    np.testing.assert_allclose(ends, signed[["low", "high"]])
    assert [line.get_color() for line in points] == [plots.DECISIONS[each] for each in signed["decision"]]
    names = [label.get_text().replace("\n", " ") for label in left.get_yticklabels()]
    classes = study.images.class_names
    assert names == [f"{unit}: {classes[unit]}" for unit in signed["unit"]]
    counts = signed["decision"].value_counts()
    null = study.null[study.null["control"] == "random patch"]["value"].notna().sum()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        *(f"{decision} ({counts.get(decision, 0)})" for decision in plots.DECISIONS),
        "this network (5 units)",
        f"random weights ({null} units)",
    ]
    encodes = counts.get(DECISIONS[0], 0)
    assert figure.get_suptitle().startswith(f"logits: {encodes} of 5 units encode an absence of 0.75 sd")
    share = (signed["effect"] >= 0.75).mean()
    assert right.get_title().startswith(f"at least 0.75 sd: {share:.0%} of this network")
    plt.close(figure)


def test_the_share_falls_by_one_unit_at_each_effect(layer_study):
    study, _ = layer_study
    figure = plots.layer_overview(study)
    line, effects = figure.axes[1].lines[0], np.sort(study.decisions["effect"])
    for count, effect in enumerate(effects):  # what "steps-pre" draws right up to an effect
        at = np.searchsorted(line.get_xdata(), effect)
        assert line.get_ydata()[at] == pytest.approx(1 - count / len(effects))
    assert line.get_drawstyle() == "steps-pre" and line.get_ydata()[-1] == 0
    plt.close(figure)


def test_overview_of_a_hidden_layer_has_both_readings_and_of_many_outputs_the_marked_ones(layer_study):
    study, _ = layer_study
    passed = study.decisions.assign(reading="passed on", effect=study.decisions["effect"] / 10, delta=0.15)
    figure = plots.layer_overview(replace(study, decisions=pd.concat([study.decisions, passed])), [1, 3])
    left = figure.axes[0]
    points = np.concatenate([line.get_xydata() for line in left.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(points[:, 1], points[:, 0] / 10)
    assert sorted(points[:, 0]) == sorted(study.decisions["effect"])
    assert [text.get_text() for text in left.texts] == ["1", "3"]
    many = pd.concat([study.decisions.assign(unit=study.decisions["unit"] + 5 * n) for n in range(3)])
    crowd = plots.layer_overview(replace(study, decisions=many), [1, 7]).axes[0]
    assert sorted(text.get_text() for text in crowd.texts) == ["1", "7"] and not crowd.get_yticklabels()
    plt.close("all")


def test_colours_are_of_all_decisions():
    assert tuple(plots.DECISIONS) == DECISIONS


def test_concepts_put_in_stand_where_they_are_and_the_confirmed_one_is_bold(ax, card):
    concepts = pd.DataFrame({
        "concept": ["ring", "disc"], "effect": [-0.5, 0.1], "low": [-0.6, 0.0], "high": [-0.4, 0.2],
        "confirmed": [True, False],
    })  # fmt: skip
    plots.concept_intervals(ax, concepts)
    lines = [list(line.get_xdata()) for line in ax.lines]
    assert lines == [[-0.6, -0.4], [-0.5], [0.0, 0.2], [0.1], [0, 0]]
    assert [label.get_fontweight() for label in ax.get_yticklabels()] == ["bold", "normal"]
    assert ax.lines[0].get_color() == ABSENCE != ax.lines[2].get_color()
    named = replace(card, naming=Naming("Silenced by ring", concepts, "How it was tested."))
    titles = [row.title for row in plots.card_rows(named)]
    assert titles.index("Concepts put into images") == 1 and len(titles) == len(plots.card_rows(card)) + 1
    plt.close(plots.card_figure(named))


@pytest.mark.parametrize(
    "share, text", [(0, "0%"), (1, "100%"), (0.996, "99.6%"), (0.002, "0.2%"), (0.5, "50%")]
)
def test_a_share_that_is_not_all_is_not_said_to_be(share, text):
    assert plots._share(share) == text


def test_noise_does_not_look_like_evidence(ax, card):
    classes = card.evidence.classes.assign(absence=0.001)
    plots.class_bars(ax, replace(card.evidence, classes=classes))
    assert ax.get_xlim()[1] == 0.1
