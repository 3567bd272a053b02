"""What the protocols say of several networks, typical pictures, and ways of pooling."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from absence_utils import InputError, insertion_study
from absence_utils.images.base import Normalisation, TensorImages
from absence_utils.images.cache import stack_images
from absence_utils.insertion.comparison import (
    PLANTED,
    _with_hosts,
    compare_networks,
    compare_scores,
    control_table,
    decide_layer,
    decide_networks,
    describe_verdicts,
    verdicts,
)
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.examples import EXAMPLES, example_pictures, typical_pairs
from absence_utils.insertion.pooling import pooling_table
from absence_utils.insertion.published import Published
from absence_utils.insertion.scores import MAIN_CONTROL, select_score

SETTING = InsertionConfig(patch=8, stride=4, k=3, images=5)
NORMALISATION = Normalisation((0.4,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def images():
    pixels = torch.rand(90, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(90).long()
    return stack_images(
        TensorImages(NORMALISATION.apply(pixels), labels, ["all"], normalisation=NORMALISATION)
    )


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def studies(images):
    options = {"null_units": 3, "known_scenes": 120, "redraws": 2, "top_share": 0.2, "feather": 1}
    return compare_networks(
        network(0),
        network(1),
        "3",
        images,
        SETTING,
        units=[4, 1, 3, 5],
        control_units=1,
        all_pairs=SETTING,
        **options,
    )


def test_networks_that_are_compared(studies):
    names = ["this network", "random weights", "additive units", "veto units", "scenes rules"]
    assert list(studies) == names
    units = [study.fair.units.unit.tolist() for study in studies.values()]
    assert units == [[4, 1, 3, 5], [4, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert PLANTED.tolist() == [True, True, False, True, False]
    books = [study.book.network for study in studies.values()]
    assert len(set(books)) == 4  # additive and veto units have the same filters
    responses = [studies[name].book.lowest.response for name in names[2:4]]
    assert not torch.equal(*responses)
    controls = select_score(studies["this network"].fair.scores, "absence", "phase-scrambled")
    assert controls.value.notna().sum() == 1


def test_verdicts_by_hand(studies):
    table = verdicts(studies)
    assert len(table) == 4 + 3 + 3 + 3 + 5
    for name, study in studies.items():
        for row in table[table.network == name].itertuples():
            absence = select_score(study.fair.scores, "absence", MAIN_CONTROL).loc[row.unit]
            veto = select_score(study.fair.scores, "veto", "median images").loc[row.unit]
            (test,) = study.published.tests[study.published.tests.unit == row.unit].itertuples()
            (pairs,) = study.all_pairs.tests[study.all_pairs.tests.unit == row.unit].itertuples()
            suppressed = absence.value > 0 and absence.q < 0.05
            assert (row.published, row.absence, row.veto) == (test.significant, absence.value, veto.value)
            assert (row.published_lower, row.all_pairs_lower) == (test.lower, pairs.lower)
            assert row.suppressed == suppressed
            assert row.vetoed == (veto.value > 0 and veto.q_least < 0.05)
    alone = verdicts({"this network": replace(studies["this network"], all_pairs=None)})
    assert alone.all_pairs_lower.isna().all() and len(alone) == 4


def test_verdicts_in_sentences_have_their_numbers():
    rows = [(name, unit, unit < many, lower, score, vetoed)
            for name, many, lower, score, vetoed in (
                ("this network", 3, 1.0, 1.25, False), ("random weights", 2, 1.0, 0.5, False),
                ("additive units", 1, 0.0, 0.125, False), ("veto units", 4, 1.0, 2.0, True),
            ) for unit in range(4)]  # fmt: skip
    rows += [("scenes rules", unit, True, 1.0, 1.0, unit in (0, 2)) for unit in range(5)]
    columns = ["network", "unit", "published", "all_pairs_lower", "absence", "vetoed"]
    table = pd.DataFrame(rows, columns=columns).astype({"published": float})
    said = describe_verdicts(table, None)
    assert "significant in 75% [" in said and "of the units of the output, in 50% [" in said
    assert "in 25% [" in said and "with every patch in every image 0%)" in said
    assert "1.25 sd on average (random weights 0.50, additive units 0.12)" in said
    assert "in 0% of units (random weights 0%, additive 0%, built as a veto 100%)" in said
    assert "in 1 of 3 scenes rules with an absence" in said and said.endswith("and 1 of 2 without.")
    unasked = describe_verdicts(table.assign(all_pairs_lower=np.nan), "block4")
    assert "every patch" not in unasked and "units of block4" in unasked


def test_scores_stand_beside_what_is_known_of_their_unit_and_of_random_weights(studies):
    study, null = studies["this network"], studies["random weights"]
    table, limit = compare_scores(study, null)
    random = select_score(null.fair.scores, "absence", MAIN_CONTROL).value
    assert limit == pytest.approx(np.quantile(random, 0.95))
    pd.testing.assert_series_equal(table["value"], study.fair.scores["value"])
    one = table[(table.unit == 3) & (table.score == "absence") & (table.condition == MAIN_CONTROL)].iloc[0]
    assert one.percentile == pytest.approx(100 * (random < one.value).mean(), abs=1)
    tests = study.all_pairs.tests.set_index("unit")
    assert one.dipped == tests.absence[3] and one.sd == study.fair.units.set_index("unit").sd[3]
    alone, _ = compare_scores(replace(study, all_pairs=None), null)
    assert alone.dipped[0] == study.published.tests.set_index("unit").absence[alone.unit[0]]


def test_controls_are_counted_over_the_units_that_got_them():
    rows = [
        (unit, "absence", condition, value, value - 0.5)
        for condition, values in (
            ("own patch", (1.0, 0.25)),
            ("random patch", (3.0, 2.0)),
            ("centre", (4.0, np.nan)),
        )
        for unit, value in enumerate(values)
    ]
    rows += [(0, "veto", "median images", 9.0, 8.0), (0, "absence", "blank image", 9.0, 8.0)]
    found = control_table(pd.DataFrame(rows, columns=["unit", "score", "condition", "value", "low"]))
    assert found.to_numpy().tolist() == [
        ["random patch", 2, 2.5, 2.0, 3.0, 2],
        ["own patch", 2, 0.625, 0.25, 1.0, 1],
        ["centre", 1, 4.0, 4.0, 4.0, 1],
    ]
    assert list(found) == ["control", "units", "median", "smallest", "largest", "above 0"]


def test_the_published_table_has_both_designs(studies):
    study = studies["this network"]
    table = study.published_table()
    assert table.design.value_counts().to_dict() == {
        "published": 20,
        "all pairs": 20,
    }  # four units, five conditions
    row = table[(table.design == "all pairs") & (table.unit == 3) & (table.condition == "top + lowest")].iloc[
        0
    ]
    responses = study.all_pairs.responses
    same = responses[(responses.unit == 3) & (responses.condition == "top + lowest")].iloc[0]
    assert (row["mean"], row.t) == (same["mean"], study.all_pairs.tests.set_index("unit").t[3])
    assert set(replace(study, all_pairs=None).published_table().design) == {"published"}


def test_decisions_take_as_many_images_as_there_are_in_whole_rounds():
    setting = InsertionConfig(patch=8, stride=4, k=6, images=50, pairs="one")
    assert [_with_hosts(setting, count).images for count in (30, 47, 300)] == [18, 30, 48]


def test_context_is_asked_of_some_units_and_what_is_said_of_them_stays(images):
    setting = InsertionConfig(patch=8, stride=4, k=6, images=12, pairs="one")
    every = decide_layer(network(0), "3", images, setting, [4, 1, 3, 5])
    some = decide_layer(network(0), "3", images, setting, [4, 1, 3, 5], context_units=2)
    asked = some["found"].notna()
    assert some["unit"].tolist() == every["unit"].tolist() and some[asked]["unit"].nunique() == 2
    same = every.columns.drop(["q", "found"])  # corrected for the units asked
    pd.testing.assert_frame_equal(some.loc[asked, same], every.loc[asked, same])
    contexts = ["trigger", "on", "off", "context", "context_low", "context_high", "q", "ranks", "found"]
    assert some.loc[~asked, contexts].isna().all(axis=None) and every["found"].notna().all()
    decisions = every.columns.difference(contexts)
    pd.testing.assert_frame_equal(some[decisions], every[decisions])
    with pytest.raises(InputError, match="context_units.*0 or more"):
        decide_networks(network(0), network(1), "3", images, setting, context_units=-1)


def test_typical_pair_is_the_median_drop(studies):
    fair = studies["this network"].fair
    for unit, pair in typical_pairs(fair, [1, 5]).items():
        own = fair.inputs[(fair.inputs.unit == unit) & (fair.inputs.group == "top") & (fair.inputs.draw == 0)]
        wide = own.pivot(index=["row", "column"], columns="condition", values="response")
        drops = sorted(wide.random - wide.lowest)
        drop = pair.response["top: random"] - pair.response["top: lowest"]
        assert drop == drops[(len(drops) - 1) // 2]
        assert pair.loc[["top: lowest", "top: random", "top: untouched"], "image"].nunique() == 1
        assert pair.patch["neutral: lowest"] == pair.patch["top: lowest"]
        assert pair.place["neutral: lowest"] == pair.place["top: lowest"]
    with pytest.raises(InputError, match=r"units.*unit 0 was not studied.*\[4, 1, 3, 5\]"):
        typical_pairs(fair, [0])


def test_pictures_show_what_the_network_saw(studies, images):
    study = studies["this network"]
    pictures, table = example_pictures(study, images, [3], feather=1)
    pair, about = typical_pairs(study.fair, [3])[3], study.fair.units.set_index("unit").loc[3]
    assert list(pictures[3]) == list(EXAMPLES) == table.condition.tolist()
    whole = NORMALISATION.undo(images.take([int(pair.image["top: untouched"])]))[0]
    torch.testing.assert_close(pictures[3]["top: untouched"], whole)
    for row in table.itertuples():
        expected = (pair.response[row.condition] - about["mean"]) / about["sd"]
        assert row.response == pytest.approx(expected)
        if row.condition == "top: untouched":
            assert row.side == 0
            continue
        assert row.side == 8
        patch = study.fair.bank.pixels[int(pair.patch[row.condition])]
        shown = pictures[3][row.condition][:, row.top : row.top + 8, row.left : row.left + 8]
        torch.testing.assert_close(shown, NORMALISATION.undo(patch))


# ---------------------------------------------------------------------- pooling
class OneLowToken(nn.Module):
    """Unit 0 adds up; unit 1 answers the same but for one position that falls wherever a patch has an edge."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 3, bias=False)

    def forward(self, batch):
        return self.maps(batch)


