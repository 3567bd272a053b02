"""What a card gathers is what the network and the images say, with its sign."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from absence_utils.attribution.columns import Columns, matrix_columns
from absence_utils.attribution.screening import screen
from absence_utils.errors import InputError
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import CONCEPTS, RULES, draw_presence
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.decisions import CANNOT_TELL, DECISIONS, ENCODES, NONE
from absence_utils.models.random_weights import random_copy
from absence_utils.patches.shape import describe_shape
from absence_utils.units import Unit, dataset_responses
from absence_utils.visualization import faint_contrast
from absence_utils.your_model.cards import (
    CONTRAST_IMAGES,
    CardOptions,
    card_numbers,
    card_title,
    collect_cards,
)
from absence_utils.your_model.offer import Naming

EFFORT = CardOptions(shown=4, steps=4, facets=1, maps=2, evidence_images=60, smoothness=10.0)


@pytest.fixture(scope="module")
def card(layer_study):
    study, dataset = layer_study
    (found,) = collect_cards(study, dataset, matrix_columns(dataset), [1], EFFORT, {"network": "scenes"})
    return found


def test_responses_are_those_of_the_network(card, layer_study):
    study, dataset = layer_study
    with torch.no_grad():
        direct = study.model(study.images.take(range(len(dataset))))[:, 1]
    assert card.responses == pytest.approx(direct.numpy(), rel=1e-4, abs=1e-4)
    assert card.channel == 1 and card.title == "logits, unit 1: not ring"


def test_images_are_the_extremes_in_order_with_their_class(card, layer_study):
    study, dataset = layer_study
    by_response = np.sort(card.responses)
    assert card.images["lowest"].response == by_response[:4].tolist()
    assert card.images["highest"].response == by_response[::-1][:4].tolist()
    for side in ("highest", "lowest"):
        shown = card.images[side]
        at = [int(np.flatnonzero(card.responses == value)[0]) for value in shown.response]
        assert torch.equal(shown.pixels, dataset.normalisation.undo(study.images.take(at)))
        presence = study.images.presence[at]
        assert shown.label == [
            ", ".join(name for name, there in zip(CONCEPTS, row, strict=True) if there) or "none"
            for row in presence.tolist()
        ]


def test_patches_are_those_of_the_book(card, layer_study):
    study, _ = layer_study
    for side, pixels in zip(("highest", "lowest"), study.book.crops(study.images, 1), strict=True):
        assert torch.equal(card.patches[side].pixels, pixels[:4])
        assert card.patches[side].response == getattr(study.book, side).response[1, :4].tolist()
    assert card.patches["lowest"].response[0] < 0 < card.patches["highest"].response[0]


def test_the_shape_is_that_of_the_responses_around_the_blank(card, layer_study):
    study, dataset = layer_study
    with torch.no_grad():
        blank = study.model(torch.zeros(1, 3, 64, 64))[0, 1].item()
    assert card.shape["blank"] == pytest.approx(blank, rel=1e-5)
    assert card.shape["skewness"] == pytest.approx(stats.skew(card.responses.astype(float), bias=False))
    assert card.shape["p5_sd"] * card.responses.std(ddof=1) + blank == pytest.approx(
        np.percentile(card.responses, 5), rel=1e-4
    )
    copies = [random_copy(study.model, seed) for seed in (1, 2)]  # as the study's
    rates = np.concatenate(
        [dataset_responses(copy, "logits", dataset).double().numpy() for copy in copies], axis=1
    )
    skewness = stats.skew(rates, bias=False)
    assert study.copies["skewness"].tolist() == pytest.approx(skewness.tolist(), abs=1e-3)
    assert study.copies["copy"].tolist() == [0] * 5 + [1] * 5
    assert card.shape["skewness_percentile"] == 10 * (skewness < card.shape["skewness"]).sum()


def test_the_shape_is_said_with_the_synthesised_poles(card):
    low, high = ((pole - card.shape["blank"]) / card.shape["sd"] for pole in (-30.0, 50.0))
    ends = SimpleNamespace(
        lowest=SimpleNamespace(response=torch.tensor([-30.0, -20.0])),
        highest=SimpleNamespace(response=torch.tensor([50.0, 10.0])),
    )
    said = replace(card, pair=ends).shape_line
    assert said.endswith(f"minimum and maximum lie {low:+.1f} and {high:+.1f} sd from it.".replace("-", "−"))
    assert (
        replace(card, pair=None).shape_line
        == describe_shape(card.shape, card.copies)
        == said.partition(" The syn")[0]
    )
    unknown = card.shape.where(card.shape.index == "blank")
    assert replace(card, shape=unknown).shape_line == "Its response never changes: it has no shape."


def test_both_signs_are_synthesised_with_the_same_effort(card):
    highest, lowest = card.pair.highest, card.pair.lowest
    assert highest.image.shape == lowest.image.shape == (1, 3, 64, 64)
    assert highest.trajectory.shape == lowest.trajectory.shape == (4, 1)
    assert (lowest.response < highest.response).all()


def test_the_synthesised_pair_has_the_contrast_of_a_faint_image(card, layer_study):
    study, dataset = layer_study
    asked = faint_contrast(study.model, dataset, EFFORT.contrast_quantile, CONTRAST_IMAGES)
    for side in (card.pair.highest, card.pair.lowest):
        contrast = (side.image[0] - 0.35).square().mean().sqrt()
        assert contrast.item() == pytest.approx(asked, rel=0.01)


def test_maps_are_of_target_and_of_non_target_inputs(card, layer_study):
    study, dataset = layer_study
    chosen = torch.linspace(0, 149, 60).round().long()
    member = dataset.membership[chosen, 1]
    assert member[card.evidence.target.position].all() and not member[card.evidence.other.position].any()
    assert card.evidence.split == "class 'not ring'"
    evidence = screen([Unit(study.model, "logits", 1)], dataset)
    most = evidence.absence[chosen, 0].where(~member, -1).argsort(descending=True)[:2]
    assert card.evidence.other.position.tolist() == most.tolist()
    most = evidence.presence[chosen, 0].where(member, -1).argsort(descending=True)[:2]
    assert card.evidence.target.position.tolist() == most.tolist()
    assert (card.evidence.other.signed.sum(dim=(1, 2)) < 0).all()


def test_classes_that_suppress(card, layer_study):
    study, dataset = layer_study
    classes = card.evidence.classes.set_index("name")
    assert classes.index[0] == "ring" and card.evidence.contrast
    chosen = torch.linspace(0, 149, 60).round().long()
    shows = draw_presence(150, 0)[chosen][:, list(CONCEPTS).index("ring")].bool()
    unit = Unit(study.model, "logits", 1)
    found = screen([unit], torch.utils.data.Subset(dataset, chosen.tolist()))
    sd = found.response[:, 0].double().std()
    expected = (found.absence[shows, 0].mean() - found.absence[~shows, 0].mean()) / sd
    assert classes.absence["ring"] == pytest.approx(expected.item(), rel=1e-4)
    assert classes.response["ring"] == pytest.approx(found.response[shows, 0].mean().item(), rel=1e-4)
    assert classes.images["ring"] == int(shows.sum())
    assert classes.absence.is_monotonic_decreasing


@pytest.mark.slow
def test_classes_with_few_images_are_left_out_where_others_have_more(layer_study):
    study, dataset = layer_study
    columns = matrix_columns(dataset)
    rare = columns.membership.clone()
    rare[:, 0] = False
    rare[:2, 0] = True
    (card,) = collect_cards(study, dataset, replace(columns, membership=rare), [1], replace(EFFORT, facets=0))
    assert columns.names[0] not in card.evidence.classes["name"].tolist()
    assert len(card.evidence.classes) == len(columns.names) - 1


def test_decisions_effects_and_context_are_the_units_own(card, layer_study):
    study, _ = layer_study
    assert (card.effects["unit"] == 1).all() and card.effects["control"].tolist() == [
        "random patch",
        "mean colour",
    ]
    own = study.effects[study.effects["unit"] == 1]
    assert card.effects["value"].tolist() == own["value"].tolist()
    assert card.decisions.loc["signed", "effect"] == study.decision(1)["effect"] == own["value"].iloc[0]
    pd.testing.assert_frame_equal(
        card.context, study.context[study.context["unit"] == 1].reset_index(drop=True)
    )
    assert (
        card.context["context"].isna().all()
    )  # "not ring" is active unless there is a ring: it has no trigger
    assert f"{study.decision(1)['effect']:.2f} sd" in card.sentence and card.patch == 24


def decided(card, signed, passed=None):
    """The card with other decisions; a hidden unit's where there is a second one."""
    rows = [card.decisions.iloc[0].to_dict() | {"decision": signed, "needed": 500}]
    if passed:
        rows.append(rows[0] | {"reading": "passed on", "decision": passed, "delta": 0.15})
    return replace(card, decisions=pd.DataFrame(rows).set_index("reading", drop=False))


