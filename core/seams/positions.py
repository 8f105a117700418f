"""Positions of tokens: counted in each prompt's own tokens, whatever part of them a pass runs.

A pass may run a whole prompt, a piece of it, one token behind a filled cache, or several prompts
padded to one length. An edit that means position 3, or the prompt's last token, means the same
token in all of them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from ..checks.arguments import whole_numbers
from ..errors import EditError, InputError

#: Indices of one row after the other, all of the same number.
Rows = Sequence[Sequence[int]]


def integers(who: str, values: Any) -> list[int]:
    """Positions, or steps, as integers: a list or an array of them, or one.

    Raises:
        EditError: if there are none, or one is no integer; the message begins with `who`.
    """
    given = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)):
        given = list(given)
        if not given:
            raise EditError(f"{who} got an empty list: it leaves nothing to act on.")
    try:
        return whole_numbers(given, who)
    except InputError:
        raise EditError(f"{who} takes integers; got {reprlib.repr(given)}.") from None


def cached_tokens(cache: Iterable[Any] | None) -> int:
    """How many tokens mlx-lm's caches hold."""
    found = 0
    for each in cache or ():
        offset = getattr(each, "offset", None)
        if isinstance(offset, int):
            found = max(found, offset)
        elif isinstance(getattr(each, "caches", None), (list, tuple)):
            found = max(found, cached_tokens(each.caches))
    return found


def tells_tokens(cache: Iterable[Any] | None) -> bool:
    """Whether caches that hold something tell how many tokens; those of state spaces do not."""
    several = list(cache or ())
    return cached_tokens(several) > 0 or all(
        not hasattr(each, "empty") or each.empty() for each in several
    )


@dataclass
class Span:
    """The tokens that a pass runs.

    Attributes:
        prompts: Tokens of each row's prompt, those that a cache holds before it included.
        start, end: Positions that the pass runs; end exclusive.
        generating: Whether what follows a prompt was generated; if not, it is padding.
        counted: Whether it is known how many tokens a filled cache holds. If not, positions count
            from the first one after it, and only those from a prompt's end can be named.
    """

    prompts: tuple[int, ...]
    start: int = 0
    end: int = 0
    generating: bool = False
    counted: bool = True

    def resolve(self, position: int, row: int) -> int:
        """A position counted from the front; negative ones count from the end of the prompt.

        Raises:
            EditError: if the row has no such token.
        """
        prompt = self.prompts[row]
        if position >= 0 and not self.counted:
            raise EditError(
                f"position {position} cannot be found: the cache does not tell how many tokens it "
                "holds. Count from the prompt's end."
            )
        if position < -prompt or (position >= prompt and not self.generating):
            which = f"prompt {row}" if len(set(self.prompts)) > 1 else "the prompt"
            raise EditError(f"there is no position {position}: {which} has {prompt} tokens.")
        return position + prompt if position < 0 else position


@dataclass(frozen=True)
class Place:
    """Which tokens an activation has.

    Attributes:
        axis: Its axis of tokens.
        rows: The position of each entry of that axis, row by row.
        span: The pass.
        listed: The positions that the edit is limited to, row by row; None for no such list.
    """

    axis: int
    rows: Rows
    span: Span
    listed: Rows | None = None

    @property
    def whole(self) -> int:
        """Tokens of an activation that has them all: of the prompt, or of the padded batch."""
        return max(self.span.prompts)

    def part(self, indices: Rows, listed: Rows | None) -> Place:
        """The place of some entries."""
        rows = [[row[i] for i in index] for row, index in zip(self.rows, indices, strict=True)]
        return Place(self.axis, rows, self.span, listed)

    def entries(self, size: int, who: str) -> list[list[int]]:
        """For each token here its entry in an array with `size` of them, row by row.

        An array has an entry for each token of the prompt, or for each position that the edit is
        limited to, in ascending order.

        Raises:
            EditError: if it has another number of them, or a token here is not among them.
        """
        if self.listed is not None and size == len(self.listed[0]):
            return [
                [listed.index(p) for p in row]
                for listed, row in zip(self.listed, self.rows, strict=True)
            ]
        if size != self.whole:
            raise EditError(
                f"{who}: the value has {size} tokens; the prompt has {self.whole}. Give one for "
                "each token, or one for all."
            )
        after = [p for row in self.rows for p in row if p >= size]
        if after:
            raise EditError(
                f"{who}: the value has one entry for each of the prompt's {size} tokens, and none "
                f"for position {after[0]}. Limit the edit: Where(generated=False).edit(…)."
            )
        return [list(row) for row in self.rows]


