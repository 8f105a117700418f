"""Edits as a generation applies them: at absolute positions, counted over all of its passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..arrays import held
from ..errors import EditError
from ..points.vocabulary import POINTS, parse
from ..seams.edits import Call, Edit
from .where import LimitedEdit, Where


@dataclass
class Span:
    """What the pass that is under way covers: positions `start` to `end`, after the prompt's."""

    prompt: int
    start: int = 0
    end: int = 0


def tokens_axis(key: str) -> int:
    """The axis of tokens in the value at an address; 1 in what modules return."""
    name = parse(key).name
    return POINTS[name].axes.split().index("S") if name in POINTS else 1


@dataclass(frozen=True)
class Tally:
    """What an edit did up to the end of a pass; the arrays are lazy."""

    fired: int
    changed: mx.array
    largest: mx.array


class PlacedEdit(Edit):
    """An edit whose function sees only the positions where it acts.

    Args:
        key: Canonical address.
        fn: The user's function, or one with its place.
        span: Kept current by whoever runs the passes.
        allow_unchanged: As in `Edit`.
    """

    def __init__(
        self, key: str, fn: Callable[..., Any], span: Span, *, allow_unchanged: bool
    ) -> None:
        self.where = fn.where if isinstance(fn, LimitedEdit) else Where()
        super().__init__(
            key, fn.fn if isinstance(fn, LimitedEdit) else fn, allow_unchanged=allow_unchanged
        )
        self._span = span
        self._axis = tokens_axis(key)
        self._tally = Tally(0, mx.array(0, dtype=mx.int64), mx.array(0.0))

    def apply(self, value: Any, call: Call) -> Any:
        """The edited value; the same value where this pass has none of the positions."""
        if self.where.everywhere:
            return super().apply(value, call)
        first, count = self._positions(value)
        inside, prompt = self.where.inside, self._span.prompt
        chosen = [i for i in range(count) if inside(first + i, prompt)]
        if not chosen:
            return value
        if len(chosen) == count:
            return super().apply(value, call)
        if not isinstance(value, mx.array):
            raise EditError(
                f"the edit at {self.address!r} is limited to some positions, and the module "
                f"returns {type(value).__name__}. Edit a point such as 'layers.N.resid_post'."
            )
        index = mx.array(chosen)
        places = (slice(None),) * self._axis + (index,)
        edited = super().apply(value[places], call)
        whole = held(value)
        whole[places] = edited
        return whole

    def _positions(self, value: Any) -> tuple[int, int]:
        """The first position of a value, and how many it has."""
        array = value[0] if isinstance(value, (tuple, list)) and value else value
        shape = getattr(array, "shape", ())
        count = shape[self._axis] if len(shape) > self._axis else 0
        # Keys and values under a cache are those of all positions so far.
        if count not in (self._span.end - self._span.start, self._span.end):
            raise EditError(
                f"the edit at {self.address!r} is limited to some positions, and a value of shape "
                f"{tuple(shape)} does not have the {self._span.end - self._span.start} token(s) "
                f"of this pass on axis {self._axis}."
            )
        return self._span.end - count, count

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
