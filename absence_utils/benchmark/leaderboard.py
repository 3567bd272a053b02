"""Which explanation method finds which absence: scores of methods over many rules, with honest intervals.

Every number is a mean over true absences. Its interval comes from drawing networks again, and within each its absences,
the same draws for every method, so that methods are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from absence_utils.errors import require_choice

from .methods import GROUPS
from .rule_networks import TWIN, world_of
from .scores import OUTPUTS, PAIR, false_alarms, outcomes_of

DRAWS = 2000  # of networks and rules
LEVEL = 0.95


def all_outcomes(answers: pd.DataFrame, findings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Outcomes of all tasks; the score says the layer where it is a hidden one ("AUROC, hidden, signed")."""
    found = outcomes_of(answers)
    hidden = found.layer != OUTPUTS
    found = found[~hidden | (found.score == "AUROC")].copy()
    found.loc[hidden, "score"] = found.score + ", " + found.layer
    return found if findings is None else pd.concat([found, findings], ignore_index=True)


def leaderboard(
    answers: pd.DataFrame, outcomes: pd.DataFrame, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Mean, 95% interval and coverage of every method and score, best AUROC first.

    Networks are drawn again, and in each of those its absences; the interval holds the middle 95% of the means.
    "false alarms", see `scores.false_alarms`, is drawn over the same networks and absences, with the twins of the
    networks drawn.

    Returns:
        Columns method, score, mean, low, high, coverage (share of the absences about which the method says something),
        absences, networks. The interval is NaN for a single network.
    """
    tables = []
    for score in outcomes.score.unique():
        wide = _wide(outcomes, score)
        tables.append(_rows(score, wide.mean(), draw_means(wide, draws, seed), wide.notna()))
    found, drawn, said = draw_alarms(answers, draws // 10, seed)  # a tenth: each draw sorts
    tables.append(_rows("false alarms", found, drawn, said))
    board = pd.concat(tables, ignore_index=True)
    area = board[board.score == "AUROC"].sort_values("mean", ascending=False, kind="stable").method.tolist()
    return board.sort_values(
        "method", key=lambda names: names.map(area.index), kind="stable", ignore_index=True
    )


def best_of_groups(board: pd.DataFrame, groups: Mapping[str, list[str]] | None = None) -> pd.DataFrame:
    """Of each group of methods the one with the highest AUROC: its rows of the leaderboard, and column group first.

    Args:
        board: as `leaderboard` gives it.
        groups: name to methods, `methods.GROUPS` if None; those without any method on the board are left out.
    """
    groups = GROUPS if groups is None else groups
    area = board[board.score == "AUROC"].set_index("method")["mean"].dropna()
    best = {
        name: area.reindex(methods).idxmax()
        for name, methods in groups.items()
        if set(methods) & set(area.index)
    }
    rows = [board[board.method == method].assign(group=name) for name, method in best.items()]
    found = pd.concat(rows, ignore_index=True)
    return found[["group", *board.columns]]


def conclusion(best: pd.DataFrame, board: pd.DataFrame) -> str:
    """How often the best of each group names the suppressor first, and whose maps lie on it, in sentences.

    Args:
        best: as `best_of_groups` gives it; a group that says something of fewer than 95% of the absences is reported
            with that share, in the place of its false alarms.
        board: as `leaderboard` gives it, for the three maps with the highest mask precision.
    """
    said = best.set_index(["score", "method"])
    alarms = said.loc["false alarms", "mean"]
    parts = [
        f"{row.Index.replace('_', ' ')}, {row.mean:.0%} "
        + (f"({alarms[row.Index]:.0%} false alarms)" if row.coverage > LEVEL
           else f"of the {row.coverage:.0%} that it says anything of")
        for row in said.loc["name, recall at 1"].itertuples()
    ]  # fmt: skip
    maps = board[board.score == "mask precision"].nlargest(3, "mean").method
    where = ", ".join(name.removesuffix(", all").replace("_", " ") for name in maps)
    return (
        f"How often the best of each group names the suppressor first: {'; '.join(parts)}. "
        f"Maps whose negative evidence lies on it most: {where}."
    )


def median_shift(board: pd.DataFrame, other: pd.DataFrame) -> float:
    """Median distance of the means of two leaderboards, over the methods and scores that both have."""
    both = board.merge(other, on=["method", "score"], suffixes=("", "_other"))
    return float((both["mean"] - both["mean_other"]).abs().median())


def _rows(score: str, found: pd.Series, drawn: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """Leaderboard rows from estimates [method], their draws [draw, method], and what was said [absence, method]."""
    networks = said.index.get_level_values("network").nunique()
    edges = drawn.quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if networks > 1 else drawn.iloc[:2] * np.nan
    return pd.DataFrame({
        "method": found.index, "score": score, "mean": found.to_numpy(), "low": edges.iloc[0].to_numpy(),
        "high": edges.iloc[1].to_numpy(), "coverage": said.mean().to_numpy(), "absences": len(said),
        "networks": networks,
    })  # fmt: skip


def draw_means(wide: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """[draw, method] means of outcomes [absence, method] over networks drawn again, and absences within each."""
    weights = _weights(wide.index.get_level_values("network").to_numpy(), draws, seed)
    values = wide.to_numpy()
    said = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(said, values, 0) / (weights @ said)
    return pd.DataFrame(means, columns=wide.columns)


def _weights(networks: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """[draw, absence] how often each absence is drawn."""
    generator = np.random.default_rng([seed, 18])
    names, number = np.unique(networks, return_inverse=True)
    copies = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    weights = np.zeros((draws, len(networks)))
    for each in range(len(names)):
        members = np.flatnonzero(number == each)
        chances = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(copies[:, each] * len(members), chances)
    return weights


def draw_alarms(
    answers: pd.DataFrame, draws: int, seed: int = 0
) -> tuple[pd.Series, pd.DataFrame, pd.DataFrame]:
    """False alarms [method], those over networks and absences drawn again [draw, method], and whether something was
    said [absence, method]."""
    outputs = answers[answers.layer == OUTPUTS]
    found = outputs[outputs.truth == "absence"].pivot(index=PAIR, columns="method", values="value")
    twins = outputs[outputs.twin].pivot(index=PAIR, columns="method", values="value")[found.columns]
    network = found.index.get_level_values("network").to_numpy()
    of_twin = twins.index.get_level_values("network").str.removesuffix(TWIN).to_numpy()
    weights = _weights(network, draws, seed).astype(int)
    # [network, draw] how often each network was drawn
    often = pd.DataFrame(weights.T).groupby(network).mean().round().astype(int)
    drawn = [
        false_alarms(np.repeat(found.to_numpy(), weight, axis=0), np.repeat(twins.to_numpy(), copies, axis=0))
        for weight, copies in zip(weights, often.reindex(of_twin, fill_value=0).to_numpy().T, strict=True)
    ]
    point = false_alarms(found.to_numpy(), twins.to_numpy())
    return pd.Series(point, found.columns), pd.DataFrame(drawn, columns=found.columns), found.notna()


def compare(
    outcomes: pd.DataFrame, score: str = "AUROC", against: str = "", draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """One method against each other, over the absences of which both say something.

    Args:
        outcomes: of all of them.
        score: which outcome.
        against: the one method; the best of those that say something about more than half of the absences if "".
        draws, seed: of networks and absences.

    Returns:
        Columns method, difference (the one minus this one), low, high, p (two-sided, from the draws), q (Benjamini and
        Hochberg, over the methods), absences; the smallest difference first. The name of the one in `attrs["against"]`.

    Raises:
        InputError: an unknown score or method.
    """
    require_choice("score", score, outcomes.score.unique())
    wide = _wide(outcomes, score)
    one = against or _outspoken(wide).mean().idxmax()
    require_choice("against", one, wide.columns)
    differences = (-wide.drop(columns=one)).add(wide[one], axis=0).dropna(axis=1, how="all")
    drawn = draw_means(differences, draws, seed)
    tail = np.minimum((drawn <= 0).sum(), (drawn >= 0).sum())
    p = np.minimum(1, 2 * (tail + 1) / (drawn.notna().sum() + 1))  # no draw without an absence to compare on
    found = pd.DataFrame({
        "difference": differences.mean(), "low": drawn.quantile((1 - LEVEL) / 2),
        "high": drawn.quantile((1 + LEVEL) / 2), "p": p, "q": stats.false_discovery_control(p),
        "absences": differences.notna().sum(),
    })  # fmt: skip
    found = found.sort_values("difference").rename_axis("method").reset_index()
    found.attrs["against"] = one
    return found


def _wide(outcomes: pd.DataFrame, score: str) -> pd.DataFrame:
    """[absence, method] outcomes of a score."""
    return outcomes[outcomes.score == score].pivot(index=PAIR, columns="method", values="value")


def _outspoken(wide: pd.DataFrame) -> pd.DataFrame:
    """The methods that say something about more than half of the absences."""
    return wide.loc[:, wide.notna().mean() > 0.5]


def order_stability(
    outcomes: pd.DataFrame, score: str = "AUROC", draws: int = 200, seed: int = 0
) -> pd.Series:
    """Is the order of methods the same under half the rules? Over random halves of the absences.

    Returns:
        Mean rank correlation (Spearman's): "half against all" and "half against the other half". Methods that are
        silent about more than half of the absences are left out.
    """
    values = _outspoken(_wide(outcomes, score)).to_numpy()
    generator, found = np.random.default_rng([seed, 19]), []
    whole = np.nanmean(values, axis=0)
    for _ in range(draws):
        order = generator.permutation(len(values))
        one, other = (np.nanmean(values[part], axis=0) for part in np.array_split(order, 2))
        found.append([stats.spearmanr(one, each).statistic for each in (whole, other)])
    return pd.Series(np.mean(found, axis=0), index=["half against all", "half against the other half"])


def by_world(outcomes: pd.DataFrame, score: str = "AUROC") -> pd.DataFrame:
    """Mean of a score for each method and world: [method, world]."""
    own = outcomes[outcomes.score == score]
    world = own.network.str.partition("/")[0].rename("world")
    return own.groupby(["method", world], sort=False).value.mean().unstack()


def by_correlation(outcomes: pd.DataFrame, score: str = "AUROC") -> pd.DataFrame:
    """Mean of a score for each method and correlation of concepts that come together: [method, correlation]."""
    own = outcomes[outcomes.score == score]
    together = own.network.map(lambda name: world_of(name).correlation).rename("correlation")
    return own.groupby(["method", together]).value.mean().unstack()
