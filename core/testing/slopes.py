"""Gradients at points against central differences along a direction."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from .attention import visible
from .effects import has_no_effect
from .numbers import Array, Tally, numpy64, random_like
from .report import Row
from .subject import Subject, address

#: Relative error of a slope: differences of float32 logits tell no more.
SLOPE = 2e-3

#: Sizes of the steps, relative to the activation, until one agrees: a large one crosses too much
#: of the curve or a router's choice of experts, a small one drowns in float32's rounding.
STEPS = (0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001)


def check_gradients(subject: Subject) -> Iterator[Row]:
    """The gradient's slope along a random direction is the one that small edits measure."""
    drawn = random_like(subject.logits.shape, seed=5) / np.sqrt(subject.logits.size)
    # Some models give minus infinity for tokens that must not come.
    weights: Array = np.where(np.isfinite(subject.logits), drawn, 0.0)
    held = mx.array(weights.astype(np.float32))
    keys = list(subject.sampled())
    if not keys:
        return
    tallies: dict[str, Tally] = {}
    try:
        _, found = subject.model.gradients(
            subject.tokens,
            lambda logits: mx.where(held == 0, 0, logits.astype(mx.float32) * held).sum(),
            [address(key) for key in keys],
        )
    except ValueError as refusal:
        reason = f"cannot be differentiated: {refusal}"
        yield Row("gradient", "model", (), "failed", None, reason)
        return
    for point, layer in keys:
        tally = tallies.setdefault(point, Tally("gradient", point))
        key = subject.layout.site(address((point, layer))).key
        gradient, value = numpy64(found[key]), subject.values[point, layer]
        if gradient.shape != value.shape or not np.isfinite(gradient).all():
            tally.note("failed", layer, f"shape {gradient.shape}, or not finite")
            continue
        size = float(np.linalg.norm(gradient))
        if not value.any():
            tally.note("skipped", layer, f"{point} is zero throughout")
            continue
        free = visible(value) if point in ("scores", "logits") else np.ones(value.shape, bool)
        noise: Array = random_like(value.shape, seed=3) * free
        direction = noise / np.linalg.norm(noise)
        if size:
            direction += gradient * free / size
        direction /= np.linalg.norm(direction)
        length = float(np.linalg.norm(value[free]))
        slope = float((gradient * direction).sum())
        along = _Line(subject, (point, layer), direction * length, weights)
        error = along.error(slope * length)
        if not slope and has_no_effect(subject, point, layer):
            tally.note("skipped", layer, "the model itself gives it no effect on the logits")
        elif error <= SLOPE:
            tally.note("proven", layer, error=error)
        else:
            tally.note("failed", layer, "small edits measure another slope", error)
    for tally in tallies.values():
        yield from tally.rows()


class _Line:
    """The metric along a line through an activation, measured by edits; float64 after the logits.

    Attributes:
        direction: As long as the activation, so that steps are relative to it.
    """

    def __init__(
        self, subject: Subject, key: tuple[str, int | None], direction: Array, weights: Array
    ) -> None:
        self.subject = subject
        self.address = address(key)
        self.direction = direction
        self.weights = weights

    def slope(self, step: float) -> float:
        """Central difference over two edits."""
        return (self._metric(step) - self._metric(-step)) / (2 * step)

    def error(self, slope: float) -> float:
        """Relative error of `slope` by the step that agrees best, or by two steps extrapolated."""
        best, before = float("inf"), None
        for step in STEPS if slope else ():
            measured = self.slope(step)
            best = min(best, abs(measured / slope - 1))
            if before is not None and best > SLOPE:
                ratio = (before[0] / step) ** 2
                better = (ratio * measured - before[1]) / (ratio - 1)
                best = min(best, abs(better / slope - 1))
            if best <= SLOPE:
                break
            before = step, measured
        return best

    def _metric(self, size: float) -> float:
        add = mx.array((size * self.direction).astype(np.float32))
        logits = self.subject.edited([(self.address, lambda a: a + add)])
        used = self.weights != 0
        return float((logits[used] * self.weights[used]).sum())
