"""Transfer: shares with a closed form, matches that must be found, bad input; the page's examples."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import IDENTITY, Normalisation, TensorImages
from absence_utils.paths import ROOT
from absence_utils.plots.transfer import LIMITS, kept_shares
from absence_utils.stats import crossed_t_interval
from absence_utils.units import Unit
from absence_utils.visualization import (
    Match,
    NaturalResponses,
    Poles,
    RenderedPair,
    Rendering,
    match_unit,
    share_beyond,
    transfer_summary,
    transfer_table,
)

GREY = Normalisation((0.5,) * 3, (0.25,) * 3)


class Linear(nn.Module):
    """Each unit is a weighted mean of the pixels' colours, plus a bias."""

    def __init__(self, weights, bias=0.0, normalisation=GREY, edge=None):
        super().__init__()
        weights = torch.as_tensor(weights, dtype=torch.float32)
        self.mix = nn.Conv2d(3, len(weights), 1)
        self.mix.weight.data, self.mix.bias.data[:] = weights[..., None, None], bias
        self.normalisation, self.edge = normalisation, edge
        self.eval()

    def forward(self, images):
        if self.edge and images.shape[-1] != self.edge:
            raise RuntimeError("another size")
        return self.mix(images).mean((2, 3))


RED = [[1.0, 0, 0]]


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    colours = torch.randn(60, 3, 1, 1, generator=generator)
    images = 0.5 * colours + 0.1 * torch.randn(60, 3, 6, 6, generator=generator)
    return TensorImages(images.clamp(-2, 2), torch.zeros(60), ["all"], normalisation=GREY)


def reddish(share, images=1):
    """Grey images with so much red, the blank plus nothing but red."""
    pixels = torch.full((images, 3, 6, 6), 0.5)
    pixels[:, 0] = share
    return pixels


@pytest.fixture
def pair():
    """Maximum and minimum of the red unit; the two facets of each differ."""
    sides = [torch.cat([reddish(a), reddish(b)]) for a, b in ((0.9, 1.0), (0.0, 0.2))]
    highest, lowest = (Rendering(side, torch.zeros(2), torch.zeros(1, 2)) for side in sides)
    return RenderedPair(Unit(Linear(RED), "mix"), highest, lowest)


def shares(pair, other, dataset):
    table = transfer_table([pair], {"other": other}, dataset)
    return table.set_index("pole")["kept"]


# -- closed forms


@pytest.mark.parametrize(
    "weights, bias, kept",
    [
        (RED, 0, 1),
        (RED, 3, 1),
        ([[10.0, 0, 0]], -7, 1),
        ([[-1.0, 0, 0]], 0, -1),
        ([[0, 1.0, 0]], 0, 0),
    ],
    ids=["copy", "shifted", "rescaled", "negated", "orthogonal"],
)
def test_linear_units_keep_what_they_must(weights, bias, kept, pair, dataset):
    found = shares(pair, Linear(weights, bias), dataset)
    assert found.to_dict() == pytest.approx({"maximum": kept, "minimum": kept}, abs=1e-5)


def test_the_same_network_keeps_exactly_all(pair, dataset):
    table = transfer_table([pair], {"itself": pair.unit.model}, dataset)
    assert (table["kept"] == 1).all() and table["r2"].tolist() == pytest.approx([1, 1])
    assert table["own"].tolist() == table["there"].tolist()
    assert table["own"][0] > 0 > table["own"][1]
    assert table.columns.tolist() == ["unit", "pole", "network", "own", "there", "kept", "r2"]


