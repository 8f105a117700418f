"""An edit: a user's function at one address, checked and counted each time it fires."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ..arrays import held, number
from ..errors import EditChangedNothing, EditError, EditNeverFired
from .instrument import under
from .positions import Place, Span, even, place, put, take, under_place
from .where import LimitedEdit, Where


@dataclass(slots=True)
class Call:
    """One call of a module in a run, as an edit or a hook sees it.

    Attributes:
        module: The module object.
        path: Its path from the root.
        args, kwargs: What the model passed (after earlier edits of the input).
        index: 0 for the module's first call in this run, 1 for its second, …
    """

    module: nn.Module
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int

    def held(self) -> Call:
        """The same call with handles of its own: what is done to them in place stays there."""
        kwargs = {name: held(value) for name, value in self.kwargs.items()} if self.kwargs else {}
        return Call(self.module, self.path, tuple(map(held, self.args)), kwargs, self.index)

    @property
    def wrapped(self) -> nn.Module:
        """The module, under the name that mlux gives it."""
        return self.module


@dataclass(frozen=True)
class EditReport:
    """What an edit did in a run: how often it fired, how many numbers it changed, how much."""

    address: str
    fired: int
    changed: int
    largest_change: float


def compared(value: mx.array, new: mx.array) -> tuple[mx.array, mx.array]:
    """How many numbers differ, and by how much at most; lazy."""
    differs: Any = new != value
    size = mx.abs(new.astype(mx.float32) - value.astype(mx.float32))
    return mx.sum(differs), mx.max(mx.where(differs, size, 0))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _style(fn: Callable[..., Any]) -> int:
    """1, 2 or 3 for fn(activation), fn(activation, call), fn(inputs, output, wrapper).

    A default counts as optional, so ``lambda x, scale=2: …`` takes one. A function that is used
    for very many edits says it in an attribute ``edit_arguments``, since looking takes a while.
    """
    known: int | None = getattr(fn, "edit_arguments", None)
    if known is not None:
        return known
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not positional:
        return 1
    if len(positional) not in (1, 2, 3):
        raise EditError(
            f"{fn!r} takes {len(positional)} arguments. Write fn(activation), "
            "fn(activation, call) or fn(inputs, output, wrapper)."
        )
    return len(positional)


class Edit:
    """A function to apply wherever a run passes `address`.

    Args:
        address: As the user wrote it, for messages.
        fn: ``fn(activation)``, ``fn(activation, call)`` or mlux's ``fn(inputs, output, wrapper)``;
            returns the activation to go on with. The three-argument form may return None, which
            means that it only looked. ``Where(…).edit(fn)`` sees chosen positions alone.
        allow_unchanged: Do not mind if no number changes (sweeps meet such cells). A function
            with a true attribute ``may_change_nothing`` says so itself, and is still counted.

    Attributes:
        named: For messages: the address, and the function's attribute ``label`` if it has one.
        axis: The axis of tokens in the value at the address; set by the run that plans the edit.
        span: Which tokens the pass under way runs; kept by whoever runs it.
    """

    def __init__(
        self, address: str, fn: Callable[..., Any], *, allow_unchanged: bool = False
    ) -> None:
        if not callable(fn):
            raise EditError(
                f"the edit at {address!r} is {type(fn).__name__}, not a function. "
                "To put a value there, use interventions.replace_with(value)."
            )
        self.address = address
        self.where: Where | None = None
        self.fn = self._fn = fn
        if isinstance(fn, LimitedEdit):
            self.where = None if fn.where.everywhere else fn.where
            self._fn = fn = fn.fn
        self.span: Span | None = None
        self.axis = 1
        self.allow_unchanged = allow_unchanged
        label = getattr(fn, "label", None)
        self.named = f"{address!r}, {label}" if isinstance(label, str) else repr(address)
        self.fired = 0
        self._style = _style(fn)
        self._only_looked = bool(getattr(fn, "may_change_nothing", False))
        self._counts: list[mx.array] = []
        self._sizes: list[mx.array] = []

    def apply(self, value: Any, call: Call) -> Any:
        """The edited value. Runs the user's function outside of any run, so it may call the model.

        Raises:
            EditError: if the result has another structure, shape or kind than `value`, or the
                edit is limited to positions that the value does not have.
        """
        pending = None if self.span is None else (self.span, self.axis, _first(value))
        if self.where is None:
            return self._apply(value, call, pending)
        here = None if pending is None else place(*pending)
        if here is None:
            count = 0 if self.span is None else self.span.end - self.span.start
            raise EditError(
                f"the edit at {self.address!r} is limited to some positions, and a value of shape "
                f"{tuple(getattr(_first(value), 'shape', ()))} does not have the {count} "
                f"token(s) of this pass on axis {self.axis}."
            )
        indices = self.where.indices(here)
        if not any(indices):
            return value
        if all(len(index) == len(row) for index, row in zip(indices, here.rows, strict=True)):
            return self._apply(value, call, here.part(indices, self.where.listed(here)))
        if not isinstance(value, mx.array):
            raise EditError(
                f"the edit at {self.address!r} is limited to some positions, and the module "
                f"returns {type(value).__name__}. Edit a point such as 'layers.N.resid_post'."
            )
        indices = even(indices)
        part = here.part(indices, self.where.listed(here))
        edited = self._apply(take(value, self.axis, indices), call, part)
        return put(value, self.axis, indices, edited)

    def _apply(self, value: Any, call: Call, here: Place | tuple[Span, int, Any] | None) -> Any:
        self.fired += 1
        passed = held(value)
        if self._style > 1:
            call = call.held()  # no way to the model by way of its arguments
        if self._style == 1:
            new = under_place(here, under, None, self._fn, passed)
        elif self._style == 2:
            new = under_place(here, under, None, self._fn, passed, call)
        else:
            new = under_place(here, under, None, self._fn, call.args, passed, call)
        if new is None and self._style == 3:
            new = passed
        # The function may have changed what it got in place, so it is compared all the same.
        self._only_looked = self._only_looked or new is passed
        return self._checked(value, new)

    def begin(self, span: Span) -> None:
        """Be told which tokens the pass to come runs.

        Raises:
            EditError: if the edit is limited to positions that are not there; see `Where.check`.
        """
        self.span = span
        if self.where is not None:
            self.where.check(span, self.address)

    def _checked(self, value: Any, new: Any) -> Any:
        if isinstance(value, mx.array):
            return self._checked_array(value, new)
        if isinstance(value, (tuple, list)) and isinstance(new, (tuple, list)):
            if len(value) != len(new):
                raise EditError(
                    f"the edit at {self.address!r} returned {len(new)} values for {len(value)}."
                )
            parts = [self._checked(v, n) for v, n in zip(value, new, strict=True)]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, (tuple, list)) and isinstance(new, mx.array):
            kinds = ", ".join(type(v).__name__ for v in value)
            raise EditError(
                f"the edit at {self.address!r} returned an array where the module returns "
                f"({kinds}). Return all of it, or edit a point such as 'layers.N.resid_post'."
            )
        if type(value) is not type(new):
            raise EditError(
                f"the edit at {self.address!r} returned {type(new).__name__} "
                f"for {type(value).__name__}."
            )
        return new

    def _checked_array(self, value: mx.array, new: Any) -> mx.array:
        where = f"the edit at {self.address!r} returned"
        if new is None:
            raise EditError(
                f"{where} None. Return the activation, unchanged if you only look at it."
            )
        if not isinstance(new, mx.array):
            raise EditError(f"{where} {type(new).__name__}, not mx.array. Return mx.array(…).")
        if new.shape != value.shape:
            raise EditError(f"{where} shape {new.shape}; the activation has {value.shape}.")
        if new.dtype != value.dtype:
            floats = mx.issubdtype(new.dtype, mx.floating), mx.issubdtype(value.dtype, mx.floating)
            if floats != (True, True):
                raise EditError(f"{where} {new.dtype}; the activation is {value.dtype}.")
            new = new.astype(value.dtype)
        if not self.allow_unchanged and value.size:
            self._note(value, new)
        return cast(mx.array, new)

    def _note(self, value: mx.array, new: mx.array) -> None:
        count, size = compared(value, new)
        self._counts.append(count)
        self._sizes.append(size)

    def pending(self) -> list[mx.array]:
        """Arrays that tell how much changed, to be evaluated together with the run's results."""
        return self._counts + self._sizes

    def report(self) -> EditReport:
        """What happened; evaluates the counts."""
        changed = int(sum(number(c) for c in self._counts))
        largest = max(map(number, self._sizes), default=0.0)
        return EditReport(self.address, self.fired, changed, largest)

    def settle(self) -> None:
        """Raise if the edit did nothing.

        Raises:
            EditNeverFired: if no call passed the address.
            EditChangedNothing: if it returned new arrays that equal the old ones throughout.
        """
        if self.fired == 0:
            raise EditNeverFired(
                f"the edit at {self.address!r} never fired: the model did not make that call "
                "in this run."
            )
        if self._counts and not self._only_looked and self.report().changed == 0:
            raise EditChangedNothing(
                f"the edit at {self.address!r} fired {self.fired} time(s) and changed no number. "
                "If that is expected, pass allow_unchanged=True."
            )
