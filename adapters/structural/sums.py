"""Which outputs add up to what a block adds to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .record import Array, Seen


def tolerance(*arrays: Array) -> float:
    """Relative error to allow in a sum of such arrays.

    Half precision is known by its short mantissas; the model rounds after each addition there.
    """
    half = all(np.array_equal(a.astype(np.float16).astype(np.float64), a) for a in arrays)
    brain = all(_as_bfloat16(a) for a in arrays)
    return 4e-2 if half or brain else 2e-5


def _as_bfloat16(array: Array) -> bool:
    bits = array.astype(np.float32).view(np.uint32)
    return not bool((bits & 0xFFFF).any())


def close(a: Array | None, b: Array | None, relative: float = 1e-6) -> bool:
    """Whether two arrays are the same numbers."""
    if a is None or b is None or a.shape != b.shape:
        return False
    largest = float(np.abs(b).max(initial=0))
    return bool(np.abs(a - b).max(initial=0) <= relative * largest)


@dataclass(frozen=True)
class Term:
    """A call whose output, times a factor, reaches the residual stream."""

    call: Seen
    factor: float = 1.0


def terms_of(
    delta: Array, calls: Sequence[Seen], relative: float, most: int = 3
) -> list[Term] | None:
    """Few calls whose outputs add up to `delta`, in their order; None if there are none.

    Plain sums go before sums with factors, and few terms before many.

    Args:
        delta: What the block adds, (B, S, D).
        calls: Candidates; of several with the same output the outermost one is named.
        relative: Error to allow.
        most: How many calls at most.
    """
    distinct: list[Seen] = []
    for call in sorted(calls, key=lambda c: (c.path.count("."), c.time)):
        if call.output is None or call.output.shape != delta.shape or not call.output.any():
            continue
        if not any(close(call.output, other.output) for other in distinct):
            distinct.append(call)
    outputs = [np.ravel(call.output) for call in distinct if call.output is not None]
    want = np.ravel(delta)
    largest = float(np.abs(want).max())
    if not largest:
        return None
    allowed = relative * largest
    for size in range(1, most + 1):
        best: tuple[float, tuple[int, ...]] = (np.inf, ())
        for chosen in combinations(range(len(outputs)), size):
            error = float(np.abs(want - sum(outputs[i] for i in chosen)).max())
            best = min(best, (error, chosen))
        if best[0] <= allowed:
            return sorted((Term(distinct[i]) for i in best[1]), key=lambda t: t.call.time)
    for size in range(1, most + 1):
        found = _scaled(want, outputs, size, allowed)
        if found is not None:
            factors, chosen = found
            terms = [Term(distinct[i], f) for i, f in zip(chosen, factors, strict=True)]
            return sorted(terms, key=lambda t: t.call.time)
    return None


def _scaled(
    want: Array, outputs: Sequence[Array], size: int, allowed: float
) -> tuple[list[float], tuple[int, ...]] | None:
    best: tuple[float, list[float], tuple[int, ...]] = (np.inf, [], ())
    for chosen in combinations(range(len(outputs)), size):
        columns = np.stack([outputs[i] for i in chosen], 1)
        factors = np.linalg.lstsq(columns, want, rcond=None)[0]
        error = float(np.abs(want - columns @ factors).max())
        best = min(best, (error, [float(f) for f in factors], chosen))
    return (best[1], best[2]) if best[0] <= allowed else None
