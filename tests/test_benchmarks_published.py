"""Simulated shares of the published test are those that are shipped; the run on real networks goes on where it was."""

import bench_published
import numpy as np
import pandas as pd
import pytest
import simulate_published
import torch
from scipy import stats
from simulate_published import patch_effects, simulated_shares

from absence_utils.paths import DATA

# The figures of the design: share significant at one random patch in each image, and at all patches in all images.
KNOWN = {
    ("a true drop", 0.02, 0): (0.32, 0.94),
    ("nothing", 0.02, 0): (0.03, 0.25),
    ("nothing", 0.1, 0): (0.15, 0.54),
    ("additive, patches selected", 0.02, 20_000): (1, 1),
    ("additive, patches selected", 0.1, 200_000): (1, 1),
}


@pytest.fixture(scope="module")
def shipped():
    return pd.read_csv(DATA / "measured" / "published_simulation.csv")


def test_shipped_shares_are_within_three_points_of_the_known_ones(shipped):
    shares = shipped.set_index(["unit", "patch_variance", "windows", "pairs"]).significant
    for key, both in KNOWN.items():
        for pairs, share in zip(("one_random", "all"), both, strict=True):
            assert shares[(*key, pairs)] == pytest.approx(share, abs=0.03), (key, pairs)
    assert (shipped.units >= 4000).all()


@pytest.mark.parametrize("pairs", ["one_random", "all"])
def test_a_small_simulation_gives_the_shipped_shares(shipped, pairs):
    rows = shipped[(shipped.pairs == pairs) & (shipped.patch_variance == 0.02) & (shipped.windows != 200_000)]
    assert len(rows) == 3
    for row in rows.itertuples():
        known = {"drop": row.drop_sd, "patch_variance": 0.02, "windows": row.windows or None}
        either, lower = simulated_shares(pairs, **known, units=500, seed=3)
        assert either == pytest.approx(row.significant, abs=0.06)
        assert lower == pytest.approx(row.lower, abs=0.06)


def test_without_patches_that_differ_the_shared_images_make_the_test_conservative():
    """Of variance 0.8 the 0.4 of the images is in both samples, so a true 5% comes to 2 * sf(1.96 * sqrt 2)."""
    either, _ = simulated_shares("one_random", patch_variance=0.0, units=3000)
    assert either == pytest.approx(2 * stats.norm.sf(1.96 * 2**0.5), abs=0.008)


def test_selected_patches_are_the_lowest_of_so_many_windows():
    generator = np.random.default_rng(0)
    found = patch_effects(generator, 4000, 0.25, 50)
    drawn = np.sort(generator.normal(0, 0.5, (4000, 50)), axis=1)[:, :8]
    np.testing.assert_allclose(found[:, 1].mean(axis=0), drawn.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(found[:, 1].std(axis=0), drawn.std(axis=0), atol=0.02)
    assert abs(found[:, 0].mean()) < 0.02 and found[:, 0].std() == pytest.approx(0.5, abs=0.01)
    assert simulate_published.patch_effects(generator, 9, 0.0, None).any() == 0


# ---------------------------------------------------------------------- real networks
NETWORK = """
import torch
def small():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 5, 9, 4), torch.nn.ReLU(), torch.nn.Conv2d(5, 6, 2)), {"size": 32}
"""


@pytest.mark.slow
def test_a_finished_part_is_not_done_again(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETWORK)
    torch.manual_seed(0)
    case = bench_published.Case("small", "2", units=(4, 4), copies=2, stride=4)
    asked = (case, tmp_path / "nets.py", "concept_scenes", tmp_path, 240, 16)
    monkeypatch.setitem(bench_published.study.__kwdefaults__, "top", 20)
    bench_published.run(*asked)
    parts = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")}
    assert len(parts) == 3
    (tmp_path / "small 2 mean 16 random 2.csv").unlink()
    bench_published.run(*asked)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")}
    assert {name for name in parts if parts[name] != again[name]} == {"small 2 mean 16 random 2.csv"}
    table = bench_published.tabulate(tmp_path)
    facts = table.groupby("weights")[
        ["copies", "units", "units_controlled", "top", "images", "patch"]
    ].first()
    assert facts.values.tolist() == [[2, 4, 4, 20, 240, 16], [0, 4, 4, 20, 240, 16]]
    shares = table[table.quantity.isin(["significant", "lower", "suppressed"])]
    assert len(shares) == 6 and shares.value.between(0, 1).all() and (shares.low < shares.high).all()
    part = pd.read_csv(tmp_path / "small 2 mean 16 trained.csv")
    trained = table[table.weights == "trained"].set_index("quantity").value
    assert trained["mean, top + lowest"] == pytest.approx(part["mean, top + lowest"].mean(), abs=1e-4)
    assert trained["suppressed"] == part.suppressed.mean()
    short = bench_published.as_in_the_paper(table).set_index("weights").loc["trained"]
    assert short["top + lowest"].startswith(f"{part['mean, top + lowest'].mean():.3g} ± ")
    assert short["significant (%)"].startswith(f"{100 * part.significant.mean():.0f} [")
