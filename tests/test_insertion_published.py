"""The published protocol against a slow account of the release's steps, its draws, its table, and what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn
from torchvision.models import VisionTransformer

from absence_utils import InputError, insertion_study, mine_patches
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.published import (
    PASTED,
    PUBLISHED,
    Published,
    draw_published,
    published_protocol,
    published_summary,
)

SETTING = InsertionConfig(patch=12, stride=4, k=3, images=14, pairs="one_random", seed=5)


def pictures(n=26, size=24, seed=1):
    """Smooth colour noise, more of it in some images than in others."""
    generator = torch.Generator().manual_seed(seed)
    noise = nn.functional.avg_pool2d(torch.randn(n, 3, size, size, generator=generator), 5, 1, 2)
    return 2 * noise * torch.rand(n, 1, 1, 1, generator=generator)


def convolutions():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 5), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU()).eval()


def transformer():
    torch.manual_seed(4)
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12, "num_classes": 3}
    return VisionTransformer(image_size=24, patch_size=4, **sizes).eval()


# ---------------------------------------------------------------------- the release's steps, one after the other
class SlowAccount:
    """Float64 and loops, from the table of the release's values alone; nothing of the package is used.

    reading: image [1, channel, height, width] in float64 to the response of every unit [unit].
    """

    def __init__(self, pixels, reading, *, patch, stride, k, top, whole):
        self.pixels, self.reading, self.patch = pixels.double(), reading, patch
        self.k, self.count, self.whole, self.stride = k, top, whole, stride
        size = pixels.shape[-1]
        self.starts = list(range(0, size - patch + 1, stride))
        self.far = size - patch

    def cut(self, image, row, column):
        return self.pixels[image, :, row : row + self.patch, column : column + self.patch]

    def window_responses(self):
        """[(image, row, column), ...] and the responses [window][unit] to each window alone."""
        places, found = [], []
        for image in range(len(self.pixels)):
            for row in self.starts:
                for column in self.starts:
                    seen = self.cut(image, row, column)
                    if self.whole:  # a transformer takes one size: zero around the window
                        canvas = torch.zeros_like(self.pixels[0])
                        canvas[:, row : row + self.patch, column : column + self.patch] = seen
                        seen = canvas
                    places.append((image, row, column))
                    found.append(self.reading(seen[None]).tolist())
        return places, found

    def extremes(self, unit, sign):
        """The k windows of the largest sign * response; of equal ones the first."""
        order = sorted(range(len(self.places)), key=lambda window: (-sign * self.found[window][unit], window))
        return [self.places[window] for window in order[: self.k]]

    def run(self, draws, units):
        """unit to (condition to responses, t, p, highest, lowest, top images)."""
        self.places, self.found = self.window_responses()
        own = [self.reading(image[None]).tolist() for image in self.pixels]
        result = {}
        for slot, unit in enumerate(units):
            order = sorted(range(len(own)), key=lambda image: (-own[image][unit], image))
            top = order[: self.count]
            random = [(draws.image[slot][i], *draws.corner[slot][i].tolist()) for i in range(self.k)]
            kinds = {"highest": self.extremes(unit, 1), "random": random, "lowest": self.extremes(unit, -1)}
            values = {"top images": [own[image][unit] for image in top]}
            values["random images"] = [own[image][unit] for image in draws.random_images[slot]]
            for kind, patches in kinds.items():
                values[f"top + {kind}"] = []
                for row, image in enumerate(top):
                    pasted = self.pixels[image].clone()
                    corner = draws.place[kind][slot][row]
                    down, right = (0, 0, self.far, self.far)[corner], (0, self.far, 0, self.far)[corner]
                    square = self.cut(*patches[draws.patch[kind][slot][row]])
                    pasted[:, down : down + self.patch, right : right + self.patch] = square
                    values[f"top + {kind}"].append(self.reading(pasted[None])[unit].item())
            t, p = self.t_test(values["top + lowest"], values["top + random"])
            result[unit] = (values, t, p, kinds["highest"], kinds["lowest"], top)
        return result

    @staticmethod
    def t_test(first, second):
        """Student's unpaired test with pooled variance, two-sided."""
        n, m = len(first), len(second)
        a, b = sum(first) / n, sum(second) / m
        squares = sum((x - a) ** 2 for x in first) + sum((x - b) ** 2 for x in second)
        t = (a - b) / (squares / (n + m - 2) * (1 / n + 1 / m)) ** 0.5
        return t, 2 * stats.t.sf(abs(t), n + m - 2)


