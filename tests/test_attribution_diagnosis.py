"""The bookkeeping of one prediction against slow paths by hand, and its verdict on every compiled network."""

import math

import numpy as np
import pytest
import torch
from helpers.compiled_by_hand import RESPONSE, all_presences, evidence_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.attribution.completeness import completeness_gap
from absence_utils.attribution.diagnosis import (
    DEPENDS,
    DIAGNOSIS_BASELINES,
    VERDICTS,
    decompose,
    diagnose,
)
from absence_utils.benchmark.compiled import COMPILED
from absence_utils.benchmark.gallery import after_showing
from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation
from absence_utils.units import Unit

# (network, layer, channel, shown concepts, verdict, why). Grey stands for the mean and the strongly blurred baseline:
# in both, every concept of the network is a little present, one to four ninths.
EXPECTED = [
    ("A", None, 0, "", "silent", "black image: all three baselines are the image itself"),
    ("A", None, 0, "A", "presence-driven", "all of the response is A's pixels"),
    ("A", None, 0, "A B", "presence-driven", "B is not read"),
    ("A", None, 0, "B", DEPENDS, "nothing from black; grey shows a little A, whose loss is all there is to see"),
    ("not B", None, 0, "", "baseline-driven", "1 with nothing shown: no pixel differs from the baseline"),
    ("not B", None, 0, "A", "baseline-driven", "A is not read; that B's place is darker than grey counts for a ninth"),
    ("not B", None, 0, "B", "held down", "B takes what the baseline gave, and nothing speaks for the unit"),
    ("not B", None, 0, "A B", "held down", "the same, A is not read"),
    ("not B", "hidden", 0, "B", "held down", "as the output, which is rectified"),
    ("A and not B", None, 0, "", "silent", "as for A"),
    ("A and not B", None, 0, "A", "presence-driven", "no B to veto it"),
    ("A and not B", None, 0, "B", DEPENDS, "as for A: B acts only where A is, so it does not count here"),
    ("A and not B", None, 0, "A B", "outweighed", "A speaks for it (1/2 on the path from black), B takes all of it"),
    ("A and not B, rectified", None, 0, "A", "presence-driven", "no B to veto it"),
    ("A and not B, rectified", None, 0, "A B", "silent", "a veto, but behind a rectifier that is shut on every path"),
    ("A and not B, rectified", "hidden", 0, "A B", "outweighed", "before the rectifier: A gives 1, B takes 2"),
    ("A and not B, rectified", "hidden", 0, "B", "held down", "B takes 2, nothing speaks for the unit"),
    ("A xor B", None, 0, "A", "presence-driven", "A alone fires it"),
    ("A xor B", None, 0, "B", "presence-driven", "B alone fires it"),
    ("A xor B", None, 0, "A B", DEPENDS, "from black the map must be empty: by symmetry A and B get the same, by "
     "completeness together 0. Grey shows a little of both, so it gives 4/9, which the image takes"),
    ("count below k", None, 0, "", "baseline-driven", "nothing is shown and it fires"),
    ("count below k", None, 0, "A", "baseline-driven", "one concept is still allowed and changes nothing"),
    ("count below k", None, 0, "A B", "held down", "the second concept ends it, and nothing can speak for it"),
    ("count below k", None, 0, "A B C D", "held down", "far above k"),
    ("count below k", "hidden", 0, "A", "baseline-driven", "2 - 1: half is taken, the rest is the baseline's"),
    ("count below k", "hidden", 1, "A B C D", "held down", "1 - 4"),
    ("A left of B", None, 0, "A left|B right", "presence-driven", "the wanted order"),
    ("A left of B", None, 0, "A right|B left", "held down", "the opposite order: below the baseline"),
    ("A left of B", None, 0, "A left|A right|B left|B right", "outweighed", "both orders: 1 for, 1 against"),
    ("A left of B", None, 0, "A left|A right|B right", "presence-driven", "half an opposite order counts nothing"),
    ("A left of B", None, 0, "A left", "silent", "half an order, below both thresholds"),
    ("A left of B", "hidden", 0, "A left", "silent", "A raises it from -1 to 0: too little, and nothing is against"),
    ("only the bias", None, 0, "", "baseline-driven", "from the baseline, as in 'not B': one image cannot tell"),
    ("only the bias", None, 0, "B", "baseline-driven", "B changes nothing: comparing with 'not B' tells"),
    ("only the bias", None, 0, "A", "baseline-driven", "A adds 1/2 to the 1 that is there anyway"),
    ("only the bias", "hidden", 0, "B", "baseline-driven", "as the output"),
    ("superposed decoy", None, 0, "A", "presence-driven", "A read along its own direction"),
    ("superposed decoy", None, 0, "A B", "presence-driven", "B's interference takes half, half is left"),
    ("superposed decoy", None, 0, "B", "held down", "interference: one prediction cannot tell it from an absence"),
    ("superposed decoy", None, 0, "A B C", "outweighed", "1 for A, 1/2 against by each other one"),
    ("superposed decoy", None, 2, "A B", "held down", "both interfere with C"),
    ("superposed decoy", None, 2, "C", "presence-driven", "C read along its own direction"),
]  # fmt: skip

