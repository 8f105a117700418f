"""Edits as a generation applies them: counted over all of its passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..arrays import held
from ..seams.edits import Edit, compared

#: Comparing takes ten operations on the device, more than most edits of one token take. So pairs of
#: up to so many numbers wait, and are compared so many at a time.
SMALL, TOGETHER = 2**16, 16


@dataclass(frozen=True)
class Tally:
    """What an edit did up to the end of a pass; the arrays are lazy.

    Attributes:
        waiting: Values before and after the edit that are not in `changed` and `largest` yet.
    """

    fired: int
    changed: mx.array
    largest: mx.array
    waiting: tuple[tuple[mx.array, mx.array], ...] = ()

    def arrays(self) -> list[mx.array]:
        """All arrays, to be evaluated with the pass: left for later they would hold its graph."""
        pairs = [array for pair in self.waiting for array in pair]
        return [self.changed, self.largest, *pairs] if self.fired else []

    def with_counts(self, counts: list[mx.array], sizes: list[mx.array]) -> Tally:
        """This and what was counted besides; nothing waits."""
        if self.waiting:
            before, after = zip(*self.waiting, strict=True)
            count, size = compared(_joined(before), _joined(after))
            counts, sizes = [*counts, count], [*sizes, size]
        changed, largest = self.changed, self.largest
        for count, size in zip(counts, sizes, strict=True):
            changed, largest = changed + count, mx.maximum(largest, size)
        return Tally(self.fired, changed, largest)


class CountedEdit(Edit):
    """An edit that tells after each pass of a generation what it did so far.

    Args:
        address, fn, allow_unchanged: As in `Edit`.
    """

    def __init__(self, address: str, fn: Callable[..., Any], *, allow_unchanged: bool) -> None:
        super().__init__(address, fn, allow_unchanged=allow_unchanged)
        self._tally = Tally(0, mx.array(0, dtype=mx.int64), mx.array(0.0))
        self._waiting: list[tuple[mx.array, mx.array]] = []

    def _note(self, value: mx.array, new: mx.array) -> None:
        if value.size <= SMALL and mx.issubdtype(value.dtype, mx.floating):
            self._waiting.append((held(value), held(new)))  # the model may change them in place
        else:
            super()._note(value, new)

    def tally(self) -> Tally:
        """What it did so far, this pass included."""
        last = self._tally
        made = Tally(self.fired, last.changed, last.largest, (*last.waiting, *self._waiting))
        if self._counts or len(made.waiting) >= TOGETHER:
            made = made.with_counts(self._counts, self._sizes)
        self._counts.clear()
        self._sizes.clear()
        self._waiting.clear()
        self._tally = made
        return made

    def close(self, tally: Tally) -> None:
        """End with what was done up to `tally`, and raise if that is nothing; see `settle`."""
        self.fired = tally.fired
        if not self.allow_unchanged:
            tally = tally.with_counts([], [])
            self._counts, self._sizes = [tally.changed], [tally.largest]
        self.settle()


def _joined(arrays: Iterable[mx.array]) -> mx.array:
    return mx.concatenate([array.reshape(-1) for array in arrays])
