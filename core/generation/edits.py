"""Edits as a generation applies them: counted over all of its passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..seams.edits import Edit


@dataclass(frozen=True)
class Tally:
    """What an edit did up to the end of a pass; the arrays are lazy."""

    fired: int
    changed: mx.array
    largest: mx.array


class CountedEdit(Edit):
    """An edit that tells after each pass of a generation what it did so far.

    Args:
        address, fn, allow_unchanged: As in `Edit`.
    """

    def __init__(self, address: str, fn: Callable[..., Any], *, allow_unchanged: bool) -> None:
        super().__init__(address, fn, allow_unchanged=allow_unchanged)
        self._tally = Tally(0, mx.array(0, dtype=mx.int64), mx.array(0.0))

    def tally(self) -> Tally:
        """What it did so far, this pass included."""
        changed, largest = self._tally.changed, self._tally.largest
        for count, size in zip(self._counts, self._sizes, strict=True):
            changed, largest = changed + count, mx.maximum(largest, size)
        self._counts.clear()
        self._sizes.clear()
        self._tally = Tally(self.fired, changed, largest)
        return self._tally

    def close(self, tally: Tally) -> None:
        """End with what was done up to `tally`, and raise if that is nothing; see `settle`."""
        self.fired = tally.fired
        if not self.allow_unchanged:
            self._counts, self._sizes = [tally.changed], [tally.largest]
        self.settle()