def test_agrees_with_the_definition_computed_slowly(pair, dataset):
    other = Linear([[0.3, -0.8, 0.1]], 2.0, Normalisation((0.2, 0.4, 0.6), (0.5, 0.1, 0.3)))

    def effect(weights, bias, mean, std, pixels):
        def response(image):  # pixels [3, height, width], one by one
            values = np.array(
                [
                    sum(w * (image[c, y, x] - mean[c]) / std[c] for c, w in enumerate(weights))
                    for y in range(6)
                    for x in range(6)
                ]
            )
            return values.mean() + bias

        natural = [response(image) for image in GREY.undo(dataset.images).double().numpy()]
        poles = np.mean([response(image) for image in pixels.double().numpy()])
        return (poles - bias) / np.std(natural)  # the blank is 0 after normalisation

    table = transfer_table([pair], {"other": other}, dataset).set_index("pole")
    for pole, side in (("maximum", pair.highest), ("minimum", pair.lowest)):
        own = effect((1.0, 0, 0), 0.0, (0.5,) * 3, (0.25,) * 3, side.image)
        there = effect((0.3, -0.8, 0.1), 2.0, (0.2, 0.4, 0.6), (0.5, 0.1, 0.3), side.image)
        row = table.loc[pole]
        assert (row["own"], row["there"], row["kept"]) == pytest.approx((own, there, there / own), rel=1e-4)


def test_each_network_gets_the_pixels_as_it_expects(pair, dataset):
    """The same function of pixels, written for pixels in 0..1: its blank is black, not grey."""
    other = Linear([[4.0, 0, 0]], -2.0, IDENTITY)
    table = transfer_table([pair], {"other": other}, dataset).set_index("pole")
    spread = GREY.undo(dataset.images).mean((2, 3))[:, 0].double().std(correction=0).item()
    assert table["there"]["maximum"] == pytest.approx(0.95 / spread, rel=1e-4)  # from black, its own blank
    assert table["r2"].tolist() == pytest.approx([1, 1], abs=1e-5)


def test_images_are_resized_for_a_network_of_another_size(pair, dataset):
    other = Linear(RED, edge=12)
    with pytest.raises(InputError, match=r"`size`: Linear does not take images \[3, 6, 6\] \(another size\)"):
        transfer_table([pair], {"other": other}, dataset)
    match = Match(Unit(other, "mix"), size=12)
    assert shares(pair, [match], dataset).to_dict() == pytest.approx({"maximum": 1, "minimum": 1}, abs=1e-4)


def test_controls_count_by_the_effect_of_their_pole(dataset):
    unit = Unit(Linear(RED), "mix")
    images = {"minimum": reddish(0.1), "faint": reddish(0.4), "blank": reddish(0.5)}
    alone = shares(Poles(unit, images), unit.model, dataset)
    assert alone["faint"] == 1 and math.isnan(alone["blank"])  # nothing of which a share could be kept
    reference = {"faint": "minimum", "blank": "minimum"}
    found = shares(Poles(unit, images, reference), unit.model, dataset)
    assert found.to_dict() == pytest.approx({"minimum": 1, "faint": 0.25, "blank": 0}, abs=1e-5)
    with pytest.raises(InputError, match="`reference`: 'faint' refers to 'nothing'"):
        transfer_table([Poles(unit, images, {"faint": "nothing"})], {"itself": unit.model}, dataset)


def test_what_is_kept_beyond_a_control_is_taken_pair_by_pair(dataset):
    units = [Unit(Linear(RED), "mix"), Unit(Linear([[0.7, 0.3, 0]]), "mix"), Unit(Linear(RED), "mix")]
    poles = [
        Poles(unit, {"minimum": reddish(0.1 * n), "faint": reddish(0.4)}, {"faint": "minimum"})
        for n, unit in enumerate(units)
    ]  # two units of one name
    table = transfer_table(poles, {"a": Linear([[1, 0.5, 0]]), "b": Linear([[-1, 0, 0.2]])}, dataset)
    found = share_beyond(table, "minimum", "faint")
    assert (found["pole"] == "minimum - faint").all() and found.columns.tolist() == table.columns.tolist()
    for number, row in enumerate(found.itertuples()):
        one, other = (table[table["pole"] == name].iloc[number] for name in ("minimum", "faint"))
        assert (row.unit, row.network, row.r2) == (one["unit"], one["network"], one["r2"])
        assert (row.own, row.there, row.kept) == pytest.approx(
            tuple(one[["own", "there", "kept"]] - other[["own", "there", "kept"]])
        )
    with pytest.raises(InputError, match="`pole`: the table has no 'maximum'. Use one of minimum, faint"):
        share_beyond(table, "minimum", "maximum")
    with pytest.raises(InputError, match="`control`: 'minimum' and 'faint' are not of the same"):
        share_beyond(table[:-1], "minimum", "faint")


