"""How far estimates can be trusted: the largest, and some others, patched exactly."""

from __future__ import annotations

from collections.abc import Sequence

from mlxray import InterpretableModel
from mlxray.arrays import nested
from mlxray.tokens import Batch

from ...patching.measure import Measure
from ...patching.patches import Patch
from ...patching.sweep import Sweep
from .result import AttributionResult, Certificate


def certify(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    result: AttributionResult,
    measure: Measure,
    positions: Sequence[int],
    top: int,
    drawn: int,
    seed: int,
) -> Certificate:
    """Patch the `top` largest estimates and `drawn` others, each at one (head and) position.

    Args:
        batches: Clean and corrupted prompt.
        result: The estimates to check.
        measure, positions: The metric, and the positions whose logits it gets.
        seed: For which others are drawn.
    """
    import numpy as np

    estimates = np.array(nested(result.by_position), dtype=np.float64)
    order = np.argsort(-np.abs(estimates), axis=None)
    rest = order[top:]
    picked = np.random.default_rng(seed).permutation(rest)[:drawn]
    chosen = [np.unravel_index(i, estimates.shape) for i in (*order[:top], *picked)]
    cells = []
    for index in chosen:
        layer = result.layers[int(index[0])]
        head = int(index[1]) if estimates.ndim == 3 else None
        cells.append((layer, head, int(index[-1])))
    exact = exact_effects(model, batches, result.component, cells, measure, positions)
    estimated = [float(estimates[index]) for index in chosen]
    tested = min(top, len(order))
    return Certificate(
        list(cells),
        estimated,
        exact,
        tested,
        correlation(estimated, exact),
        sign_agreement(estimated, exact),
        max((abs(e) for e in exact[tested:]), default=None),
    )


def exact_effects(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    component: str,
    cells: list[tuple[int, int | None, int]],
    measure: Measure,
    positions: Sequence[int],
) -> list[float]:
    """The metric's change when each cell (layer, head, position) is patched, exactly."""
    sweep = Sweep(model, batches[1], positions=positions)
    patches = [(Patch(component, layer, at, head),) for layer, head, at in cells]
    addresses = list(dict.fromkeys(patch.address for (patch,) in patches))
    values = sweep.sources(batches[0], addresses)
    base = measure.ends[1]
    return [value - base for value in sweep.effects(patches, values, measure.rows)]


def sign_agreement(estimated: list[float], exact: list[float]) -> float | None:
    """Share of equal signs among cells that are not zero but for rounding."""
    import numpy as np

    a, b = np.array(estimated), np.array(exact)
    real = np.abs(b) > 1e-5 * max(np.abs(b).max(initial=0.0), 1e-12)
    return float(np.mean(np.sign(a[real]) == np.sign(b[real]))) if real.any() else None


def correlation(a: list[float], b: list[float]) -> float | None:
    import numpy as np

    # Numbers that are equal but for rounding correlate with nothing.
    if len(a) < 2 or any(np.std(x) <= 1e-6 * np.abs(x).max() for x in (a, b)):
        return None
    return float(np.corrcoef(a, b)[0, 1])
