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


#: So many numbers are enough to find a sum; all of them must confirm it.
SEARCHED = 512


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
    want, largest = np.ravel(delta), float(np.abs(delta).max())
    if not largest or not distinct:
        return None
    outputs = np.stack([np.ravel(call.output) for call in distinct if call.output is not None])
    few = np.random.default_rng(0).permutation(want.size)[:SEARCHED]
    for factors_too in (False, True):
        for size in range(1, min(most, len(distinct)) + 1):
            chosen, factors = _best(want[few], outputs[:, few], size, factors_too)
            error = float(np.abs(want - factors @ outputs[list(chosen)]).max())
            if error <= relative * largest:
                found = zip(chosen, factors, strict=True)
                terms = [Term(distinct[i], float(factor)) for i, factor in found]
                return sorted(terms, key=lambda term: term.call.time)
    return None


def _best(
    want: Array, outputs: Array, size: int, factors_too: bool
) -> tuple[tuple[int, ...], Array]:
    """The rows of `outputs` whose sum comes nearest to `want`, and their factors."""
    best: tuple[float, tuple[int, ...], Array] = (np.inf, (), np.ones(size))
    for chosen in combinations(range(len(outputs)), size):
        rows = outputs[list(chosen)]
        factors = np.linalg.lstsq(rows.T, want, rcond=None)[0] if factors_too else np.ones(size)
        error = float(np.abs(want - factors @ rows).max())
        if error < best[0]:
            best = error, chosen, factors
    return best[1], best[2]
