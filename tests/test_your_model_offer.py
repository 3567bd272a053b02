"""The first line of a card: a confirmed name with its numbers, or that none is."""

import pandas as pd
import torch

from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.naming.concepts import Concepts
from absence_utils.naming.names import NamingResult, headlines
from absence_utils.patches.book import Patches
from absence_utils.your_model.labels import patch_names
from absence_utils.your_model.offer import offer_names

CONCEPTS = Concepts(
    ["flat-coated dog", "dog", "animal", "boat"],
    torch.zeros(0, 4).bool().numpy(),
    None,
    torch.zeros(0).numpy(),
    {"flat-coated dog": ("dog",), "dog": ("animal",)},
)


def found(*rows):
    """A result from rows (unit, reading, name, effect)."""
    table = [
        {"unit": unit, "reading": reading, "name": name, "absolute": effect, "absolute_low": effect - 0.1,
         "absolute_high": effect + 0.1, "confirmed": True}
        for unit, reading, name, effect in rows
    ]  # fmt: skip
    columns = ["unit", "reading", "name", "absolute", "absolute_low", "absolute_high", "confirmed"]
    table = pd.DataFrame(table, columns=columns).astype({"confirmed": bool})
    return NamingResult(table, pd.DataFrame(), "layer", CONCEPTS, CONCEPTS.names, 8)


def test_a_line_has_the_name_as_it_is_written_and_numbers_with_a_minus_sign():
    lines = headlines(found((3, "signed", "flat-coated dog", -0.5)))
    assert lines == {3: "Silenced by flat-coated dog (confirmed: −0.50 sd [−0.60, −0.40])"}


def test_the_reading_with_the_stronger_effect_is_said():
    lines = headlines(found((3, "signed", "dog", -0.5), (3, "passed on", "boat", -0.7)))
    assert lines[3].startswith("Silenced by boat (confirmed: −0.70 sd passed on [")


def test_a_unit_without_a_name_is_said_to_have_none_only_where_it_encodes_an_absence():
    lines = headlines(found((3, "signed", "dog", -0.5)), encoding=[3, 5])
    assert sorted(lines) == [3, 5] and "no name among the 4 offered is confirmed" in lines[5]


def test_lowest_patches_count_where_they_show_the_name_or_one_below_it():
    lowest = {
        3: [["flat-coated dog"], ["flat-coated dog"], ["dog", "boat"], ["animal"], ["boat"], []],
        4: [[], []],
    }
    lines = headlines(found((3, "signed", "dog", -0.5), (4, "signed", "boat", -0.4)), lowest=lowest)
    assert lines[3].endswith("−0.40], 3 of 6 lowest patches)")
    assert lines[4].endswith("−0.30])"), "where nothing is known of any patch there is nothing to count"


def test_a_patch_has_the_names_in_it_not_those_beside_it():
    images = stack_images(scene_dataset(6, 0))
    whole = torch.tensor([[[0, 0, 64, 64]] * 6])
    names = patch_names(images, Patches(torch.zeros(1, 6), torch.arange(6)[None], whole), 0, 6)
    shown = [
        [name for name, there in zip(images.concepts, row, strict=True) if there] for row in images.presence
    ]
    assert names == shown
    corner = torch.tensor([[[0, 0, 2, 2]] * 6])
    assert patch_names(images, Patches(torch.zeros(1, 6), torch.arange(6)[None], corner), 0, 6) == [[]] * 6


def test_a_scenes_unit_gets_its_name_with_the_count_of_its_lowest_patches(layer_study):
    study, dataset = layer_study
    named = offer_names(study, dataset, [1], shown=4)[1]
    line = named.line
    patches = patch_names(study.images, study.book.lowest, 1, 4)
    count = sum("ring" in names for names in patches)
    assert line.startswith("Silenced by ring (confirmed: −") and line.endswith(
        f", {count} of 4 lowest patches)"
    )
    assert count > 2
    assert "(19 px)" in named.test and "more than 0.05 sd" in named.test
    strongest = named.concepts.iloc[0]
    assert strongest.concept == "ring" and strongest.confirmed and not named.concepts.confirmed[1:].any()
    said = f"{strongest.effect:.2f} sd [{strongest.low:.2f}, {strongest.high:.2f}]".replace("-", "−")
    assert said in line, "the number of the line is that of the plot"
    assert (
        set(named.concepts.concept) == set(study.images.concepts)
        and named.concepts.effect.is_monotonic_increasing
    )


def test_without_a_concept_nothing_is_asked(layer_study):
    study, dataset = layer_study
    assert offer_names(study, dataset, [1], "") == {}
