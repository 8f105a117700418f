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
#: of the curve, a small one drowns in float32's rounding.
STEPS = (0.015, 0.005, 0.0015, 0.05, 0.0005, 0.00015)


def check_gradients(subject: Subject) -> Iterator[Row]:
    """The gradient's slope along a random direction is the one that small edits measure."""
    weights: Array = random_like(subject.logits.shape, seed=5) / np.sqrt(subject.logits.size)
    held = mx.array(weights.astype(np.float32))
    keys = list(subject.sampled())
    if not keys:
        return
    tallies: dict[str, Tally] = {}
    _, found = subject.model.gradients(
        subject.tokens,
        lambda logits: (logits.astype(mx.float32) * held).sum(),
        [address(key) for key in keys],
    )
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
        free = visible(value) if point == "scores" else np.ones(value.shape, bool)
        noise: Array = random_like(value.shape, seed=3) * free
        direction = noise / np.linalg.norm(noise)
        if size:
            direction += gradient * free / size
        direction /= np.linalg.norm(direction)
        length = float(np.linalg.norm(value[free]))
        slope = float((gradient * direction).sum())
        error = float("inf")
        for step in STEPS:
            measured = _measured(subject, point, layer, direction, step * length, weights)
            if not slope and not measured:
                break
            error = min(error, abs(measured / slope - 1) if slope else float("inf"))
            if error <= SLOPE:
                break
        if not slope and has_no_effect(subject, point, layer):
            tally.note("skipped", layer, "the model itself gives it no effect on the logits")
        elif error <= SLOPE:
            tally.note("proven", layer, error=error)
        else:
            tally.note("failed", layer, "small edits measure another slope", error)
    for tally in tallies.values():
        yield from tally.rows()


def _measured(
    subject: Subject, point: str, layer: int | None, direction: Array, step: float, weights: Array
) -> float:
    """Slope by four edits (two sizes of step, extrapolated), float64 after the logits."""

    def metric(size: float) -> float:
        add = mx.array((size * direction).astype(np.float32))
        logits = subject.edited([(address((point, layer)), lambda a: a + add)])
        return float((logits * weights).sum())

    wide = (metric(step) - metric(-step)) / (2 * step)
    narrow = (metric(step / 2) - metric(-step / 2)) / step
    return (4 * narrow - wide) / 3
