"""Do synthesised minima show what suppresses a unit? At free and at matched contrast: data/measured/minima.csv.

    python benchmarks/bench_minima.py > data/measured/minima.csv                              three minutes of one core
    python benchmarks/bench_minima.py --facets 3 --seeds 0 > data/measured/facets.csv         two minutes

The three outputs with a planted absence of the shipped concept-scenes network and of the five rules networks of other
seeds, with the steps and the smoothness of notebook 04. A detector of concepts that saw none of these networks reads
each minimum: its strongest concept, relative to what it says of scenes, is the name. `--summary FILE` makes
minima_table.csv of it, with Wilson's intervals over networks and units.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils import Unit, load_model
from absence_utils.benchmark.networks import load_benchmark_network
from absence_utils.images import CONCEPTS, RULES, scene_dataset
from absence_utils.images.scenes import NORMALISATION
from absence_utils.models.training import predict
from absence_utils.units import dataset_responses
from absence_utils.visualization import facet_table, faint_contrast, pole_table, render_pairs

BUDGETS = {"free": None, "5th percentile": 0.05, "median": 0.5}
STEPS, SMOOTHNESS, SCENES, SEED = 192, 4.0, 256, 0


def named(detector, pixels, scenes) -> list[str]:
    """The concept of each image that the detector finds strongest, in sd of what it says of scenes."""
    usual = predict(detector, scenes)
    found = (predict(detector, NORMALISATION.apply(pixels)) - usual.mean(dim=0)) / usual.std(dim=0)
    return [CONCEPTS[column] for column in found.argmax(dim=1).tolist()]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For each budget the share of minima that name the suppressor, and how far they reach."""
    rows = []
    for contrast, part in table.groupby("contrast", sort=False):
        low, high = binomtest(int(part["right"].sum()), len(part)).proportion_ci(method="wilson")
        rows.append({
            "contrast": contrast, "minima": len(part), "name the suppressor": int(part["right"].sum()),
            "share [95%]": f"{part['right'].mean():.0%} [{low:.0%}, {high:.0%}]",
            "median distance from natural responses, sd": round(part["distance"].median(), 1),
            "command": "python benchmarks/bench_minima.py --summary data/measured/minima.csv",
            **part[["machine", "date"]].iloc[0],
        })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--facets", type=int, default=1)
    parser.add_argument("--summary", help="a table that was written before: what it comes to")
    given = parser.parse_args()
    if given.summary:
        summary(pd.read_csv(given.summary)).to_csv(sys.stdout, index=False)
        return
    command = " ".join(["python benchmarks/bench_minima.py", *sys.argv[1:]])
    how = {"command": command, "machine": machine(), "date": date.today()}
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dataset, detector = scene_dataset(SCENES, 700), load_benchmark_network("detector")
    suppressors = {place: rule.absent[0] for place, rule in enumerate(RULES.values()) if rule.absent}
    networks = {"shipped": load_model("concept_scenes")}
    networks |= {f"seed {seed}": load_benchmark_network("rules", seed) for seed in range(given.seeds)}
    rows = []
    for network, model in networks.items():
        units = [Unit(model, "logits", place) for place in suppressors]
        real = dataset_responses(model, "logits", dataset)
        for budget, quantile in BUDGETS.items():
            contrast = None if quantile is None else faint_contrast(model, dataset, quantile)
            pairs = render_pairs(
                units, given.steps, 64, SEED, given.facets, smoothness=SMOOTHNESS, contrast=contrast
            )
            images = torch.stack([pair.lowest.image[pair.lowest.response.argmin()] for pair in pairs])
            poles = pole_table(pairs, real)
            lowest, facets = poles[poles.pole == "minimum"], facet_table(pairs)
            kept = facets[facets.pole == "minimum"]
            for place, name, (_, pole), (_, facet) in zip(
                suppressors,
                named(detector, images, dataset.images),
                lowest.iterrows(),
                kept.iterrows(),
                strict=True,
            ):
                rows.append({
                    "network": network, "rule": list(RULES)[place], "contrast": budget,
                    "suppressor": suppressors[place], "named": name, "right": name == suppressors[place],
                    "response": round(pole["response"], 2), "distance": round(pole["distance"], 2),
                    "facets": int(facet["facets"]), "weakest_facet": round(facet["kept"], 3),
                    "diversity": round(facet["diversity"], 3), **how,
                })  # fmt: skip
                print(rows[-1], file=sys.stderr, flush=True)
    pd.DataFrame(rows).to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
