"""The benchmark measures what it says: the same windows for all, ratios within a round, medians over rounds."""

from dataclasses import replace

import bench_context
import bench_insertion
import bench_load
import bench_mining
import bench_power
import numpy as np
import pandas as pd
import pytest
import torch
from bench_mining import BATCH, MODES, cut, images_for, summary
from published_scheme import published_scheme

from absence_utils.benchmark.effects import exact_effects
from absence_utils.images.cache import stack_images
from absence_utils.images.scenes import scene_dataset
from absence_utils.images.subsets import shuffle_images
from absence_utils.models.load import load_model
from absence_utils.patches.mining import PIXELS_PER_BATCH


def test_eager_gets_the_windows_that_mining_sees(monkeypatch):
    monkeypatch.delenv("ABSENCE_REAL", raising=False)
    dataset = images_for(None, 2)
    batches = torch.cat(cut(dataset, "cpu"))
    assert len(batches) % BATCH == 0 and BATCH == PIXELS_PER_BATCH["cpu"] // 48**2
    for index, (image, top, left) in {0: (0, 0, 0), 13: (0, 16, 16), 144 + 143: (1, 176, 176)}.items():
        assert torch.equal(batches[index], dataset.images[image, :, top : top + 48, left : left + 48])
    assert len(batches) >= 288 > len(batches) - BATCH


def test_summary_takes_ratios_within_a_round_and_medians_over_rounds():
    rows = []
    for turn, slow in enumerate((1.0, 10.0, 2.0)):  # the whole machine is slower in some rounds
        for mode, seconds in zip(MODES, (1, 2, 4, 12), strict=True):
            found = {"seconds": seconds * slow, "further": seconds**2, "GiB": seconds, "GPU GiB": 0.0}
            rows.append({"device": "cpu", "layer": "a", "mode": mode, "round": turn} | found)
    rows[0]["seconds"] = 3.0
    (row,) = summary(pd.DataFrame(rows)).to_dict("records")
    assert row["ours s/image"] == 3 and row["eager s/image"] == 8 and row["released GiB"] == 12
    assert row["ours / eager"] == 0.25 and row["exact / eager"] == 0.5 and row["released / ours"] == 12
    assert (row["released / ours, min"], row["released / ours, max"]) == (4, 12)
    assert (row["ours / eager, min"], row["ours / eager, max"]) == (0.25, 0.75)
    assert row["ours / eager, further"] == 1 / 16 and row["released / ours, further, max"] == 144
    assert "ours GPU GiB" not in row


def test_further_images_are_those_after_the_start_up(monkeypatch):
    """A start-up of 7 seconds and 2 for each image."""
    now = [0.0]

    def run(images):
        now[0] += 7 + 2 * len(images)

    monkeypatch.delenv("ABSENCE_REAL", raising=False)
    monkeypatch.setattr(bench_mining, "network_for", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(bench_mining, "work_of", lambda *_: (lambda images: images, run))
    monkeypatch.setattr(bench_mining.time, "process_time", lambda: now[0])
    found = bench_mining.measure("ours", next(iter(bench_mining.CASES)), 4, "cpu")
    assert (found["seconds"], found["further"]) == (15 / 4, 2)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs(mode, monkeypatch):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 9, 8), torch.nn.ReLU()).eval()
    monkeypatch.delenv("ABSENCE_REAL", raising=False)
    prepare, run = bench_mining.work_of(mode, network, "0", "cpu")
    found = run(prepare(images_for(network, 1)))
    if mode in ("ours", "released"):
        highest = found[0] if mode == "released" else found.highest
        assert highest.response.shape == (2, 8)


