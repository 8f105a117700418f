"""How the kit compares: relative errors, and the guard against comparisons that cannot fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from .report import Row, Status

Array = npt.NDArray[Any]

#: Relative error that an identity may have in float32.
TOLERANCE = 1e-5

#: What an identity leaves out must matter by this much, or nothing is proven.
EFFECT = 100 * TOLERANCE


def numpy64(value: mx.array) -> Array:
    """An MLX array as float64."""
    if value.dtype == mx.bfloat16:
        value = value.astype(mx.float32)
    return np.asarray(value).astype(np.float64)


def distance(got: Array, want: Array) -> float:
    """Largest difference relative to the largest wanted number; infinite where shapes differ.

    Infinities must stand in the same places; NaN equals nothing.
    """
    if got.shape != want.shape:
        return float("inf")
    finite = np.isfinite(want)
    if np.isnan(want).any() or not np.array_equal(got[~finite], want[~finite]):
        return float("inf")
    if not finite.any():
        return 0.0
    got, want = got[finite], want[finite]
    if not np.isfinite(got).all():
        return float("inf")
    largest = float(np.abs(want).max())
    difference = float(np.abs(got - want).max())
    return difference / largest if largest else (0.0 if not difference else float("inf"))


@dataclass
class Tally:
    """Outcomes of one check of one point, layer by layer, until they become rows."""

    check: str
    point: str
    _found: dict[tuple[Status, str], tuple[list[int], list[float]]] = field(default_factory=dict)

    def note(
        self, status: Status, layer: int | None, reason: str = "", error: float | None = None
    ) -> None:
        """Add an outcome for a layer (None: for the model)."""
        layers, errors = self._found.setdefault((status, reason), ([], []))
        if layer is not None:
            layers.append(layer)
        if error is not None:
            errors.append(error)

    def equal(
        self,
        layer: int | None,
        got: Array,
        want: Array,
        *,
        without: Iterable[Array] = (),
        tolerance: float = TOLERANCE,
        reason: str = "",
    ) -> bool:
        """Prove that `got` is `want`.

        Args:
            layer: The layer that this is about.
            got: What the model computed.
            want: What the identity says.
            without: What the identity would say with one of its parts left out or wrong. Each
                must differ from `want` visibly, or the comparison could not have failed.
            tolerance: Relative error allowed.
            reason: A remark for the row if it is proven.
        """
        if got.shape != want.shape:
            self.note("failed", layer, f"has shape {got.shape}; the identity gives {want.shape}")
            return False
        error = distance(got, want)
        if not error <= tolerance:
            self.note("failed", layer, "the identity does not hold", error)
            return False
        visible = [distance(other, want) for other in without]
        if any(effect <= 100 * tolerance for effect in visible):
            text = "nothing is proven: a part of the identity has no visible effect"
            self.note("failed", layer, text, error)
            return False
        self.note("proven", layer, reason, error)
        return True

    def rows(self) -> list[Row]:
        """One row for each outcome and reason."""
        return [
            Row(
                self.check,
                self.point,
                tuple(sorted(set(layers))),
                status,
                max(errors, default=None),
                reason,
            )
            for (status, reason), (layers, errors) in self._found.items()
        ]


def random_like(shape: tuple[int, ...], seed: int) -> Any:
    """Standard normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape)