@pytest.mark.slow
def test_pooling_table_follows_the_pooling_and_flags_what_only_the_minimum_makes(images):
    torch.manual_seed(0)
    model = OneLowToken()
    options, many = (
        {"units": [0, 1], "redraws": 3, "top_share": 0.2},
        InsertionConfig(8, 4, 6, 9, "one_random"),
    )
    setting = InsertionConfig(8, 4, 6, 6)
    table = pooling_table(model, "maps", images, setting, ["mean", "max", "min"], published=many, **options)
    assert table.pool.tolist() == ["mean", "mean", "max", "max", "min", "min"]
    done = {}
    for pool in ("mean", "min"):
        setting, asked = (replace(each, pool=pool) for each in (setting, many))
        study = insertion_study(model, "maps", images, setting, published=asked, control_units=0, **options)
        done[pool] = study
        assert study.published.responses.n.eq(9).all()
        absence = select_score(study.fair.scores, "absence", MAIN_CONTROL)
        rows = table[table.pool == pool]
        np.testing.assert_array_equal(rows.absence, absence.value)
        np.testing.assert_array_equal(rows.published, study.published.verdict([0, 1]))
        assert rows.suppressed.tolist() == ((absence.value > 0) & (absence.q_least < 0.05)).tolist()
    again = pooling_table(
        model, "maps", images, None, ["mean", "min"], units=[1], done=done
    )  # nothing is run
    expected = (
        table[(table.unit == 1) & (table.pool != "max")].drop(columns="only_min").reset_index(drop=True)
    )
    pd.testing.assert_frame_equal(again.drop(columns="only_min"), expected)
    wide = table.pivot(index="unit", columns="pool", values="suppressed")
    only = wide["min"] & ~wide["mean"] & ~wide["max"]
    flagged = table[table.only_min].unit.tolist()
    assert flagged == only[only].index.tolist() and set(table[table.only_min].pool) <= {"min"}