def place(span: Span, axis: int, value: Any) -> Place | None:
    """Which tokens a value has on an axis; None if it cannot be told.

    Keys and values behind a cache are those of all positions so far.
    """
    shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
    if len(shape) <= axis:
        return None
    count, alike = shape[axis], len(set(span.prompts)) == 1
    if count not in (span.end - span.start, span.end):
        return None
    if shape[0] != len(span.prompts):
        if not alike:
            return None
        span = replace(span, prompts=span.prompts[:1] * shape[0])
    positions = range(span.end - count, span.end)
    return Place(axis, [positions] * shape[0], span)


def unpadded(value: mx.array, span: Span, nothing: float) -> mx.array:
    """Scores or patterns (B, H, S, T) in which no row attends to its padding.

    Args:
        value: Of the pass that `span` tells; keys behind a cache are those of all positions so far.
        nothing: What stands where nothing is attended to.
    """
    alike = len(set(span.prompts)) == 1
    if span.generating or alike or value.shape[0] != len(span.prompts):
        return value
    keys = mx.arange(span.end - value.shape[-1], span.end)
    padding = keys[None] >= mx.array(span.prompts)[:, None]
    return mx.where(padding[:, None, None], mx.array(nothing, dtype=value.dtype), value)


#: Of the activation that an edit's function has got: its place, or what `place` makes it from.
_placed: ContextVar[Place | tuple[Span, int, Any] | None] = ContextVar("mlxray_place", default=None)


def under_place(
    here: Place | tuple[Span, int, Any] | None, function: Callable[..., Any], *args: Any
) -> Any:
    """Call `function`, for which `find_place` answers with this; None is no pass of a model."""
    token = _placed.set(here)
    try:
        return function(*args)
    finally:
        _placed.reset(token)


def find_place(activation: mx.array) -> Place | None:
    """Which tokens an edit's function has got; all of a batch's if no run has called it.

    None if that cannot be told.
    """
    here, shape = _placed.get(), tuple(activation.shape)
    if isinstance(here, tuple):
        here = place(*here)
        if here is None:
            return None
    if isinstance(here, Place) and (
        [shape[i] for i in (0, here.axis) if i < len(shape)] == [len(here.rows), len(here.rows[0])]
    ):
        return here
    if len(shape) < 2:
        return None
    rows, count = shape[0], shape[1]
    return Place(1, [range(count)] * rows, Span((count,) * rows, 0, count))


def place_of(activation: mx.array, who: str) -> Place:
    """The same, for an edit `who` needs to know.

    Raises:
        EditError: if it cannot be told.
    """
    here = find_place(activation)
    if here is None:
        raise EditError(
            f"{who}: which tokens these are cannot be told from shape {activation.shape}. Edit a "
            "point such as 'layers.N.resid_post'."
        )
    return here


def even(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of indices as long as the longest, which repeat their last one."""
    longest = max(map(len, rows))
    return [[*row, *[row[-1]] * (longest - len(row))] for row in rows]


def take(value: mx.array, axis: int, rows: Rows) -> mx.array:
    """Entries of an axis, of each row (axis 0) its own: (B, …, n, …)."""
    if all(row == rows[0] for row in rows):
        return value[(slice(None),) * axis + (mx.array(list(rows[0])),)]
    tokens_first = mx.moveaxis(value, axis, 1)
    picked = tokens_first[mx.arange(len(rows))[:, None], mx.array([list(row) for row in rows])]
    return mx.moveaxis(picked, 1, axis)


def put(value: mx.array, axis: int, rows: Rows, part: mx.array) -> mx.array:
    """A copy of `value` with `part` in the places that `take` takes it from."""
    if all(row == rows[0] for row in rows):
        new = mx.array(value)
        new[(slice(None),) * axis + (mx.array(list(rows[0])),)] = part
        return new
    new = mx.moveaxis(mx.array(value), axis, 1)
    index = mx.arange(len(rows))[:, None], mx.array([list(row) for row in rows])
    new[index] = mx.moveaxis(part, axis, 1)
    return mx.moveaxis(new, 1, axis)
