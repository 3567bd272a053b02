"""The bootstrap that the interval over images and patches is compared with."""

import numpy as np

from absence_utils.stats import TwoWay


def two_way_bootstrap(values, level: float = 0.95, draws: int = 1000, seed: int = 0) -> TwoWay:
    """Percentile interval of the mean when images and patches are both drawn anew (Owen's pigeonhole bootstrap,
    Annals of Applied Statistics 1, 2007).

    Here to be compared with `crossed_t_interval`: with eight patches it does not keep its level.

    Args:
        values: [unit, image, patch] without gaps.
        level, draws, seed: level in 0..1, number of draws, seed of the draws.

    Returns:
        As `crossed_t_interval`; p is twice the share of draws on the other side of 0, df is NaN.
    """
    values = np.asarray(values, float)
    generator = np.random.default_rng(seed)
    images, patches = (
        generator.multinomial(count, np.full(count, 1 / count), draws) / count for count in values.shape[1:]
    )
    means = np.einsum("di,uij,dj->ud", images, values, patches, optimize=True)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    side = np.minimum((means <= 0).mean(axis=1), (means >= 0).mean(axis=1))
    empty = np.full(len(values), np.nan)
    return TwoWay(
        values.mean(axis=(1, 2)), low, high, np.minimum(2 * side, 1), means.std(axis=1, ddof=1), empty
    )