def mean_of_maps(network):
    layers = copy.deepcopy(network).double()[:3]
    return lambda image: layers(image).detach().mean(dim=(2, 3))[0]


def lowest_token(network):
    network = copy.deepcopy(network).double()
    kept = {}
    network.encoder.layers.encoder_layer_1.mlp[3].register_forward_hook(lambda *of: kept.update(out=of[2]))

    def read(image):
        with torch.no_grad():
            network(image)
        return kept["out"][0].amin(dim=0)  # [token, channel]: the class token is among the tokens

    return read


@pytest.mark.parametrize("kind", ["convolutions", "transformer"])
def test_same_selections_and_same_test_as_the_slow_account(kind):
    pixels = pictures()
    images = stack_images(TensorImages(pixels, torch.zeros(26).long(), ["all"]))
    if kind == "convolutions":
        network, layer, setting, reading = convolutions(), "2", SETTING, mean_of_maps
    else:
        network, layer = transformer(), "encoder.layers.encoder_layer_1.mlp.3"
        setting, reading = replace(SETTING, pool="min", stride=6), lowest_token
    units = [4, 0, 3]
    book = mine_patches(network, layer, images, setting.patch, setting.stride, setting.k, setting.pool)
    found = published_protocol(network, layer, images, book, setting, units=units)
    sizes = {"patch": setting.patch, "stride": setting.stride, "k": setting.k, "top": setting.images}
    slow = SlowAccount(pixels, reading(network), whole=kind == "transformer", **sizes)
    expected = slow.run(found.draws, units)
    for unit in units:
        values, t, p, highest, lowest, top = expected[unit]
        for side, places in (("highest", highest), ("lowest", lowest)):
            kept = getattr(book, side)
            boxes = zip(kept.image[unit].tolist(), kept.box[unit, :, :2].tolist(), strict=True)
            assert [(image, *corner) for image, corner in boxes] == places
        rows = found.inputs[found.inputs.unit == unit]
        assert rows[rows.condition == "lowest"].sort_values("row").image.tolist() == top
        table = found.responses[found.responses.unit == unit].set_index("condition")
        for condition, numbers in values.items():
            assert table["mean"][condition] == pytest.approx(np.mean(numbers), abs=1e-5)
            assert table["sd"][condition] == pytest.approx(np.std(numbers, ddof=1), rel=1e-3)
            assert table.n[condition] == 14
        (test,) = found.tests[found.tests.unit == unit].itertuples()
        assert (test.t, test.p) == pytest.approx((t, p), rel=2e-3)
        assert (test.significant, test.lower) == (p <= 0.05, p <= 0.05 and t < 0)


# ---------------------------------------------------------------------- draws
@pytest.fixture(scope="module")
def draws():
    return draw_published(replace(SETTING, images=400, k=8), np.arange(60), 500, (24, 32))


def test_random_patches_leave_out_the_last_row_and_column_of_windows(draws):
    """24 x 32 px, patches of 12 px in steps of 4: windows from 0 to 12 down and 0 to 20 across."""
    assert sorted(set(draws.corner[..., 0].ravel())) == [0, 4, 8]
    assert sorted(set(draws.corner[..., 1].ravel())) == [0, 4, 8, 12, 16]


def test_each_unit_and_each_condition_draws_anew(draws):
    assert len({tuple(row) for row in draws.image}) == 60
    for drawn, choices in ((draws.patch, 8), (draws.place, 4)):
        for kind in PASTED:
            shares = np.bincount(drawn[kind].ravel(), minlength=choices) / drawn[kind].size
            np.testing.assert_allclose(shares, 1 / choices, atol=0.01)
        for one, other in (("lowest", "random"), ("lowest", "highest")):
            same = (drawn[one] == drawn[other]).mean()
            assert same == pytest.approx(1 / choices, abs=0.02)
    assert all(len(set(row)) == 400 for row in draws.random_images)
    assert len({tuple(row) for row in draws.random_images}) == 60


def test_what_a_unit_draws_does_not_depend_on_the_others(draws):
    alone = draw_published(replace(SETTING, images=400, k=8), np.array([7, 3]), 500, (24, 32))
    np.testing.assert_array_equal(alone.image, draws.image[[7, 3]])
    np.testing.assert_array_equal(alone.patch["lowest"], draws.patch["lowest"][[7, 3]])
    other = draw_published(replace(SETTING, images=400, k=8, seed=6), np.array([7]), 500, (24, 32))
    assert (other.image != draws.image[7]).any()