# What these verdicts turn out to be once concepts are shown, and in the two networks that only look like an absence.
AFTER = {"baseline-driven": "absence-driven", "held down": "suppressed", "outweighed": "vetoed"}
LOOKALIKES = {
    "only the bias": {"baseline-driven": "bias-driven"},
    "superposed decoy": {"held down": "interference", "outweighed": "interference"},
}


def shown_names(net, shown):
    return tuple(shown.split("|") if "|" in shown or shown in net.concepts else shown.split())


def shown_image(net, shown):
    return net.render(net.present(*shown_names(net, shown)))[0]


def blurred_by_hand(image, sd, radius):
    """A Gaussian over a mirrored border, pixel by pixel."""
    pixels = np.pad(np.asarray(image, dtype=np.float64)[0], radius, mode="reflect")
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sd**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    height, width = image.shape[1:]
    result = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            result[row, column] = (kernel * pixels[row:, column:][: len(offsets), : len(offsets)]).sum()
    return result


def baselines_by_hand(image):
    return {"black": np.zeros((6, 6)), "mean": np.full((6, 6), float(image.double().mean())),
            "strongly blurred": blurred_by_hand(image, sd=3.0, radius=5)}  # fmt: skip


def readings(net, pixels):
    return [float(np.asarray(pixels, dtype=np.float64)[np.asarray(mask)].mean()) for mask in net.masks]


@pytest.mark.parametrize("name, layer, channel, shown, verdict, why", EXPECTED)
def test_verdict_is_right_on_compiled_networks(name, layer, channel, shown, verdict, why):
    net = COMPILED[name]()
    found = diagnose(Unit(net.model, layer, channel), shown_image(net, shown))
    assert found.verdict == verdict, (why, found.table())


@pytest.mark.parametrize("name, layer, channel, shown, verdict, why", EXPECTED)
def test_after_showing_concepts_the_verdict_is_right(name, layer, channel, shown, verdict, why):
    net = COMPILED[name]()
    said = after_showing(net, Unit(net.model, layer, channel), verdict, shown_names(net, shown))
    assert said == LOOKALIKES.get(name, AFTER).get(verdict, ""), why


def test_only_concepts_that_could_be_the_reason_are_asked():
    """A lowers the unit and B ends it: not B, with interference from A."""
    net = COMPILED["not B"]()
    net.model.hidden.weight.data[0] = torch.tensor([-0.6, -1.0])
    for verdict, shown, expected in (
        ("held down", ("A",), "interference"),
        ("held down", ("B",), "suppressed"),
        ("baseline-driven", ("A",), "absence-driven"),
        ("baseline-driven", ("B",), "bias-driven"),
    ):
        assert after_showing(net, Unit(net.model), verdict, shown) == expected


def test_every_compiled_network_and_verdict_is_in_the_table():
    assert {row[0] for row in EXPECTED} == set(COMPILED)
    assert {row[4] for row in EXPECTED} == {*VERDICTS, DEPENDS} - {"undecided"}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_accounts_agree_with_paths_by_hand(name):
    net = COMPILED[name]()
    function = RESPONSE[name][None]
    for presence in all_presences(net):
        image = net.render(presence[None])[0]
        found = diagnose(Unit(net.model), image)
        end, by_hand = readings(net, image[0]), baselines_by_hand(image)
        assert [row.baseline for row in found.rows] == list(DIAGNOSIS_BASELINES) == list(by_hand)
        for row in found.rows:
            start = readings(net, by_hand[row.baseline])
            assert row.response == pytest.approx(function(end)[0], abs=1e-6)
            assert row.baseline_response == pytest.approx(function(start)[0], abs=1e-6)
            presence_sum, absence_sum = evidence_by_hand(lambda r: function(r)[0], start, end)
            # where kinks of opposite sign fall into one step, presence and absence are both off; the most was 0.13
            assert row.presence == pytest.approx(presence_sum, abs=0.15)
            assert row.absence == pytest.approx(absence_sum, abs=0.15)


