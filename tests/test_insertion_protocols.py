"""Both protocols on networks whose answer is known, scores by hand, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from absence_utils import InputError, insert_patches, insertion_study, load_model, mine_patches, responses
from absence_utils.images.base import TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import RULES, scene_dataset
from absence_utils.images.subsets import shuffle_images
from absence_utils.insertion.comparison import verdicts
from absence_utils.insertion.design import NO_IMAGE, InsertionConfig, Treatment, as_array, plan
from absence_utils.insertion.execution import BLANK_IMAGE
from absence_utils.insertion.known_units import SyntheticUnits
from absence_utils.insertion.paste import LOCATIONS
from absence_utils.insertion.protocols import controlled_protocol, split_in_thirds
from absence_utils.insertion.published import PUBLISHED, published_protocol
from absence_utils.insertion.scores import ABSENCES, MIN_EFFECT, calibrate, score_table, select_score
from absence_utils.stats import crossed_t_interval, fdr_adjust

SETTING = InsertionConfig(patch=12, stride=4, k=4, images=12)


def blobs(n=240, size=36, seed=0):
    """Images of smooth coloured noise whose contrast varies from place to place."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(n, 3, size, size, generator=generator)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    pixels = nn.functional.avg_pool2d(fine, 3, 1, 1) * 3 * nn.functional.interpolate(coarse, size=size)
    return stack_images(TensorImages(pixels, torch.zeros(n).long(), ["all"]))


@pytest.fixture(scope="module")
def images():
    return blobs()


@pytest.fixture(scope="module")
def studies():
    """24 additive and 24 veto units, read as they come."""
    images = blobs(900)
    sample, setting = images.take(range(100)), replace(SETTING, k=8, images=50)
    options = {"redraws": 3, "feather": 2, "top_share": 0.2}
    return {
        rule: insertion_study(SyntheticUnits(sample, 24, rule, seed=4), None, images, setting, **options)
        for rule in ("additive", "veto")
    }


# ---------------------------------------------------------------------- what the tests say of known units
@pytest.mark.slow
def test_published_test_cannot_say_no_and_the_veto_can(studies):
    table = verdicts(studies).groupby("network")[["published", "suppressed", "vetoed"]].mean()
    assert table.loc["additive", "published"] > 0.95
    assert table.loc["additive", "vetoed"] < 0.07
    assert table.loc["veto", "vetoed"] > 0.9
    assert (
        table.loc["additive", "suppressed"] > 0.5
    )  # so the sign of the absence score decides nothing either


@pytest.mark.slow
def test_veto_of_a_linear_unit_is_zero_however_its_patches_were_selected(images):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.Identity())
    study = insertion_study(network, "0", images, SETTING, redraws=2, top_share=0.2)
    scores = study.fair.scores
    absence, veto = (
        select_score(scores, *names) for names in (("absence", "random patch"), ("veto", "median images"))
    )
    assert absence.value.min() > 0.2 and veto.value.abs().max() < 1e-4
    assert select_score(scores, "veto", "blank image").value.abs().max() < 1e-4
    assert (veto.q_least == 1).all() and (study.published.tests.significant).all()


@pytest.mark.slow
def test_scenes_network_vetoes_what_was_planted():
    """Logits: absences where the rules ask for them, none for "triangle or bars" and "checker"."""
    dataset = shuffle_images(scene_dataset(450, 0))
    study = insertion_study(
        load_model("concept_scenes"), "logits", dataset, InsertionConfig(24, 8, 8, 12), redraws=3, feather=4
    )
    absent = np.array([bool(rule.absent) for rule in RULES.values()])
    absence = select_score(study.fair.scores, "absence", "random patch")
    veto = select_score(study.fair.scores, "veto", "median images")
    assert absence.value[absent].min() > 1 > 0.3 > absence.value[~absent].max()
    assert ((veto.q_least < 0.05) & (veto.value > 0)).tolist() == absent.tolist()
    assert np.isnan(study.fair.units.beyond).all()  # a logit has no map


