"""The benchmark measures what it says: the same windows for all, ratios within a round, medians over rounds."""

import bench_insertion
import bench_load
import bench_mining
import bench_verdicts
import pandas as pd
import pytest
import torch
from bench_mining import BATCH, MODES, cut, images_for, summary

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
            found = {"seconds": seconds * slow, "GiB": seconds, "GPU GiB": 0.0}
            rows.append({"device": "cpu", "layer": "a", "mode": mode, "round": turn} | found)
    rows[0]["seconds"] = 3.0
    (row,) = summary(pd.DataFrame(rows)).to_dict("records")
    assert row["ours s/image"] == 3 and row["eager s/image"] == 8 and row["published GiB"] == 12
    assert row["ours / eager"] == 0.25 and row["exact / eager"] == 0.5 and row["published / ours"] == 12
    assert "ours GPU GiB" not in row


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs(mode, monkeypatch):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 9, 8), torch.nn.ReLU()).eval()
    monkeypatch.delenv("ABSENCE_REAL", raising=False)
    prepare, run = bench_mining.work_of(mode, network, "0", "cpu")
    found = run(prepare(images_for(network, 1)))
    if mode in ("ours", "published"):
        highest = found[0] if mode == "published" else found.highest
        assert highest.response.shape == (2, 8)


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


@pytest.mark.slow
def test_findings_at_random_weights_are_counted(monkeypatch):
    few = {"scenes": 150, "copies": 3, "units": 6, "most": 5}
    row = bench_verdicts.count_findings("concept_scenes", "logits", **few)
    assert (row["copies"], row["units"]) == (3, 5 + 6) and row["found"] == 0 <= row["undecided"] < 11
    monkeypatch.setattr(bench_verdicts, "NONE", "another word")
    assert bench_verdicts.count_findings("concept_scenes", "logits", **few)["found"] == 11 - row["undecided"]


def test_load_measures_what_it_says(monkeypatch):
    found = bench_load.load_folder(9)
    assert list(found) == ["images", "list s", "describe s", "mine s", "columns s"] and found["images"] == 9


@pytest.mark.slow
def test_load_of_an_atlas(monkeypatch):
    monkeypatch.setattr(bench_load, "DRAWN", 0)
    monkeypatch.setattr(bench_load.html, "card_page", bench_load.html.card_page)  # the benchmark replaces it
    found = bench_load.load_atlas(8)
    assert found["units"] == 8 and 0.1 < found["index MB"] < 3