@pytest.mark.parametrize("name", COMPILED)
def test_gap_stays_below_the_threshold_on_all_images(name):
    net = COMPILED[name]()
    for presence in all_presences(net):
        for row in diagnose(Unit(net.model), net.render(presence[None])).rows:
            total = row.baseline_response + row.presence - row.absence + row.gap
            assert total == pytest.approx(row.response, abs=1e-9)
            scale = row.presence + row.absence + abs(row.baseline_response)
            assert abs(row.gap) <= 0.011 * scale + 1e-8
            if scale:
                assert row.baseline_share == pytest.approx(abs(row.baseline_response) / scale)


def test_the_numbers_of_a_veto():
    net = COMPILED["A and not B"]()
    found = diagnose(Unit(net.model), shown_image(net, "A B"), steps=256)
    black, mean, _ = found.rows
    assert (black.response, black.baseline_response) == (0, 0)
    assert (black.presence, black.absence) == (pytest.approx(0.5), pytest.approx(0.5))
    # grey of 8/36 = 2/9 already shows 2/9 of A; B takes its half once both are above 1/2
    assert mean.baseline_response == pytest.approx(2 / 9)
    assert mean.presence == pytest.approx(1 / 2 - 2 / 9, abs=0.01) and mean.absence == pytest.approx(
        0.5, abs=0.01
    )
    assert mean.baseline_share == pytest.approx(2 / 9, abs=0.01)  # the scale is 2/9 + 5/18 + 1/2 = 1
    assert found.maps.shape == (3, 1, 6, 6)
    assert found.maps[0, 0][net.masks[0]].sum().item() == pytest.approx(0.5)


@pytest.mark.parametrize("numbers, verdict", [
    # response, baseline response, presence, absence
    ((0.0, 0.0, 0.0, 0.0), "silent"),
    ((1e-7, 0.0, 1e-7, 0.0), "silent"),  # rounding
    ((1.0, 0.0, 0.0, 0.0), "undecided"),  # the attribution saw nothing of it
    ((1.0, 0.0, 1.12, 0.0), "undecided"),
    ((1.0, 0.0, 1.10, 0.0), "presence-driven"),
    ((1.0, 0.5, 0.5, 0.0), "presence-driven"),  # a tie
    ((1.0, 0.51, 0.49, 0.0), "baseline-driven"),
    ((0.12, 0.0, 0.56, 0.44), "presence-driven"),
    ((0.08, 0.0, 0.54, 0.46), "outweighed"),
    ((-0.5, 0.0, 0.25, 0.75), "outweighed"),
    ((-0.7, 0.0, 0.15, 0.85), "held down"),  # presence below a fifth
    ((-1.0, -0.5, 0.0, 0.5), "held down"),
    ((-2.0, -1.9, 0.0, 0.1), "silent"),  # negative by itself
    ((-1.0, -3.0, 2.0, 0.0), "silent"),  # not enough evidence
    ((-0.2, -0.6, 0.5, 0.1), "silent"),  # presence outweighs absence, yet not the baseline
    ((1.0, -1.0, 2.0, 0.0), "presence-driven"),
    ((0.0, 1.0, 0.0, 1.0), "held down"),
    ((0.0, 0.2, 0.3, 0.5), "outweighed"),
])  # fmt: skip
def test_rules_of_one_baseline(numbers, verdict):
    row = decompose("own", *numbers)
    assert row.verdict == verdict
    assert row.gap == pytest.approx(numbers[0] - numbers[1] - numbers[2] + numbers[3])


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(0, 2), st.floats(-0.3, 0.3), st.sampled_from([0.25, 8.0]))
@settings(max_examples=200, deadline=None)
def test_verdict_does_not_depend_on_the_unit_of_measure(start, presence, absence, gap, factor):
    start, presence, absence, gap = (round(value, 2) for value in (start, presence, absence, gap))
    numbers = (start + presence - absence + gap, start, presence, absence)
    row, scaled = (decompose("own", *(f * number for number in numbers)) for f in (1, factor))
    assert row.verdict == scaled.verdict and row.verdict in VERDICTS
    assert row.baseline_share == pytest.approx(scaled.baseline_share) and 0 <= row.baseline_share <= 1