SIGNED = {
    ENCODES: "Encodes an absence",
    NONE: "Encodes no absence of 0.75 sd or more",
    CANNOT_TELL: "One cannot tell whether it encodes an absence",
}
PASSED = {
    ENCODES: ", passes it on",
    NONE: ", passes none on",
    CANNOT_TELL: ", cannot tell whether it passes one on",
    None: "",
}


@pytest.mark.parametrize("signed", DECISIONS)
@pytest.mark.parametrize("passed", [*DECISIONS, None])
def test_headlines_say_both_decisions(card, signed, passed):
    shown = decided(card, signed, passed)
    assert shown.headline == SIGNED[signed] + PASSED[passed]
    assert len(shown.sentences) == 1 + bool(passed) + 1 and shown.sentence == " ".join(shown.sentences)
    assert shown.sentences[0].startswith("Signed: its lowest patches (24 px) lower it by ")
    if passed:
        assert shown.sentences[1].startswith("Passed on: ")
    assert len(replace(shown, context=card.context.iloc[:0]).sentences) == 1 + bool(passed)
    tails = {ENCODES: "surely by more", NONE: "surely by less", CANNOT_TELL: "about 500 images would tell"}
    assert tails[signed] in shown.sentences[0]


def test_what_is_known_of_a_name_comes_first(layer_study, card):
    study, dataset = layer_study
    said = "Silenced by ring (confirmed: −1.9 sd [−2.1, −1.7], 6 of 6 lowest patches)"
    concepts = pd.DataFrame(
        {"concept": ["ring"], "effect": -1.9, "low": -2.1, "high": -1.7, "confirmed": True}
    )
    bare = replace(EFFORT, facets=0, maps=0)
    named, other = collect_cards(
        study, dataset, matrix_columns(dataset), [1, 2], bare, {}, {1: Naming(said, concepts, "")}
    )
    assert named.headline == named.confirmation == said and repr(named).endswith(said)
    decided = f"By its own lowest patches: {card.headline[0].lower()}{card.headline[1:]}."
    assert named.sentences == [decided, *card.sentences]
    numbers = card_numbers(named).set_index(["panel", "item"]).loc[("concept put in", "ring")]
    assert numbers[["value", "low", "high"]].tolist() == [-1.9, -2.1, -1.7]
    assert other.confirmation == "" and other.headline == "Encodes no absence of 0.75 sd or more"