def test_flag_by_hand(monkeypatch, images):
    """Unit 0 is suppressed under the minimum alone, unit 1 under both, unit 2 under neither."""
    calls = iter([(0.01, 0.5, 0.0), (0.5, 0.6, 0.01)])

    class Fake:
        def __init__(self, values):
            rows = [(unit, "absence", MAIN_CONTROL, value, 0.001) for unit, value in enumerate(values)]
            rows += [(unit, "veto", "median images", 0.0, 1.0) for unit in range(3)]
            columns = ["unit", "score", "condition", "value", "q_least"]
            self.fair = type("F", (), {"scores": pd.DataFrame(rows, columns=columns)})
            self.fair.scores.loc[[i for i, v in enumerate(values) if v <= 0.05], "q_least"] = 0.9
            tests = pd.DataFrame({"unit": range(3), "significant": [True] * 3, "lower": [True] * 3})
            self.published = Published(None, tests, None, None)

    asked, many = [], replace(SETTING, pairs="one_random", images=9)

    def study(*given, published, **_):
        asked.append((given[3], published))
        return Fake(next(calls))

    monkeypatch.setattr("absence_utils.insertion.pooling.insertion_study", study)
    table = pooling_table(None, None, images, SETTING, ["mean", "min"], published=many, units=[0, 1, 2])
    assert asked == [(replace(SETTING, pool=pool), replace(many, pool=pool)) for pool in ("mean", "min")]
    assert table[table.only_min][["pool", "unit"]].values.tolist() == [["min", 0]]