def test_the_verdict_over_baselines():
    net = COMPILED["A"]()
    unit, image = Unit(net.model), shown_image(net, "A")
    lit = torch.ones(1, 6, 6)
    found = diagnose(unit, image, {"white": lit, "black": 0 * lit})
    # from white A's pixels do not change: the response is the baseline's
    assert [row.verdict for row in found.rows] == ["baseline-driven", "presence-driven"]
    assert found.verdict == DEPENDS
    assert diagnose(unit, image, {"white": lit}).verdict == "baseline-driven"
    assert diagnose(unit, image, ["black"]).verdict == "presence-driven"


def test_an_incomplete_method_is_not_given_a_verdict():
    net = COMPILED["A xor B"]()
    unit, both = Unit(net.model), shown_image(net, "A B")
    # hiding either concept raises the response from 0 to 1: both get -1, though the response did not change
    found = diagnose(unit, both, ["black"], "occlusion", window=2, stride=2)
    assert (found.rows[0].absence, found.rows[0].gap) == (pytest.approx(2), pytest.approx(2))
    assert found.verdict == "undecided"
    references = {"itself": both, "black": 0 * both}
    mixed = diagnose(unit, both, references, "occlusion", window=2, stride=2)
    assert [row.verdict for row in mixed.rows] == ["silent", "undecided"] and mixed.verdict == "undecided"
    assert (
        diagnose(unit, shown_image(net, "A"), ["black"], "occlusion", window=2, stride=2).verdict
        == "presence-driven"
    )


