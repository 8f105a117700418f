"""How large a store will be and how long the harvest will take, before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from mlxray.arrays import evaluate

from .passes import Passes
from .plan import Plan

#: With fewer passes than this, timing some of them first is not worth it.
WORTH_TIMING = 60


@dataclass(frozen=True)
class Estimate:
    """What a harvest will take.

    Attributes:
        tokens: Tokens that the model reads.
        shards: Files.
        bytes: Room that the store takes, at most (excluded tokens take none).
        seconds: Time of the forward passes, from one that was timed; None if there are only a few.
        points: Number of points.
    """

    tokens: int
    shards: int
    bytes: int
    seconds: float | None
    points: int

    def __str__(self) -> str:
        text = (
            f"{self.tokens:,} tokens, {self.points} point(s): "
            f"{size_text(self.bytes)} in {self.shards} shard(s)"
        )
        return text if self.seconds is None else f"{text}, about {time_text(self.seconds)}"


def estimated(plan: Plan, seconds_per_row: float | None, rows: int, processes: int) -> Estimate:
    """The estimate for a plan of which `rows` rows are still to be computed."""
    seconds = None if seconds_per_row is None else seconds_per_row * rows / processes
    tokens = plan.data.tokens if plan.data is not None else plan.rows * plan.context
    # Contexts: three int32 for each token of each row.
    size = tokens * plan.row_bytes + 12 * plan.rows * plan.context
    return Estimate(tokens, plan.shards, size, seconds, len(plan.points))


def seconds_per_row(passes: Passes, plan: Plan, rows: int) -> float | None:
    """Time of a forward pass over one row; None if `rows` are too few to try it first."""
    if rows < WORTH_TIMING * plan.batch_size:
        return None
    tokens = np.zeros((plan.batch_size, plan.context), dtype=np.int32)
    kept = np.ones(tokens.shape, dtype=np.bool_)
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        evaluate(passes.start(tokens, kept).arrays())
        best = min(best, time.perf_counter() - started)
    return best / plan.batch_size


def size_text(count: float) -> str:
    """A number of bytes for people.

    >>> size_text(2.5e6)
    '2.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def time_text(seconds: float) -> str:
    """A time for people.

    >>> time_text(100 * 60)
    '1.7 h'
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