def test_the_yardstick_takes_the_steps_of_the_release(monkeypatch):
    """The best k of each image first, then 2k candidates a unit, never the whole image's; and it finds the best."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.ReLU(inplace=True)).eval()
    pixels, compared, topk = torch.randn(5, 3, 24, 24), [], torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor,
        "topk",
        lambda self, k, **how: compared.append(tuple(self.shape)) or topk(self, k, **how),
    )
    ends = published_scheme(network, "0", [(image, 0) for image in pixels], 8, 4, 3)
    assert set(compared) == {(25, 4), (4, 6)} and len(compared) == 2 * (
        5 + 4
    )  # an image: windows; then 2k a unit
    windows = [
        image[:, top : top + 8, left : left + 8]
        for image in pixels
        for top in range(0, 17, 4)
        for left in range(0, 17, 4)
    ]
    with torch.no_grad():  # before the rectification, which works in place
        responses = torch.stack([network[0](window[None]).mean(dim=(0, 2, 3)) for window in windows])
    for kept, largest in zip(ends, (True, False), strict=True):
        for unit in range(4):
            order = responses[:, unit].argsort(descending=largest)[:3]
            torch.testing.assert_close(kept.response[unit], responses[order, unit])
            assert torch.equal(kept.pixels[unit], torch.stack([windows[number] for number in order]))


def test_trained_weights_are_taken_where_the_folder_has_the_network(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    source = "from torch import nn\n\n\ndef small():\n    return nn.Sequential(nn.Conv2d(3, 5, 3)).eval()\n"
    (tmp_path / "models" / "networks.py").write_text(source)
    monkeypatch.setenv("ABSENCE_REAL", str(tmp_path))
    assert bench_mining.network_for("small", "cpu")[0].out_channels == 5
    monkeypatch.setattr("absence_utils.load_model", lambda *given, **_: given)
    assert bench_mining.network_for("resnet50", "cpu") == ("resnet50", "random")


def test_insertion_is_measured_on_the_same_inputs(monkeypatch):
    """Requests of several units share inputs, and the table has its ratios."""
    monkeypatch.delenv("ABSENCE_REAL", raising=False)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 9, 8), torch.nn.ReLU()).eval()
    monkeypatch.setattr(bench_insertion, "load_model", lambda *_: network)
    monkeypatch.setattr(bench_insertion, "CASES", {"small": ("small", "0")})
    row = bench_insertion.measure("small", images=6, units=2, rounds=1)
    assert row["requests"] == 12 and 6 < row["inputs"] <= 12
    assert row["ours / bare"] > 0 and row["ours / eager"] > 0
    requests = bench_insertion.requests_for(3, 6, 4)
    assert requests.groupby("unit").image.nunique().eq(6).all() and requests.patch.max() < 4


def test_power_counts_by_kind_layer_and_reading():
    """Of four units two are clear absences, one found and one denied, and of two without one a false alarm."""
    units = pd.DataFrame({
        "kind": "rules", "reading": "signed", "layer": ["block2", "block2", "block4", "block4"],
        "truth": [-0.5, -0.4, -0.05, 0.0], "truth_high": [-0.3, -0.26, 0.0, 0.1], "delta": 0.75,
        "effect": [1.5, 0.2, 1.4, 0.8],
        "decision": [bench_power.ENCODES, bench_power.NONE, bench_power.ENCODES, bench_power.CANNOT_TELL],
    })  # fmt: skip
    table = bench_power.tabulate(units).set_index("layer")
    both = table.loc["all four"]
    assert (both["units"], both["clear absences"], both["without one"]) == (4, 2, 2)
    assert (both["found"], both["denied"], both["false alarms"], both["cannot tell"]) == (0.5, 0.5, 0.5, 0.25)
    assert table.loc["block2", "found"] == 0.5 and np.isnan(table.loc["block4", "found"])
    assert table.loc["block4", "false alarms"] == 0.5


@pytest.mark.slow
def test_power_sets_each_decision_beside_the_exact_effect():
    scenes = shuffle_images(scene_dataset(60, 0), 0)
    setting = replace(bench_power.SETTING, k=6, images=12, stride=20)
    table = bench_power.study(load_model("concept_scenes"), "block4", stack_images(scenes), setting, pairs=6)
    assert len(table) == 2 * 64 and {"decision", "truth", "truth_low", "truth_high"} <= set(table)
    exact = exact_effects(load_model("concept_scenes"), "block4", 6)
    one = exact[(exact["unit"] == 3) & (exact["reading"] == "passed on")]["effect"].min()
    row = table[(table["unit"] == 3) & (table["reading"] == "passed on")].iloc[0]
    assert row["truth"] == pytest.approx(one) and row["truth_low"] <= one <= row["truth_high"]


def test_load_measures_what_it_says(monkeypatch):
    found = bench_load.load_folder(9)
    assert list(found) == ["images", "list s", "describe s", "mine s", "columns s"] and found["images"] == 9


@pytest.mark.slow
def test_load_of_an_atlas(monkeypatch):
    monkeypatch.setattr(bench_load, "DRAWN", 0)
    monkeypatch.setattr(
        bench_load.atlas, "card_page", bench_load.atlas.card_page
    )  # the benchmark replaces it
    found = bench_load.load_atlas(8)
    assert found["units"] == 8 and 0.1 < found["index MB"] < 3


def test_shares_of_contexts_are_those_of_the_units_asked():
    table = pd.DataFrame({
        "reading": ["signed"] * 4 + ["passed on"] * 2, "unit": [0, 1, 2, 3, 0, 1],
        "context": [0.5, 0.1, np.nan, 0.3, np.nan, np.nan], "found": [True, False, False, True, False, False],
    })  # fmt: skip
    signed, passed = bench_context.summarise(table).to_dict("records")
    assert (signed["units"], signed["asked"], signed["found"]) == (4, 3, 2)
    assert signed["share"] == pytest.approx(2 / 3) and signed["low"] < 2 / 3 < signed["high"] < 1
    assert signed["median (sd)"] == 0.3
    assert (passed["units"], passed["asked"], passed["found"]) == (2, 0, 0) and np.isnan(passed["share"])


def test_contexts_are_asked_of_units_drawn_at_random_under_the_pooling():
    stack = stack_images(shuffle_images(scene_dataset(90, 0), 0))
    setting = replace(bench_context.SCENES, k=6, images=12, stride=20, pool="max")
    table = bench_context.contexts(load_model("concept_scenes"), "block4", stack, setting, 3, seed=0)
    assert table["unit"].nunique() == 3 and set(table["reading"]) == {"signed", "passed on"}
    assert (table["context"].dropna() < 0.05).all(), "a maximum over positions saturates"


def test_the_effect_of_a_hue_is_that_of_the_glyphs_that_have_it():
    """A network that averages red alone: red glyphs raise it, cyan ones lower it or leave it."""

    class Red(torch.nn.Module):
        def forward(self, images):
            return images[:, :1].mean(dim=(2, 3))

    found = bench_power.hue_effects(Red(), None, 40).set_index("hue")
    assert found.effect.idxmax() in (0, 5) and found.effect.idxmin() in (2, 3)
    assert found.effect[found.effect.idxmax()] > 3 * abs(found.effect[2])
    assert (found.low < found.effect).all() and (found.effect < found.high).all()