class Pixels(nn.Module):
    """Weighted sum of the input; weights [channel, height, width]."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights), bias

    def forward(self, images):
        return (images * self.weights).sum(dim=(1, 2, 3))[:, None] + self.bias


def test_black_is_what_the_normalisation_makes_of_it():
    model = Pixels(torch.full((3, 4, 4), 1 / 48))
    own = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    image = torch.zeros(3, 4, 4)  # mid grey under this normalisation
    row = diagnose(Unit(model), image, ["black"], normalisation=own).rows[0]
    assert row.baseline_response == pytest.approx(-2) and row.presence == pytest.approx(2)
    model.normalisation = own
    assert diagnose(Unit(model), image, ["black"]).rows[0] == row
    model.normalisation = Normalisation()
    assert diagnose(Unit(model), image, ["black"]).rows[0].baseline_response == 0


def test_mean_is_the_colour_of_the_image_channel_by_channel():
    weights = torch.zeros(3, 4, 4)
    weights[1] = 1 / 16  # mean of green
    image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))
    row = diagnose(Unit(Pixels(weights)), image, ["mean"], regions=None).rows[0]
    assert row.baseline_response == pytest.approx(float(image[1].mean()), abs=1e-6)
    assert row.response == pytest.approx(row.baseline_response, abs=1e-6)
    spread = float((image[1] - image[1].mean()).clamp(min=0).sum()) / 16
    assert row.presence == pytest.approx(spread, abs=1e-6) and row.absence == pytest.approx(spread, abs=1e-6)


def test_blur_follows_the_longer_side():
    weights = torch.zeros(1, 4, 8)
    weights[0, 1, 2] = 1.0
    image = torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(3))
    pixels = np.pad(image[0].double().numpy(), ((3, 3), (7, 7)), mode="reflect")
    rows, columns = (np.exp(-(np.arange(-r, r + 1) ** 2) / (2 * 4.0**2)) for r in (3, 7))
    window = pixels[1:8, 2:17]
    expected = float((np.outer(rows, columns) * window).sum() / (rows.sum() * columns.sum()))
    row = diagnose(Unit(Pixels(weights)), image, ["strongly blurred"]).rows[0]
    assert row.baseline_response == pytest.approx(expected, abs=1e-5)


def test_pixels_of_one_object_that_alternate_are_no_veto():
    signs = torch.ones(1, 8, 8)
    signs[0, ::2] = -0.8  # rows of one object: strong for, nearly as strong against
    image = torch.zeros(1, 8, 8)
    image[0, :2, :2] = 1
    model = Pixels(signs)
    with pytest.raises(InputError, match="normalisation.*3 channels, the image 1"):
        diagnose(
            Unit(model), image, ["black"]
        )  # a network without convolutions is taken for one of ImageNet's
    model.normalisation = Normalisation()
    unit = Unit(model)
    by_region, by_pixel = (diagnose(unit, image, ["black"], regions=count).rows[0] for count in (4, None))
    assert (by_region.presence, by_region.absence) == (pytest.approx(0.4, rel=1e-5), 0)
    assert (by_pixel.presence, by_pixel.absence) == (pytest.approx(2), pytest.approx(1.6, rel=1e-5))


def test_gap_is_the_completeness_gap_with_the_other_sign():
    net = COMPILED["count below k"]()
    image = shown_image(net, "A B C")
    found = diagnose(Unit(net.model), image, ["black"], steps=32)
    theirs = completeness_gap(Unit(net.model), image[None], found.maps[:1], baseline="black")
    assert found.rows[0].gap == pytest.approx(-theirs.item(), abs=1e-6) and abs(theirs.item()) > 0.05


def test_one_image_with_or_without_a_batch_axis_and_everything_left_as_found():
    net = COMPILED["A left of B"]()
    net.model.train()
    image = shown_image(net, "A left|B right").requires_grad_()
    alone, batch = diagnose(Unit(net.model), image), diagnose(Unit(net.model), image[None])
    assert alone.rows == batch.rows and torch.equal(alone.maps, batch.maps)
    assert net.model.training and net.model.relu.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.model.modules())
    assert image.grad is None and not alone.maps.requires_grad


def test_table_has_a_row_for_each_baseline():
    net = COMPILED["not B"]()
    table = diagnose(Unit(net.model), shown_image(net, "B")).table()
    assert table.baseline.tolist() == list(DIAGNOSIS_BASELINES)
    assert list(table.columns) == ["baseline", "response", "baseline_response", "presence", "absence", "gap",
                                   "baseline_share", "verdict"]  # fmt: skip
    assert table.absence.tolist()[0] == pytest.approx(1) and table.baseline_share[0] == pytest.approx(0.5)


def test_a_single_name_is_not_read_letter_by_letter():
    with pytest.raises(InputError, match="got 'black'"):
        diagnose(Unit(COMPILED["A"]().model), IMAGE, "black")


IMAGE = torch.zeros(1, 6, 6)


@pytest.mark.parametrize("parameter, arguments, options", [
    ("image", (torch.zeros(2, 1, 6, 6),), {}),
    ("image", (torch.zeros(6, 6),), {}),
    ("image", ([[0.0]],), {}),
    ("image", (IMAGE / 0,), {}),  # NaN
    ("baselines", (IMAGE, []), {}),
    ("baselines", (IMAGE, "black"), {}),
    ("baselines", (IMAGE, ["black", "gray"]), {}),
    ("baselines", (IMAGE, {"own": torch.zeros(1, 5, 6)}), {}),
    ("baselines", (IMAGE, {"own": 0.0}), {}),
    ("baseline", (IMAGE,), {"baseline": "zero"}),
    ("method", (IMAGE, DIAGNOSIS_BASELINES, "integrated"), {}),
    ("steps", (IMAGE,), {"steps": 0}),
    ("regions", (IMAGE,), {"regions": 0}),
])  # fmt: skip
def test_bad_input_is_named_with_a_remedy(parameter, arguments, options):
    with pytest.raises(InputError) as error:
        diagnose(Unit(COMPILED["A"]().model), *arguments, **options)
    assert error.value.parameter == parameter and error.value.problem and error.value.remedy


@pytest.mark.parametrize(
    "numbers", [(math.nan, 0, 0, 0), (0, math.inf, 0, 0), (0, 0, -0.1, 0), (0, 0, 0, -0.1)]
)
def test_an_account_of_impossible_numbers_is_refused(numbers):
    with pytest.raises(InputError, match="finite"):
        decompose("own", *numbers)
