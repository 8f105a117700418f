"""Gaps between clean and corrupted runs that a share of them should not be trusted for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal, get_args

from mlxray.display import counted
from mlxray.errors import AnalysisError, InputError, nearest

from .measure import Measure

#: How a share over several pairs is taken: of the means, or as a mean of the pairs' own shares.
Normalize = Literal["mean", "pair"]

#: A gap of fewer resolutions than this is said to be near the resolution.
_NEAR = 4

#: A gap below this share of another one is said to be small beside it.
_SMALL = 0.1

#: A pair whose gap is below this share of the median decides a mean of shares.
_DECIDES = 0.05


def check_normalize(normalize: str) -> None:
    """Raise InputError for something else than `Normalize`."""
    if normalize not in get_args(Normalize):
        raise InputError(f"normalize={normalize!r}: {nearest(str(normalize), get_args(Normalize))}")


def check_gaps(measures: Sequence[Measure], normalize: Normalize = "mean") -> None:
    """Refuse pairs whose gap gives nothing to divide by.

    Raises:
        AnalysisError: if the mean gap, or with ``normalize="pair"`` the gap of some pair, is no
            more than rounding.
    """
    if len(measures) == 1 or normalize == "pair":
        for measure in measures:
            measure.check_gap()
        return
    mean = statistics.fmean(measure.gap for measure in measures)
    noise = max(measure.resolution for measure in measures) / len(measures) ** 0.5
    if abs(mean) <= noise:
        raise AnalysisError(
            f"metric {measures[0].name!r} finds both runs alike on the mean of {len(measures)} "
            f"pairs (mean gap {mean:.2g}): nothing to recover."
        )


def gap_warnings(measures: Sequence[Measure], normalize: Normalize = "mean") -> list[str]:
    """What a reader should know of the gaps before trusting shares of them, as sentences."""
    return [
        *_mixed_signs([measure.gap for measure in measures], normalize),
        *_near_resolution(measures),
        *(_deciding([measure.gap for measure in measures]) if normalize == "pair" else []),
    ]


def empty_circuit_warning(gap: float, plain_gap: float) -> list[str]:
    """What to know where the circuit without edges does nearly what the whole model does.

    Args:
        gap: The metric of the clean run less that of the model without any edge.
        plain_gap: The metric of the clean run less that of the corrupted run.
    """
    if abs(gap) >= _SMALL * abs(plain_gap):
        return []
    return [
        f"the circuit without any edge is {abs(gap):.2g} away from the whole model, where the "
        f"corrupted run is {abs(plain_gap):.2g} away: faithfulness is a share of that small "
        "difference"
    ]


def _mixed_signs(gaps: Sequence[float], normalize: Normalize) -> list[str]:
    mean = statistics.fmean(gaps)
    signs = [[i for i, gap in enumerate(gaps) if sign * gap > 0] for sign in (-1, 1)]
    against = min(signs, key=len)
    if not against:
        return []
    said = (
        f"in {len(against)} of {counted(len(gaps), 'pair')} ({_listed(against, gaps)}) the metric "
        "goes the other way between corrupted and clean than in the others"
    )
    if normalize == "mean" and abs(mean) < _SMALL * statistics.fmean(map(abs, gaps)):
        said += f"; the gaps nearly cancel (mean {mean:.2g}), so shares of it are not stable"
    return [said]


def _near_resolution(measures: Sequence[Measure]) -> list[str]:
    near = [i for i, m in enumerate(measures) if abs(m.gap) < _NEAR * m.resolution]
    if not near:
        return []
    dtype = str(measures[near[0]].clean.dtype).rpartition(".")[2]
    if len(measures) == 1:
        share = measures[0].resolution / abs(measures[0].gap)
        return [
            f"the gap between clean and corrupted is near the resolution of {dtype} logits: "
            f"effects are sure to about {share:.0%} of it"
        ]
    gaps = [measure.gap for measure in measures]
    return [
        f"{counted(len(near), 'gap')} of {len(measures)} ({_listed(near, gaps)}) "
        f"{'is' if len(near) == 1 else 'are'} near the resolution of {dtype} logits"
    ]


def _deciding(gaps: Sequence[float]) -> list[str]:
    median = statistics.median(map(abs, gaps))
    small = [i for i, gap in enumerate(gaps) if abs(gap) < _DECIDES * median]
    if not small:
        return []
    return [
        f"{counted(len(small), 'gap')} of {len(gaps)} ({_listed(small, gaps)}) "
        f"{'is' if len(small) == 1 else 'are'} small beside the median {median:.2g}: normalized "
        "pair by pair, such pairs decide the mean"
    ]


def _listed(indices: Sequence[int], gaps: Sequence[float]) -> str:
    """Pairs and their gaps, the first few."""
    shown = [f"pairs[{i}]: {gaps[i]:.2g}" for i in indices[:3]]
    return ", ".join(shown) + ", …" * (len(indices) > 3)