def test_numbers_of_a_card_hold_what_it_draws(card):
    assert not any("context" in panel for panel in card_numbers(card)["panel"])
    card = replace(card, context=card.context.assign(context=0.5, low=0.25, high=0.75))
    numbers = card_numbers(card).set_index(["panel", "item"])["value"]
    assert numbers["effect, signed", "random patch"] == card.decisions.loc["signed", "effect"]
    assert numbers["effect, signed", "mean colour"] == card.effects["value"].iloc[1]
    assert numbers["context, signed", "on - off"] == card.context["context"].iloc[0]
    low, high = card_numbers(card).set_index("panel").loc["context, signed", ["low", "high"]]
    assert (low, high) == tuple(card.context[["low", "high"]].iloc[0])
    assert numbers["lowest patch", "1"] == card.patches["lowest"].response[0] < 0
    assert numbers["highest image", "4"] == card.images["highest"].response[3]
    assert numbers["synthesised, lowest", "1"] == card.pair.lowest.response[0].item()
    assert numbers["response", "median of the images"] == pytest.approx(np.median(card.responses))
    shape = card_numbers(card).set_index(["panel", "item"]).loc["shape of the response"]
    own = ["skewness", "skewness_low", "skewness_high"]
    assert shape.loc["skewness", ["value", "low", "high"]].tolist() == card.shape[own].tolist()
    copies = card.copies["skewness"].quantile([0.5, 0.05, 0.95]).tolist()
    assert shape.loc["skewness, random copies", ["value", "low", "high"]].tolist() == copies
    assert (
        shape.value["blank"] == card.shape["blank"]
        and shape.value["share below"] == card.shape["share_below"]
    )
    assert shape.value["5th percentile from the blank, sd"] == card.shape["p5_sd"]
    assert numbers["absence evidence by class", "ring"] == card.evidence.classes["absence"][0]
    assert (card_numbers(card)["unit"] == 1).all()