def test_rectified_outputs_are_read_before_the_rectifier(dataset):
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 1, bias=False), nn.ReLU())
    model.normalisation = GREY
    poles = Poles(Unit(model.eval()), {"minimum": reddish(0.0) - 0.5 + 0.25})
    assert shares(poles, model, dataset)["minimum"] == 1


# -- matching


def test_matching_recovers_a_known_direction(dataset):
    generator = torch.Generator().manual_seed(3)
    mixed, wanted = torch.randn(4, 3, generator=generator), torch.tensor([0.5, -2.0, 0.0, 1.0])
    other = Linear(mixed, 1.0, Normalisation((0.1,) * 3, (0.7,) * 3))
    unit = Unit(Linear((wanted @ mixed)[None]), "mix")
    found = match_unit(unit, other, "mix", dataset)
    assert found.r2 == pytest.approx(1, abs=1e-4) and found.unit.layer == "mix"
    # Four channels of three colours: the direction is known up to what the layer never does.
    ratio = (found.unit.direction.float() @ mixed) / (wanted @ mixed)
    assert ratio.tolist() == pytest.approx([ratio[0].item()] * 3, rel=1e-2)
    poles = Poles(unit, {"minimum": torch.rand(2, 3, 6, 6, generator=generator)})
    assert shares(poles, [found], dataset)["minimum"] != 0
    alike = Linear((wanted @ mixed)[None], normalisation=other.normalisation)
    wanted_there = shares(poles, [Unit(alike, "mix")], dataset)["minimum"]
    assert shares(poles, [found], dataset)["minimum"] == pytest.approx(wanted_there, rel=1e-2)


def test_r2_is_of_images_that_were_not_fitted(dataset):
    """A layer with more channels than images fits any response; what it fits is not there in others."""
    generator = torch.Generator().manual_seed(4)
    noisy = TensorImages(
        torch.randn(60, 3, 6, 6, generator=generator), dataset.labels, ["all"], normalisation=GREY
    )
    wide = nn.Sequential(nn.Conv2d(3, 64, 6))
    nn.init.normal_(wide[0].weight, generator=generator)
    wide.normalisation = GREY
    found = match_unit(Unit(Linear(RED), "mix"), wide.eval(), "0", noisy)
    assert found.r2 < 0.7


def test_a_channel_without_values_does_not_spoil_a_match(dataset):
    other = Linear([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0]])
    found = match_unit(Unit(Linear(RED), "mix"), other, "mix", dataset)
    assert found.r2 > 0.999 and found.unit.direction[1] == 0 and found.unit.direction.isfinite().all()


def test_matched_units_need_no_scale(pair, dataset):
    found = match_unit(pair.unit, Linear(torch.eye(3) * 1e-3), "mix", dataset)
    table = transfer_table([pair], {"matched": [found]}, dataset)
    assert table["kept"].tolist() == pytest.approx([1, 1], abs=1e-2) and (table["r2"] == found.r2).all()


def test_natural_images_are_shown_to_a_layer_once(pair, dataset):
    passes, other = [], Linear(torch.eye(3))
    other.register_forward_pre_hook(lambda *_: passes.append(1))
    natural = NaturalResponses(dataset, pair.unit.model)
    alone = match_unit(pair.unit, other, "mix", dataset)
    first = match_unit(pair.unit, other, "mix", natural)
    assert passes and torch.equal(first.unit.direction, alone.unit.direction)
    passes.clear()
    matches = [first, *(match_unit(pair.unit, other, "mix", natural) for _ in range(2))]
    assert passes == [] and torch.equal(matches[2].unit.direction, alone.unit.direction)
    remembered = transfer_table([pair] * 3, {"other": matches}, natural)
    poles = len(passes)
    again = transfer_table([pair] * 3, {"other": matches}, dataset)
    assert len(passes) > 2 * poles > 0
    pd.testing.assert_frame_equal(remembered, again)


