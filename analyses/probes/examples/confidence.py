"""How far a score on held-out examples can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist

import mlx.core as mx
import numpy as np

from mlxray.arrays import number

from ...patching.intervals import mean_and_interval
from .labels import Codes, Floats

LEVEL = 0.95


def wilson(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The Wilson score interval of a share of `count` independent trials (Wilson 1927).

    >>> [round(end, 3) for end in wilson(0.5, 10)]
    [0.237, 0.763]
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z / (1 + z * z / count) * math.sqrt(spread)
    # Where all or none hit, one end is the share itself, up to rounding.
    return 0.0 if share == 0 else middle - half, 1.0 if share == 1 else middle + half


def accuracy_interval(hits: Floats, groups: Codes | None) -> tuple[float, float]:
    """Interval of the mean of `hits` (N,), each 0 or 1.

    With groups their number counts instead of the examples', as if those of one group were right
    or wrong together: that is the widest that it can be.
    """
    count = len(hits) if groups is None else len(np.unique(groups))
    return wilson(float(np.mean(hits)), count)


def explained_interval(
    errors: Floats, spreads: Floats, groups: Codes | None, seed: int
) -> tuple[float, float]:
    """Bootstrap interval of 1 − Σ errors / Σ spreads, examples (or whole groups) being drawn.

    Args:
        errors: (N,) squared errors of the prediction.
        spreads: (N,) squared errors of the mean.
        groups: (N,) groups.
        seed: Of the draws.
    """
    which = np.arange(len(errors)) if groups is None else np.unique(groups, return_inverse=True)[1]
    numerators, wholes = np.bincount(which, errors), np.bincount(which, spreads)
    values = [mx.array(float(each)) for each in numerators]
    _, ends = mean_and_interval(values, seed, level=LEVEL, gaps=wholes.tolist())
    if ends is None:
        return -math.inf, 1.0
    return 1 - number(ends[1]), 1 - number(ends[0])