def test_what_is_not_asked_for_is_not_made(layer_study):
    study, dataset = layer_study
    columns = matrix_columns(dataset)
    for effort in (replace(EFFORT, facets=0, maps=0), replace(EFFORT, facets=0, evidence_images=0)):
        (card,) = collect_cards(study, dataset, columns, [0], effort)
        assert card.pair is None and card.evidence is None
        assert "synthesised, lowest" not in set(card_numbers(card)["panel"])


def test_evidence_needs_an_image_of_each_kind():
    with pytest.raises(InputError, match="`evidence_images`: a single image.*2 or more, or 0"):
        replace(EFFORT, evidence_images=1)
    assert replace(EFFORT, evidence_images=1, maps=0).maps == 0
    assert replace(EFFORT, evidence_images=2).evidence_images == 2


def test_units_that_were_not_studied_are_refused_at_once(layer_study):
    study, dataset = layer_study
    with pytest.raises(InputError, match="unit 7 was not studied.*0, 1, 2, 3, 4"):
        collect_cards(study, dataset, matrix_columns(dataset), [1, 7], EFFORT)


def test_titles(layer_study):
    study, _ = layer_study
    assert [card_title(study, unit) for unit in range(5)] == [
        f"logits, unit {n}: {name}" for n, name in enumerate(RULES)
    ]
    assert card_title(replace(study, layer="block4"), 3) == "block4, unit 3"
    assert card_title(replace(study, layer=None), 3) == f"output, unit 3: {list(RULES)[3]}"
    assert (
        card_title(replace(study, images=WithNames(["3", "8", "a", "b", "c"])), 1)
        == "logits, unit 1: class 8"
    )


class WithNames:
    def __init__(self, names):
        self.class_names = names


@pytest.mark.slow
def test_a_single_class_says_nothing(layer_study):
    study, dataset = layer_study
    alone = Columns(torch.ones(len(dataset), 1, dtype=torch.bool), ["photos"], False)
    photos = replace(dataset, class_names=["photos"], presence=None, masks=None)
    one = replace(study, images=shuffle_images(photos, 0))
    one = replace(one, images=stack_images(one.images))
    one = replace(one, book=replace(study.book, fingerprint=one.images.fingerprint))
    (card,) = collect_cards(one, dataset, alone, [1], replace(EFFORT, facets=0))
    assert card.evidence.classes.empty and set(card.images["highest"].label) == {""}


def test_own_class_is_marked(layer_study):
    study, dataset = layer_study
    columns = Columns(dataset.membership, dataset.class_names, False)
    (card,) = collect_cards(study, dataset, columns, [1], replace(EFFORT, facets=0))
    assert card.evidence.classes.set_index("name")["own"].to_dict()["not ring"]
    assert card.evidence.classes["own"].sum() == 1


def test_maps_are_blurred_by_a_pixel_and_a_half_at_least(card):
    assert card.smooth == max(card.effort.smooth, 1.5 / 64)
    assert replace(card, effort=replace(card.effort, smooth=0.001)).smooth == 1.5 / 64
    assert replace(card, effort=replace(card.effort, smooth=0.2)).smooth == 0.2