@pytest.mark.slow
def test_transformer_tokens_pool_in_every_way(images):
    torch.manual_seed(0)
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    model = VisionTransformer(image_size=20, patch_size=4, **options).eval()
    table = pooling_table(
        model, "encoder.layers.encoder_layer_0", images, InsertionConfig(8, 12, 2, 4), ["mean", "cls", "max", "min"],
        units=[0, 1], redraws=1, top_share=0.4,
    )  # fmt: skip
    assert table.groupby("pool").absence.apply(lambda each: each.notna().all()).all()
    assert table.pivot(index="unit", columns="pool", values="absence").nunique(axis=1).tolist() == [4, 4]


@pytest.mark.slow
def test_units_with_a_known_rule_have_no_tokens(images):
    """A class token is pooled in the network that is studied, and in no other."""
    torch.manual_seed(0)
    options = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 3}
    model = VisionTransformer(image_size=20, patch_size=4, **options).eval()
    setting = InsertionConfig(8, 6, 2, 4, pool="cls")
    small = {
        "null_units": 2,
        "known_scenes": 120,
        "redraws": 1,
        "top_share": 0.4,
        "units": [0, 1],
        "feather": 1,
    }
    asked = {"published": replace(setting, pairs="one_random", images=7)}
    studies = compare_networks(
        model, model, "encoder.layers.encoder_layer_0.mlp.3", images, setting, **asked, **small
    )
    assert [study.book.pool for study in studies.values()] == ["cls", "cls", "mean", "mean", "mean"]
    assert all(study.published.responses.n.eq(7).all() for study in studies.values())
