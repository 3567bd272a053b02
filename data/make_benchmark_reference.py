"""Run the benchmark on all networks: the tables 09_benchmark*.csv in data/reference/ and their manifest entries.

    make benchmark                                              all, side by side, an hour on two cores
    python data/make_benchmark_reference.py --only "plain/0"     one network with its twin, into data/parts/

Without `--only`, parts that are there are used.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from manifest import entry_of, write_entry

from absence_utils.benchmark.leaderboard import (
    all_outcomes,
    best_of_groups,
    by_correlation,
    by_world,
    compare,
    leaderboard,
    order_stability,
)
from absence_utils.benchmark.rule_networks import NAMES, load_rule_network, part_name, rules_of, world_of
from absence_utils.benchmark.running import BenchmarkConfig, run_network
from absence_utils.benchmark.scores import OUTPUTS, PAIR
from absence_utils.benchmark.truth import learnt, pair_effects, planted
from absence_utils.paths import DATA

SETTING = BenchmarkConfig(networks=40)  # all else as notebook 09
KINDS = ("answers", "findings", "truth")
COMPARED = ("AUROC", "name, recall at 1")


def part_of(kind: str, name: str, parts: Path) -> Path:
    """The file of a network's answers, findings or truth."""
    return parts / f"{kind}-{part_name(name)}.csv"


def truth_of(name: str) -> pd.DataFrame:
    """What is planted and learnt beside what exact pairs measure on the trained network: effect in sd with its 95%
    interval."""
    effects = pair_effects(load_rule_network(name), [None], world_of(name), SETTING.pairs)[None]
    table = pd.concat([effect.table(concept).assign(column=number)
                       for number, (concept, effect) in enumerate(effects.items())], ignore_index=True)  # fmt: skip
    kinds = planted(name)[table.unit, table.column]
    table["truth"] = learnt(kinds, table.high.to_numpy())
    table["rule"] = table.unit.map(dict(enumerate(rules_of(name).names)))
    return table.assign(network=name, layer=OUTPUTS)[[*PAIR, "rule", "truth", "effect", "low", "high"]]


def only_learnt(
    answers: pd.DataFrame, findings: pd.DataFrame, truth: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers and findings with the truth of the table: what was planted and not learnt counts in no score."""
    unclear = pd.MultiIndex.from_frame(truth.loc[truth.truth == "unclear", PAIR])
    asked, found = (pd.MultiIndex.from_frame(table[PAIR]).isin(unclear) for table in (answers, findings))
    return answers.assign(truth=answers.truth.mask(asked, "unclear")), findings[~found]


def tables_of(answers: pd.DataFrame, findings: pd.DataFrame, truth: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that ship, by name."""
    outcomes = all_outcomes(answers, findings)
    differences = [compare(outcomes, score).assign(score=score) for score in COMPARED]
    wide = outcomes.pivot(index=["score", *PAIR], columns="method", values="value").reset_index()
    board = leaderboard(answers, outcomes)
    return {
        "09_benchmark": board,
        "09_benchmark_groups": best_of_groups(board),
        "09_benchmark_worlds": by_world(outcomes).reset_index(),
        "09_benchmark_correlations": by_correlation(outcomes).reset_index(),
        "09_benchmark_differences": pd.concat(
            [table.assign(against=table.attrs["against"]) for table in differences], ignore_index=True
        ),
        "09_benchmark_outcomes": wide,
        "09_benchmark_truth": truth,
    }


def collect(parts: Path, folder: Path = DATA / "reference", manifest: Path = DATA / "manifest.json") -> None:
    """Put the parts together into tables with their entries."""
    answers, findings, truth = (
        pd.concat([pd.read_csv(part_of(kind, name, parts)) for name in NAMES], ignore_index=True)
        for kind in KINDS
    )
    answers, findings = only_learnt(answers, findings, truth)
    stable = order_stability(all_outcomes(answers, findings)).round(4).to_dict()
    for name, table in tables_of(answers, findings, truth).items():
        path = folder / f"{name}.csv"
        table.to_csv(path, index=False, float_format="%.5g", lineterminator="\n")
        facts = {"networks": len(NAMES)}
        if name == "09_benchmark":
            facts["order of methods, rank correlation"] = stable
        origin = "computed by this project from the networks of absence_utils/benchmark/rule_networks.py"
        write_entry(manifest, entry_of(path, origin, "make benchmark", facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NAMES, help="run one network and its twin into --parts")
    parser.add_argument(
        "--parts", type=Path, default=DATA / "parts", help="folder of single networks, not in git"
    )
    options = parser.parse_args()
    options.parts.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for name in [options.only] if options.only else NAMES:
        if options.only or not part_of(KINDS[-1], name, options.parts).is_file():
            found = run_network(name, SETTING, truth=planted(name))
            for kind, table in zip(KINDS, (*found, truth_of(name)), strict=True):
                table.to_csv(part_of(kind, name, options.parts), index=False, float_format="%.6g")
            print(name, "done", flush=True)
    if not options.only:
        collect(options.parts)


if __name__ == "__main__":
    main()