def test_bad_input_names_the_parameter(pair, dataset):
    other = Linear(torch.eye(3))
    few = TensorImages(dataset.images[:39], dataset.labels[:39], ["all"], normalisation=GREY)
    with pytest.raises(InputError, match="`dataset`: 39. Use 40 or more"):
        match_unit(pair.unit, other, "mix", few)
    with pytest.raises(InputError, match="`layer`: .*nowhere"):
        match_unit(pair.unit, other, "nowhere", dataset)
    dead = Unit(Linear([[0.0, 0, 0]], 2.0), "mix")
    with pytest.raises(InputError, match="`unit`: mix:0 of Linear is constant"):
        match_unit(dead, other, "mix", dataset)
    with pytest.raises(InputError, match="`layer`: no channel of mix changes"):
        match_unit(pair.unit, dead.model, "mix", dataset)
    with pytest.raises(InputError, match="`unit`: mix:0 of Linear is constant"):
        transfer_table([pair], {"dead": dead.model}, dataset)
    with pytest.raises(InputError, match="`pairs`: there are none"):
        transfer_table([], {"other": other}, dataset)
    with pytest.raises(InputError, match="`others`: 2 units for 1 pairs"):
        transfer_table([pair], {"other": [pair.unit, pair.unit]}, dataset)


# -- over units and networks


def grid(values):
    """A table of transfer from [unit, network]."""
    rows = [
        {"unit": f"u{unit}", "pole": "minimum", "network": f"n{network}", "kind": "seeds", "own": -2.0,
         "there": -1.0, "kept": value, "r2": 0.5}
        for unit, row in enumerate(values)
        for network, value in enumerate(row)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_intervals_are_over_units_and_networks_alike():
    values = np.random.default_rng(0).normal(0.8, 0.2, (6, 4))
    (row,) = transfer_summary(grid(values), by=("kind", "pole")).to_dict("records")
    expected = crossed_t_interval(values[None])
    assert (row["kept"], row["low"], row["high"]) == pytest.approx(
        (expected.value[0], expected.low[0], expected.high[0])
    )
    assert (row["units"], row["networks"], row["own"], row["r2"]) == (6, 4, -2, 0.5)


def test_one_network_gives_students_interval_over_units_and_one_value_none():
    table = transfer_summary(grid([[0.5], [0.7], [0.9], [np.nan]]))
    assert table.loc[0, ["kept", "units", "networks"]].tolist() == [pytest.approx(0.7), 3, 1]
    half = 4.302653 * 0.2 / math.sqrt(3)  # t with two degrees of freedom
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx([0.7 - half, 0.7 + half])
    over_networks = transfer_summary(grid([[0.5, 0.7, 0.9]]), by=("kind", "pole"))
    assert over_networks.loc[0, ["low", "high"]].tolist() == pytest.approx([0.7 - half, 0.7 + half])
    (single,) = transfer_summary(grid([[0.5]])).to_dict("records")
    assert single["kept"] == 0.5 and math.isnan(single["low"])
    (none,) = transfer_summary(grid([[np.nan]])).to_dict("records")
    assert math.isnan(none["kept"]) and none["units"] == 0


def test_the_figure_draws_means_intervals_and_units():
    values = np.array([[0.5], [0.7], [0.9], [9.0]])
    table = pd.concat([grid(values), grid(values - 1).assign(pole="minimum, scrambled")])
    summary = transfer_summary(table)
    fig = kept_shares(table, summary)
    (ax,) = fig.axes
    drawn = np.concatenate([line.get_xdata() for line in ax.lines])
    assert {0.5, 0.7, 0.9, LIMITS[1], -0.5} <= set(np.round(drawn.astype(float), 6))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["n0"]
    assert len(ax.containers) == 2
    means = sorted(float(container.lines[0].get_xdata()[0]) for container in ax.containers)
    assert means == pytest.approx(sorted(np.clip(summary["kept"], *LIMITS)))


# -- the page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not to the target")  # of so few steps
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "pictures.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(re.sub(r"steps=\d+", "steps=4", block).replace("limit=400", "limit=60"), names)
    assert set(names["table"]["network"]) == {"itself", "another seed", "matched", "random copy"}
    assert names["shapes"]["pole"].unique() == ["minimum - scrambled"]
    assert names["levels"].image.shape == (11, 3, 64, 64)
    assert (tmp_path / "ladder.webp").stat().st_size > 0
