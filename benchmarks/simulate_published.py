"""How often is the published insertion test significant for a unit whose truth is known? A simulation.

    python benchmarks/simulate_published.py > data/measured/published_simulation.csv

A response to a top image with a patch is, in sd of the unit over all images,

    image + patch - drop + rest

with independent normal parts: the image's level (variance 0.4), what the patch adds to any image (its variance is
varied), the true drop of lowest patches, and what is left of this image with this patch (variance 0.4). The first and
the last are our choice: top images vary less than all images, so the parts add up to less than 1. Without selection all
patches are random draws. With selection the lowest patches are the k lowest of many windows in what they add to an
image, and nothing else: such a unit is additive and inhibits nothing.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

IMAGES, K = 100, 8
IMAGE_VARIANCE, REST_VARIANCE = 0.4, 0.4
LEVEL = 0.05


def patch_effects(generator, units: int, variance: float, windows: int | None) -> np.ndarray:
    """[unit, kind (random, lowest), k] what patches add, sd; the lowest are the k lowest of `windows`, if given.

    Order statistics without drawing all: the k lowest of n uniform numbers are the first k of n + 1 exponential
    spacings, divided by their sum.
    """
    effects = generator.normal(0, np.sqrt(variance), (units, 2, K))
    if windows:
        spacings = generator.exponential(size=(units, K)).cumsum(axis=1)
        total = spacings[:, -1:] + generator.gamma(windows + 1 - K, size=(units, 1))
        effects[:, 1] = stats.norm.ppf(spacings / total, scale=np.sqrt(variance))
    return effects


def simulated_shares(
    pairs: str,
    *,
    drop: float = 0.0,
    patch_variance: float = 0.0,
    windows: int | None = None,
    units: int = 4000,
    seed: int = 0,
) -> tuple[float, float]:
    """Shares of units in which the unpaired t-test is significant: either way, and with lowest patches lower.

    Args:
        pairs: "one_random" (one of the k patches drawn at random for each image and condition, 100 values against 100)
            or "all" (every patch in every image, 800 against 800).
        drop: true drop under lowest patches, sd of the unit.
        patch_variance: variance of what a patch adds to any image, in variances of the unit.
        windows: that the lowest patches are the lowest of; None for patches that are not selected.
        units, seed: of the simulation.
    """
    generator = np.random.default_rng(seed)
    t, p = np.empty((2, units))
    for start in range(0, units, 500):
        part = slice(start, min(start + 500, units))
        count = part.stop - start
        effects = patch_effects(generator, count, patch_variance, windows)
        level = generator.normal(0, np.sqrt(IMAGE_VARIANCE), (count, 1, IMAGES, 1))
        if pairs == "all":
            added = np.broadcast_to(effects[:, :, None], (count, 2, IMAGES, K))
        else:
            rank = generator.integers(K, size=(count, 2, IMAGES))
            added = np.take_along_axis(effects, rank, axis=2)[..., None]
        rest = generator.normal(0, np.sqrt(REST_VARIANCE), added.shape)
        random, lowest = np.moveaxis((level + added + rest).reshape(count, 2, -1), 1, 0)
        t[part], p[part] = stats.ttest_ind(lowest - drop, random, axis=1)
    return float((p <= LEVEL).mean()), float(((p <= LEVEL) & (t < 0)).mean())


SETTINGS = [
    {"says": "a true drop", "drop": 0.2, "patch_variance": 0.02},
    {"says": "nothing", "patch_variance": 0.02},
    {"says": "nothing", "patch_variance": 0.1},
    *(
        {"says": "additive, patches selected", "patch_variance": variance, "windows": windows}
        for variance in (0.02, 0.1)
        for windows in (20_000, 200_000)
    ),
]


def table(units: int) -> pd.DataFrame:
    """A row for each setting and way to pair patches with images."""
    rows = []
    for setting in SETTINGS:
        known = {name: setting[name] for name in setting if name != "says"}
        for pairs in ("one_random", "all"):
            either, lower = simulated_shares(pairs, units=units, **known)
            row = {"unit": setting["says"], "drop_sd": 0.0, "patch_variance": 0.0, "windows": 0} | {
                {"drop": "drop_sd"}.get(name, name): value for name, value in known.items()
            }
            rows.append(row | {"pairs": pairs, "significant": either, "lower": lower, "units": units})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=4000, help="simulated units of each setting")
    found = table(parser.parse_args().units)
    about = {
        "command": "python benchmarks/simulate_published.py",
        "machine": machine(),
        "date": f"{date.today()}",
    }
    found = found.assign(**about)
    found.to_csv(sys.stdout, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
