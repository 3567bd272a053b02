"""The card of one unit in one call is the card of the steps in notebook 10."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from absence_utils import InputError, card, load_model, open_model
from absence_utils.attribution.columns import matrix_columns
from absence_utils.attribution.completeness import GAP_BOUND
from absence_utils.images.scenes import scene_dataset
from absence_utils.models.random_weights import random_copy
from absence_utils.your_model.cards import CardOptions, card_numbers, collect_cards
from absence_utils.your_model.html import card_page
from absence_utils.your_model.study import auto_config, study_layer

OPTIONS = CardOptions(shown=2, steps=2, facets=1, maps=1, evidence_images=20, baseline="border")
STUDY = {"k": 6, "hosts": 12, "random_copies": 2, "null_units": 4, "most": 2, "patch": 24}


@pytest.fixture(scope="module")
def found():
    return card(load_model("concept_scenes"), "logits", 1, scene_dataset(100, 0), OPTIONS, **STUDY)


def test_it_says_what_the_steps_say(found):
    net, dataset = load_model("concept_scenes"), scene_dataset(100, 0)
    setting = auto_config(100, 64, 24, k=6, hosts=12)
    copies = [random_copy(net, 1), random_copy(net, 2)]
    how = {"units": [1], "most": 2, "null_units": 4}
    study = study_layer(net, "logits", dataset, setting, copies, **how)
    (by_steps,) = collect_cards(study, dataset, matrix_columns(dataset), [1], OPTIONS)
    pd.testing.assert_frame_equal(card_numbers(found), card_numbers(by_steps))
    assert found.sentence == by_steps.sentence and found.about["images"].startswith("100, ")


def test_it_prints_as_a_line_and_shows_itself(found):
    assert repr(found) == f"Card of logits, unit 1: not ring: {found.headline}"
    html = found._repr_html_()
    assert html.startswith("<iframe") and html.endswith("</iframe>")
    assert "<style" not in html  # inside the frame's attribute only, escaped
    assert str(html).count('"') == 6  # the page's own quotation marks are escaped
    assert found.show().get_size_inches()[0] == 7.5


def test_the_card_names_the_baseline_and_the_gap_of_its_maps(found):
    gaps = [float(maps.gap.abs().max()) for maps in (found.evidence.target, found.evidence.other)]
    assert max(gaps) <= GAP_BOUND
    words = f"baseline 'border' (each image's border colour), completeness gap up to {max(gaps):.1%}"
    assert words in found.about_maps
    assert words.replace("'", "&#39;") in card_page(found)
    foot = [text.get_text() for part in found.show().subfigs for text in part.texts]
    assert any(words in text.replace("\n", " ") for text in foot)
    table = card_numbers(found)
    shown = table[table.panel.str.startswith("completeness gap")]
    np.testing.assert_allclose(shown.value.abs(), gaps)
    other = replace(found, effort=replace(OPTIONS, baseline="black"))
    assert "'black' (black)" in other.about_maps


def test_a_tensor_and_an_opened_model_will_do():
    opened = open_model("concept_scenes")
    quick = replace(OPTIONS, maps=0, facets=0)
    study = STUDY | {"random_copies": 1, "null_units": 1, "most": 1}
    found = card(opened, "logits", 2, scene_dataset(100, 0).images, quick, **study)
    assert found.channel == 2 and found.evidence is None and found.about["network"] == "concept_scenes"
    assert found.images["lowest"].label == ["", ""]


def test_what_cannot_be_studied_is_named():
    net, dataset = load_model("concept_scenes"), scene_dataset(100, 0)
    with pytest.raises(InputError, match="too few"):
        card(net, "logits", 1, scene_dataset(20, 0))
    with pytest.raises(InputError, match="nosuch"):
        card(net, "nosuch", 1, dataset)
    with pytest.raises(InputError, match="unit"):
        card(net, "logits", 9, dataset, **STUDY)
    with pytest.raises(InputError, match="random_copies"):
        card(net, "logits", 1, dataset, random_copies=0)