def test_draws_that_are_handed_in_are_used():
    images, network = stack_images(TensorImages(pictures(), torch.zeros(26).long(), ["all"])), convolutions()
    book = mine_patches(network, "2", images, 12, 4, 3)
    first = published_protocol(network, "2", images, book, SETTING, units=[1, 2])
    seed = replace(SETTING, seed=77)
    again = published_protocol(network, "2", images, book, seed, units=[1, 2], draws=first.draws)
    other = published_protocol(network, "2", images, book, seed, units=[1, 2])
    pd.testing.assert_frame_equal(first.tests, again.tests)
    assert (first.tests.t != other.tests.t).all()


# ---------------------------------------------------------------------- the table
def made_up(means, p=(0.01, 0.04, 0.2, 0.05), t=(-3, 2.2, -1, -2)):
    rows = [
        {"unit": unit, "condition": name, "mean": mean + place, "sd": 1 + mean / 10, "n": 100}
        for unit, mean in enumerate(means)
        for place, name in enumerate(PUBLISHED)
    ]
    tests = pd.DataFrame({"unit": range(4), "t": t, "p": p, "absence": [0.5, -0.5, 0.1, 0.3]})
    tests["significant"] = tests.p <= 0.05
    tests["lower"] = tests.significant & (tests.t < 0)
    return Published(pd.DataFrame(rows), tests, None, None)


def test_summary_by_hand():
    both = [made_up([1, 2, 3, 6]).table(), made_up([5, 6, 7, 10]).table()]
    assert both[1]["mean, top + lowest"].tolist() == [9, 10, 11, 14] and both[0].lower.tolist() == [
        1,
        0,
        0,
        1,
    ]
    table = published_summary(pd.concat(both), draws=500)
    assert table.value["mean, top images"] == 5 and table.value["mean, top + lowest"] == 9
    assert table.value["sd, random images"] == pytest.approx(1.5)  # mean over units of the sd over images
    assert table.value["absence"] == pytest.approx(0.1)
    assert (table.value["significant"], table.value["lower"]) == (0.75, 0.5)
    assert (table.low <= table.value).all() and (table.value <= table.high).all()
    low, high = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert (table.low["significant"], table.high["significant"]) == (low, high)
    few = published_summary(both[0][:2])
    assert few[["low", "high"]].loc["absence"].isna().all() and few.low["lower"] < 0.5 < few.high["lower"]
    spread = np.std([1, 2, 3, 6, 5, 6, 7, 10]) / 8**0.5
    assert table.high["mean, top images"] - 5 == pytest.approx(1.96 * spread, rel=0.2)


def test_a_study_asks_as_published_and_all_pairs_where_that_is_asked():
    torch.manual_seed(0)
    images = stack_images(TensorImages(pictures(60), torch.zeros(60).long(), ["all"]))
    setting = InsertionConfig(12, 4, 3, 6, "one")
    how = {"units": [1, 4], "redraws": 1, "top_share": 0.4, "control_units": 0}
    wide = replace(setting, pairs="all", images=10)
    study = insertion_study(convolutions(), "2", images, setting, all_pairs=wide, **how)
    counts = [
        each.inputs.groupby(["unit", "condition"], observed=True).size()
        for each in (study.published, study.all_pairs)
    ]
    assert (counts[0] == 6).all() and (counts[1] == 30).all()
    assert study.published.draws.image.shape == (2, 3) and study.all_pairs.draws is None
    assert study.published.responses.n.eq(6).all()
    random = study.all_pairs.inputs[study.all_pairs.inputs.condition == "random"]
    assert random.patch.nunique() == 3  # shared by the units
    own = study.published.inputs[study.published.inputs.condition == "random"].groupby("unit").patch.unique()
    assert not set(own[1]) & set(own[4])
    assert insertion_study(convolutions(), "2", images, setting, **how).all_pairs is None


# ---------------------------------------------------------------------- what is refused
def test_refusals():
    images = stack_images(TensorImages(pictures(), torch.zeros(26).long(), ["all"]))
    network = convolutions()
    book = mine_patches(network, "2", images, 12, 4, 3)
    with pytest.raises(InputError, match="pairs.*'one'.*one_random"):
        published_protocol(network, "2", images, book, replace(SETTING, pairs="one"))
    with pytest.raises(InputError, match="pairs.*'one_random'"):
        insertion_study(network, "2", images, SETTING)
    with pytest.raises(InputError, match="stride.*one row or column.*at most 12"):
        draw_published(replace(SETTING, stride=13), np.arange(2), 5, (24, 30))
