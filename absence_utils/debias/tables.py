"""Tables of a debiasing study: selection by a rule, accuracies, comparison by seeds, absence scores, cost."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from absence_utils.errors import InputError, require_choice
from absence_utils.stats import clustered_rate, fdr_adjust, paired_difference

from .measures import SETS, selection_score
from .objectives import PENALISED
from .study import RunSpec

RULES = {  # what strength, attempt and epoch are chosen by, on validation images
    "patch_free": "as released: accuracy without any patch",
    "biased": "on biased images: accuracy less share",
}


def select(history: pd.DataFrame, rule: str) -> pd.DataFrame:
    """For each side, seed and objective the test row at the strength and epoch that are best on validation images.

    The two rules are "patch_free", the accuracy on images that all show no artefact, which the authors' release takes
    (it needs images of the carrier's class without one, which a completely biased data set does not have), and
    "biased", ours, which needs nothing but the data as they are: see `measures.selection_score`.

    Where plain training had several attempts it stands twice: the first as "none", the best of all as
    "none, best of N". Of equal values the first counts, smallest strength first; under "patch_free" the first epoch
    of the largest strength, as in the release.

    Args:
        history: of a study.
        rule: one of `RULES`.

    Raises:
        InputError: an unknown rule.
    """
    require_choice("rule", rule, RULES)
    history = _with_best_of(history)
    seen = history[history.split == "validation"]
    if rule == "patch_free":
        seen = seen.sort_values(["strength", "attempt"], ascending=False, kind="stable")
    value = seen["patch-free"] if rule == "patch_free" else seen.apply(selection_score, axis=1)
    run = ["carrier", "seed", "objective"]
    best = value.groupby([seen[name] for name in run], sort=False).idxmax()
    best = best.loc[list(history[run].drop_duplicates().itertuples(index=False))]
    at, tests = [*run, "strength", "attempt", "epoch"], history[history.split == "test"]
    return seen.loc[best][at].merge(tests, on=at, validate="one_to_one").assign(rule=rule)


def _with_best_of(history: pd.DataFrame) -> pd.DataFrame:
    """The first attempts, and all attempts of plain training under a name of their own behind them."""
    first = first_attempts(history)
    again = history[history.objective.isin(history.objective[history.attempt > 0])]
    again = again.assign(objective=again.objective + f", best of {1 + history.attempt.max()}")
    return pd.concat([first, again]).sort_index(kind="stable").reset_index(drop=True)


def first_attempts(history: pd.DataFrame) -> pd.DataFrame:
    """Rows of a study of one attempt for each run."""
    return history[history.attempt == 0]


def accuracy_table(
    selected: pd.DataFrame, by: Iterable[str] = ("rule", "carrier", "objective")
) -> pd.DataFrame:
    """Accuracy over seeds for each group, with intervals: columns by, set, accuracy, low, high, seeds.

    The interval (`stats.clustered_rate`) takes a seed for a cluster of images; with one seed it is empty (NaN).
    """
    rows = []
    for key, group in selected.groupby(list(by), sort=False):
        for name in (*SETS, "worst group"):
            rates, images = group[name].to_numpy(), group.images.to_numpy()
            low = high = np.nan
            if len(group) > 1:
                _, low, high = clustered_rate((rates * images).clip(0, images), images)
            rows.append((*key, name, np.average(rates, weights=images), low, high, len(group)))
    return pd.DataFrame(rows, columns=[*by, "set", "accuracy", "low", "high", "seeds"])


def score_table(selected: pd.DataFrame, by: Iterable[str] = ("rule", "carrier", "objective")) -> pd.DataFrame:
    """Absence score of the artefact on both logits, mean and t interval over seeds.

    Columns by, logit ("carrier", "other"), score, low, high, seeds.
    """
    rows = []
    for key, group in selected.groupby(list(by), sort=False):
        for logit, name in (("carrier", "the carrier's logit"), ("other", "the other logit")):
            values = group[f"absence score of {name}"].to_numpy()
            mean, low, high = values.mean(), np.nan, np.nan
            if len(values) > 1:
                mean, low, high = paired_difference(values, np.zeros_like(values))
            rows.append((*key, logit, mean, low, high, len(group)))
    return pd.DataFrame(rows, columns=[*by, "logit", "score", "low", "high", "seeds"])


def loss_table(histories: dict[str, pd.DataFrame], plans: Iterable[RunSpec]) -> pd.DataFrame:
    """What the runs `plans` come to after their last epoch under each loss: one row for each loss, objective, strength
    and measure, with columns value, low, high, seeds.

    The measures are the inverse-biased accuracy and the absence scores of the artefact on both logits.
    """
    wanted, by = (
        {(p.carrier, p.seed, p.objective, p.strength) for p in plans},
        ["loss", "objective", "strength"],
    )
    parts = [last_epochs(rows).assign(loss=loss) for loss, rows in histories.items() if len(rows)]
    rows = pd.concat(parts, ignore_index=True)
    run = rows[["carrier", "seed", "objective", "strength"]].itertuples(index=False, name=None)
    rows = rows[[key in wanted for key in run]]
    accuracies = accuracy_table(rows, by).rename(columns={"set": "measure", "accuracy": "value"})
    accuracies = accuracies[accuracies.measure == "inverse-biased"]
    scores = score_table(rows, by).rename(columns={"logit": "measure", "score": "value"})
    scores["measure"] = "absence score, " + scores.measure
    return pd.concat([accuracies, scores], ignore_index=True)


def compare(
    selected: pd.DataFrame, first: str = "presence and absence", on: str = "inverse-biased"
) -> pd.DataFrame:
    """How much more accurate `first` is than every other objective: paired by seed, Student's t interval, q over all.

    Returns:
        Columns rule, carrier, other, difference, low, high, p, q (Benjamini-Hochberg over the whole table); the last
        four are NaN for a single seed.
    """
    rows = []
    for (rule, carrier), group in selected.groupby(["rule", "carrier"], sort=False):
        wide = group.pivot(index="seed", columns="objective", values=on)
        for other in wide.columns.drop(first):
            mine, theirs = wide[first].to_numpy(), wide[other].to_numpy()
            difference, low, high, p = (mine - theirs).mean(), np.nan, np.nan, np.nan
            if len(mine) > 1:
                difference, low, high = paired_difference(mine, theirs, bounds=(-1, 1))
                same = np.ptp(mine - theirs) == 0  # no scatter: sure of any difference at all
                p = float(difference == 0) if same else stats.ttest_rel(mine, theirs).pvalue
            rows.append((rule, carrier, other, difference, low, high, p))
    table = pd.DataFrame(rows, columns=["rule", "carrier", "other", "difference", "low", "high", "p"])
    return table.assign(q=fdr_adjust(table.p))


def cost_table(history: pd.DataFrame) -> pd.DataFrame:
    """Seconds an epoch of training takes under each objective, relative to plain training ("none") of the same seed
    and side: columns objective, times (median over runs), low, high (5 and 95% of the runs)."""
    tests = first_attempts(history).query("split == 'test'")
    runs = tests.groupby(["objective", "strength", "carrier", "seed"], sort=False)
    seconds = runs.seconds.median().reset_index()
    if "none" not in set(seconds.objective):
        raise InputError("objectives", "there is no plain training to compare with", "Add 'none'.")
    plain = seconds[seconds.objective == "none"].set_index(["carrier", "seed"]).seconds
    key = pd.MultiIndex.from_frame(seconds[["carrier", "seed"]])
    seconds["times"] = seconds.seconds.to_numpy() / plain.reindex(key).to_numpy()
    found = seconds.groupby("objective", sort=False).times.quantile([0.5, 0.05, 0.95]).unstack()
    return found.rename(columns={0.5: "times", 0.05: "low", 0.95: "high"}).reset_index()


def last_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Test rows after the last epoch of the first attempt of every run, the rule being "last epoch"."""
    tests = first_attempts(history).query("split == 'test'")
    return tests[tests.epoch == tests.epoch.max()].assign(rule="last epoch")


def over_training(
    history: pd.DataFrame, selected: pd.DataFrame, objectives: list[str], like: str
) -> pd.DataFrame:
    """Test rows of every measured epoch under `objectives`, all at the strength that `like` was given most often in
    `selected` on that side (of those given equally often, the smallest); plain training has none."""
    history, parts = first_attempts(history), []
    for carrier, group in selected[selected.objective == like].groupby("carrier", sort=False):
        usual = group.strength.mode().min()
        for objective in objectives:
            same = (history.carrier == carrier) & (history.objective == objective) & (history.split == "test")
            if objective in PENALISED:
                same &= history.strength == usual
            parts.append(history[same])
    wanted = ["carrier", "objective", "strength", "seed", "epoch", "evidence for the carrier's logit",
              "evidence for the other logit"]  # fmt: skip
    return pd.concat(parts)[wanted].reset_index(drop=True)


MAIN = ("none", "presence", "presence and absence", "no shortcut")  # what a result names


def accuracy_lines(table: pd.DataFrame, sides: dict[int, str], objectives: Iterable[str] = MAIN) -> list[str]:
    """Inverse-biased accuracy as sentences, one for each rule and side, with 95% intervals over seeds.

    Args:
        table: as `accuracy_table` gives it.
        sides: carrier to its name.
        objectives: those that are named, if they are there.
    """
    lines = []
    for rule, carrier in ((rule, carrier) for rule in table.rule.drop_duplicates() for carrier in sides):
        here = table[(table.rule == rule) & (table.carrier == carrier) & (table.set == "inverse-biased")]
        parts = []
        for row in here[here.objective.isin(list(objectives))].itertuples():
            interval = "" if np.isnan(row.low) else f" [{100 * row.low:.0f}%, {100 * row.high:.0f}%]"
            parts.append(f"{row.objective} {100 * row.accuracy:.0f}%{interval}")
        lines.append(f"{sides[carrier]} ({RULES.get(rule, rule)}): {', '.join(parts)}.")
    return lines