# ---------------------------------------------------------------------- the plan
@pytest.mark.slow
def test_clean_selection(studies):
    """Patches, the meaning of top, and effects come from three disjoint thirds; top images are top, neutral median."""
    study, images = studies["veto"], blobs(900)
    book, chosen, measured = split_in_thirds(len(images))
    assert study.clean_book.covered == ((book.start, book.stop),) and study.book.covered == (
        (0, len(images)),
    )
    responses_of = responses(
        SyntheticUnits(images.take(range(100)), 24, "veto", seed=4), None, images.take(range(900))
    )
    inputs = study.fair.inputs
    for unit in range(5):
        own = responses_of[:, unit].numpy()
        level = np.quantile(own[list(chosen)], [0.4, 0.6, 0.8])
        of = inputs[inputs.unit == unit]
        for group, low, high in (("top", level[2], np.inf), ("neutral", level[0], level[1])):
            used = of[of.group == group].image.unique()
            fits = [i for i in measured if low <= own[i] <= high]
            assert set(used) <= set(fits) and len(used) == min(50, len(fits))
        assert (of[of.group == "blank"].image == BLANK_IMAGE).all()


@pytest.mark.slow
def test_every_condition_is_what_it_says(studies):
    """Responses of the fair protocol from images made by hand, one of each condition and group."""
    study, images = studies["veto"], blobs(900)
    network = SyntheticUnits(images.take(range(100)), 24, "veto", seed=4)
    book, inputs = study.clean_book, study.fair.inputs
    own = [responses(network, None, images.take([i]))[0].numpy() for i in split_in_thirds(900)[2]]
    np.testing.assert_allclose(study.fair.units.sd, np.std(own, axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(study.fair.units["mean"], np.mean(own, axis=0), atol=1e-4)
    seen = set()
    for (group, condition), rows in inputs.groupby(["group", "condition"], observed=True):
        row = rows[rows.unit == 7].iloc[5]
        base = torch.zeros(1, 3, 36, 36) if group == "blank" else images.take([row.image])
        kind = condition.partition(",")[0]
        patch = torch.zeros(3, 12, 12) if kind == "mean colour" else study.fair.bank.pixels[max(row.patch, 0)]
        if kind in ("lowest", "highest"):
            side = getattr(book, kind)
            source, (top, left) = side.image[7, row.column].item(), side.box[7, row.column, :2].tolist()
            patch = images.take([source])[0, :, top : top + 12, left : left + 12]
        if kind == "scrambled":
            lowest = book.lowest.image[7, row.column].item(), book.lowest.box[7, row.column, :2].tolist()
            whole = images.take([lowest[0]])[0]
            cut = whole[:, lowest[1][0] : lowest[1][0] + 12, lowest[1][1] : lowest[1][1] + 12]
            power = [torch.fft.fft2(each.double()).abs() for each in (cut, patch)]
            torch.testing.assert_close(*power, rtol=0, atol=1e-4)
        image = base if kind in ("untouched", "own patch") else insert_patches(
            base, patch, LOCATIONS[row.place], feather=2 if "soft" in condition else 0)  # fmt: skip
        assert row.response == pytest.approx(responses(network, None, image)[0, 7].item(), abs=1e-4), (
            condition
        )
        seen.add((group, condition))
    assert len(seen) == 15
    assert (select_score(study.fair.scores, "check", "own patch pasted back").value == 0).all()


@pytest.mark.slow
def test_smallest_effect_that_counts(studies):
    """q_least asks whether a score is beyond MIN_EFFECT, and is adjusted over units."""
    inputs, spread = studies["veto"].fair.inputs, studies["veto"].fair.units.sd.to_numpy()
    top, neutral = (
        (as_array(inputs, group, "random", (24, 50, 8)) - as_array(inputs, group, "lowest", (24, 50, 8)))
        / spread[:, None, None]
        for group in ("top", "neutral")
    )
    expected = fdr_adjust(crossed_t_interval(top, neutral, least=MIN_EFFECT).p)
    veto = select_score(studies["veto"].fair.scores, "veto", "median images")
    np.testing.assert_allclose(veto.q_least, expected, rtol=1e-6)
    assert (veto.q_least >= veto.q).all() and (veto.q_least > veto.q).any()


@pytest.mark.slow
def test_paired_by_image_place_and_order(studies):
    inputs = studies["veto"].fair.inputs
    at = {}
    for name, rows in inputs.groupby(["group", "condition"], observed=True):
        rows = rows[rows.draw == 0].set_index(["unit", "row", "column"]).sort_index()
        at[name] = rows[["image", "place"]]
    for group, treated, control in ABSENCES.values():
        pd.testing.assert_frame_equal(at[group, treated], at[group, control])
    common = at["top", "lowest"].join(at["neutral", "lowest"].add_suffix("_neutral"), how="inner")
    assert len(common) > 500 and (common.place == common.place_neutral).all()
    corners = at["top", "lowest"].place.groupby("column").nunique()
    assert (corners == 1).all() and sorted(at["top", "lowest"].place.unique()) == [0, 1, 2, 3]
    assert (at["top", "lowest, centre"].place == LOCATIONS.index("centre")).all()
    draws = inputs[(inputs.group == "top") & (inputs.condition == "random")]
    assert draws.groupby(["unit", "row", "column"]).size().eq(3).all()
    assert draws.patch.nunique() > 15  # redrawn


@pytest.mark.slow
def test_published_table_by_hand(images):
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 3, 5), nn.ReLU(), nn.Conv2d(3, 4, 3))
    setting = replace(SETTING, images=10, k=3)
    book = mine_patches(network, "2", images, 12, 4, 3)
    result = published_protocol(network, "2", images, book, setting, units=[2, 0])
    with torch.no_grad():
        whole = responses(network, "2", images.take(range(240))).double()
    for unit in (2, 0):
        top = whole[:, unit].argsort(descending=True, stable=True)[:10]
        found = {"top images": whole[top, unit].tolist(), "random images": whole[:, unit].tolist()}
        rows = result.inputs[result.inputs.unit == unit]
        assert rows.groupby("condition", observed=True).size().tolist() == [30, 30, 30]
        for kind in ("highest", "random", "lowest"):
            values = []
            for row in rows[rows.condition == kind].itertuples():
                assert row.image == top[row.row]
                if kind != "random":
                    side = getattr(book, kind)
                    source, box = side.image[unit, row.column].item(), side.box[unit, row.column].tolist()
                    patch = images.take([source])[0, :, box[0] : box[0] + 12, box[1] : box[1] + 12]
                    image = insert_patches(images.take([row.image]), patch, [row.place])
                    with torch.no_grad():
                        assert row.response == pytest.approx(
                            responses(network, "2", image)[0, unit].item(), abs=1e-5
                        )
                values.append(row.response)
            found[f"top + {kind}"] = values
        table = result.responses[result.responses.unit == unit].set_index("condition")
        assert table.index.tolist() == list(PUBLISHED)
        for condition, values in found.items():
            assert table.loc[condition, "mean"] == pytest.approx(np.mean(values), abs=1e-5)
            assert table.loc[condition, "sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        t, p = stats.ttest_ind(found["top + lowest"], found["top + random"])
        (row,) = result.tests[result.tests.unit == unit].itertuples()
        assert (row.t, row.p) == pytest.approx((t, p), rel=1e-4) and row.lower == (p <= 0.05 and t < 0)
    assert set(result.inputs.place) == {0, 1, 2, 3}


@pytest.mark.slow
def test_one_pair_an_image_costs_a_kth_and_agrees(images):
    network = SyntheticUnits(images.take(range(100)), 6, "veto", seed=3)
    both = {
        pairs: insertion_study(
            network, None, images, replace(SETTING, pairs=pairs), redraws=3, top_share=0.2, control_units=2
        )
        for pairs in ("all", "one")
    }
    sizes = {pairs: len(study.fair.inputs[lambda of: of.group == "top"]) for pairs, study in both.items()}
    assert sizes["all"] == 4 * sizes["one"]
    values = [select_score(study.fair.scores, "absence", "random patch").value for study in both.values()]
    assert np.corrcoef(*values)[0, 1] > 0.8
    scores = both["one"].fair.scores
    assert (
        select_score(scores, "absence", "centre").value.notna().sum() == 2
    )  # only the units drawn for these controls
    assert select_score(scores, "absence", "mean colour").value.notna().all()


@pytest.mark.slow
def test_same_seed_same_study(images):
    network = SyntheticUnits(images.take(range(100)), 3, "veto", seed=3)
    one, same = (insertion_study(network, None, images, SETTING, redraws=2, top_share=0.2) for _ in range(2))
    other = insertion_study(network, None, images, replace(SETTING, seed=1), redraws=2, top_share=0.2)
    pd.testing.assert_frame_equal(one.fair.scores, same.fair.scores)
    assert (one.fair.scores.value - other.fair.scores.value).abs().max() > 1e-3


# ---------------------------------------------------------------------- scores
def made_up(sign=1.0, seed=0, slots=3, rows=6, columns=4):
    """Requests with made-up responses, top images drop by 2 with lowest patches and neutral ones by 0.5."""
    groups = {name: np.arange(slots * rows).reshape(slots, rows) for name in ("top", "neutral")}
    groups["blank"] = np.full((slots, 1), BLANK_IMAGE)
    conditions = {(group, name) for group, *pair in ABSENCES.values() for name in pair}
    conditions |= {("top", "highest"), ("top", "untouched"), ("blank", "lowest"), ("blank", "random")}
    nothing, corners = np.zeros((1, 1, columns), int), np.zeros(columns, int)
    treatments = [Treatment(*names, nothing, corners) for names in sorted(conditions)]
    table = plan(groups, treatments, np.arange(slots), np.ones((rows, columns), bool))
    change = {"lowest": -2.0, "highest": 1.0, "lowest, soft": -1.5, "lowest, centre": -3.0, "own patch": 0.7}
    effect = table.condition.astype(str).map(change).fillna(0.0)
    effect = effect.where(table.group != "neutral", effect / 4).where(table.group != "blank", 0.0)
    noise = np.random.default_rng(seed).normal(0, 0.05, len(table))
    return table.assign(response=sign * (effect + noise + 10), beside=sign * effect / 4, beyond=np.nan)


def test_scores_by_hand():
    scores, about = score_table(made_up(), np.array([5, 6, 7]), np.array([2.0, 2.0, 4.0]), (6, 4))
    expected = {
        ("absence", "random patch"): 2.0,
        ("absence", "own patch"): 2.7,
        ("absence", "soft edges"): 1.5,
        ("absence", "centre"): 3.0,
        ("absence", "median images"): 0.5,
        ("absence", "blank image"): 0.0,
        ("presence", "random patch"): 1.0,
        ("veto", "median images"): 1.5,
        ("veto", "blank image"): 2.0,
        ("check", "own patch pasted back"): -0.7,
    }
    for names, drop in expected.items():
        rows = select_score(scores, *names)
        assert rows.index.tolist() == [5, 6, 7]
        np.testing.assert_allclose(rows.value * [2, 2, 4], drop, atol=0.1)
        assert ((rows.low <= rows.value) & (rows.value <= rows.high)).all()
    np.testing.assert_allclose(about["index"], 2 / 3, atol=0.03)
    np.testing.assert_allclose(about.beside, 0.25, atol=0.03)
    assert about.beyond.isna().all()


def test_scores_turn_with_the_sign_of_the_response():
    """A unit read upside down must not look the same: the failure of every unsigned measure."""
    one, turned = (score_table(made_up(sign), np.arange(3), np.ones(3), (6, 4))[0] for sign in (1, -1))
    np.testing.assert_allclose(one.value, -turned.value, atol=1e-9)
    np.testing.assert_allclose(one.p, turned.p)


def test_a_unit_that_never_changes_has_no_score():
    scores, _ = score_table(made_up(), np.arange(3), np.array([1.0, 0.0, 1.0]), (6, 4))
    assert np.isnan(select_score(scores, "absence", "random patch").value[1])
    assert np.isfinite(select_score(scores, "absence", "random patch").q[[0, 2]]).all()


def test_calibration_against_the_null():
    scores, _ = score_table(made_up(), np.arange(3), np.ones(3), (6, 4))
    null = scores.assign(value=scores.value - 10)
    assert (calibrate(scores, null).percentile == 100).all()
    assert (calibrate(null, scores).percentile == 0).all()
    own = calibrate(scores, scores)
    assert sorted(select_score(own, "veto", "median images").percentile.round(1)) == [16.7, 50.0, 83.3]


def test_missing_images_are_not_asked_for():
    groups = {"top": np.array([[3, NO_IMAGE], [4, 5]])}
    table = plan(groups, [Treatment("top", "lowest", np.ones((2, 1, 3), int), np.arange(3))], np.array([7, 8]),
                 np.ones((2, 3), bool))  # fmt: skip
    assert len(table) == 2 * 3 * 3 and set(table[table.unit == 7].image) == {3}
    values = as_array(table.assign(response=table.column * 1.0), "top", "lowest", (2, 2, 3))
    assert values[0, 0].tolist() == [0, 1, 2] and np.isnan(values[0, 1]).all()


# ---------------------------------------------------------------------- what is refused
@pytest.fixture(scope="module")
def small(images):
    network = nn.Conv2d(3, 3, 5)
    net = nn.Sequential(network)
    return net, mine_patches(net, "0", images, 12, 4, 4, part=range(80))


@pytest.mark.parametrize(
    ("chosen", "measured", "options", "message"),
    [
        (range(70, 160), range(160, 240), {}, "splits.*10 images are in the book and in chosen_on.*70"),
        (range(80, 160), range(150, 240), {}, "splits.*chosen_on and in measured_on"),
        (range(80, 160), range(160, 260), {}, "splits.*beyond the images"),
        (range(80, 80), range(160, 240), {}, "splits.*empty"),
        (range(80, 160), range(160, 240), {"top_share": 0.1}, "images.*12 for each unit.*about 8"),
        (range(80, 160), range(160, 240), {"top_share": 0.7}, "images.*at most 0.5"),
        (range(80, 160), range(160, 240), {"units": [0, 3]}, "units.*0 to 2"),
        (range(80, 160), range(160, 240), {"units": [1, 1]}, "units.*once"),
        (range(80, 160), range(160, 240), {"redraws": 0}, "redraws"),
        (range(80, 160), range(160, 240), {"redraws": 65}, "redraws.*260 random patches.*256"),
        (range(80, 160), range(160, 240), {"control_units": -1}, "control_units"),
        (range(80, 160), range(160, 240), {"feather": 7}, "feather.*0 to 6"),
    ],
)
def test_bad_input_of_the_fair_protocol(images, small, chosen, measured, options, message):
    options = {"top_share": 0.2, "redraws": 1} | options
    with pytest.raises(InputError, match=message):
        controlled_protocol(small[0], "0", images, small[1], chosen, measured, SETTING, **options)


def test_bad_settings(images, small):
    for bad, message in [
        ({"pairs": "some"}, "pairs.*all, one"),
        ({"k": 1}, "k.*2 or more"),
        ({"images": 1}, "images.*Use 2"),
        ({"images": 7, "pairs": "one"}, "images.*Use 8"),
    ]:
        with pytest.raises(InputError, match=message):
            replace(SETTING, **bad)
    with pytest.raises(InputError, match="images.*300 of 240"):
        published_protocol(small[0], "0", images, small[1], replace(SETTING, images=300))
    with pytest.raises(InputError, match="stride.*4 in the book, 6"):
        published_protocol(small[0], "0", images, small[1], replace(SETTING, stride=6))
    with pytest.raises(InputError, match="book.*other images"):
        published_protocol(small[0], "0", blobs(seed=1), small[1], SETTING)
    with pytest.raises(InputError, match="patch.*larger"):
        insertion_study(small[0], "0", images, replace(SETTING, patch=40), top_share=0.2)
    with pytest.raises(InputError, match="k.*240 patches of 300"):
        book = replace(SETTING, k=300, patch=36, stride=36)
        insertion_study(small[0], "0", stack_images(shuffle_images(images)), book, top_share=0.2)
    with pytest.raises(InputError, match="three sets"):
        split_in_thirds(5)


def test_every_draw_follows_the_seed_and_has_its_own_purpose():
    one, same, other = (InsertionConfig(seed=seed, k=12) for seed in (0, 0, 5))
    draws = [setting.generator(purpose).random() for setting in (one, other) for purpose in range(5)]
    assert len(set(draws)) == 10 and one.generator(3).random() == same.generator(3).random()
    assert (one.corners == same.corners).all() and (one.corners != other.corners).any()
    assert np.bincount(one.corners).tolist() == [3, 3, 3, 3]
