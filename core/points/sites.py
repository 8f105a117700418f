"""Sites: where in the model's calls a point lives, how it is kept, read and edited there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from ..errors import AddressError, PointAbsent
from ..seams.attention import head_shares, merge_heads, split_heads
from ..seams.edits import Call, Edit
from ..seams.handlers import Handler
from ..seams.instrument import under


class Plan(Protocol):
    """What sites need of a run: handlers of modules to add to, and calls of a module apart.

    Attributes:
        handlers: Those that there are, by id of the module.
        derived: What it holds of each derived point, by address.
        everything: Whether it keeps whatever a point needs.
    """

    handlers: dict[int, Handler]
    derived: dict[str, Any]
    everything: bool

    def handler(self, path: str) -> Handler: ...

    def attention_handler(self, path: str) -> Handler: ...

    def call_answered(
        self, path: str, answer: Any, module: nn.Module, *args: Any, **kwargs: Any
    ) -> Any: ...


class Site(Protocol):
    """A place that a run can watch and edit.

    Attributes:
        key: The canonical address, the same for every spelling.
        inputs: Paths of the modules whose input must be kept to read it.
    """

    @property
    def key(self) -> str: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    def plan_watch(self, run: Plan) -> None: ...

    def plan_edit(self, run: Plan, edit: Edit) -> None: ...

    def read(self, run: Plan) -> Any: ...


def _first_array(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


def _with_first_array(value: Any, new: Any) -> Any:
    if isinstance(value, tuple):
        return (new, *value[1:])
    return [new, *value[1:]] if isinstance(value, list) else new


def first_argument(call: Call, position: int = 0) -> Any:
    """The tensor that a module is called with, positional or by keyword.

    Args:
        call: The call.
        position: Among the arguments, for the few modules whose first one is not meant.
    """
    given = (*call.args, *call.kwargs.values())
    if position >= len(given):
        raise AddressError(f"{call.path!r} is called without arguments: it has no input.")
    return given[position]


def set_first_argument(call: Call, new: Any, position: int = 0) -> None:
    """Put another tensor there before the module sees it; see `first_argument`."""
    if position < len(call.args):
        call.args = (*call.args[:position], new, *call.args[position + 1 :])
    else:
        name = list(call.kwargs)[position - len(call.args)]
        call.kwargs = {**call.kwargs, name: new}


def _one(key: str, path: str, found: Sequence[Any], call: int | None) -> Any:
    if not found:
        raise AddressError(f"{key!r} was not reached in this run: the model made no such call.")
    if call is not None:
        if call >= len(found):
            raise AddressError(f"{key!r}: the module was called {len(found)} time(s) in this run.")
        return found[call]
    if len(found) > 1:
        raise AddressError(
            f"{key!r} is ambiguous: {path or 'the model'!r} was called {len(found)} times in this "
            f"run. Choose a call of the module: {path + '#0'!r} … {f'{path}#{len(found) - 1}'!r}, "
            f"or {path + '.input#0'!r}."
        )
    return found[0]


@dataclass(frozen=True)
class ModuleSite:
    """The input or the output of a module's call.

    Attributes:
        edge: ``"input"`` (the first argument) or ``"output"``.
        call: Which call of the module. None edits all of them, and reads the only one.
        whole: Keep a tuple output as it is, and give a tuple of several calls; otherwise the
            first element of the only call is meant.
        heads: Split the last axis into this many heads, 0 for none.
        factor: What the model multiplies the value with before it goes on; the site's value is
            the product.
        argument: Position of the input among the arguments.
    """

    key: str
    path: str
    edge: str
    call: int | None = None
    whole: bool = False
    heads: int = 0
    factor: float = 1.0
    argument: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path,) if self.edge == "input" else ()

    def plan_watch(self, run: Plan) -> None:
        handler = run.handler(self.path)
        if self.edge == "input":
            handler.keep_input = True
        else:
            handler.keep_output = True

    def _view(self, value: Any) -> Any:
        value = value if self.whole else _first_array(value)
        value = value if self.factor == 1 else value * self.factor
        return split_heads(value, self.heads) if self.heads else value

    def read(self, run: Plan) -> Any:
        handler = run.handler(self.path)
        if self.edge == "input":
            call = _one(self.key, self.path, handler.calls, self.call)
            return self._view(first_argument(call, self.argument))
        if self.whole and self.call is None and len(handler.outputs) > 1:
            return tuple(handler.outputs)
        return self._view(_one(self.key, self.path, handler.outputs, self.call))

    def _edited(self, value: Any, call: Call, edit: Edit) -> Any:
        if self.call is not None and call.index != self.call:
            return value
        if self.heads:
            return merge_heads(edit.apply(split_heads(value, self.heads), call))
        if self.whole:
            return edit.apply(value, call)
        if self.factor != 1:
            own = _first_array(value)
            scaled = own * self.factor
            new = edit.apply(scaled, call)
            if new is scaled:
                return value
            # Numbers that the edit left alone stay as they are to the bit, and pass gradients on.
            same = own + (new - scaled) / self.factor
            return _with_first_array(value, mx.where(new == scaled, same, new / self.factor))
        return _with_first_array(value, edit.apply(_first_array(value), call))

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        handler = run.handler(self.path)
        if self.edge == "output":
            handler.changes.after.append(lambda call, output: self._edited(output, call, edit))
            return

        def before(call: Call) -> None:
            new = self._edited(first_argument(call, self.argument), call, edit)
            set_first_argument(call, new, self.argument)

        handler.changes.before.append(before)


@dataclass(frozen=True)
class AttentionSite:
    """A point inside an attention module, seen by its frame."""

    key: str
    path: str
    field: str
    inputs: tuple[str, ...] = ()

    def plan_watch(self, run: Plan) -> None:
        run.attention_handler(self.path).keep_points |= {self.field}

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        edits = run.attention_handler(self.path).changes.point_edits
        edits.setdefault(self.field, []).append(edit)

    def read(self, run: Plan) -> Any:
        frame = _one(self.key, self.path, run.handler(self.path).frames, None)
        if self.field not in frame and frame.calls:
            raise PointAbsent(
                self.key,
                f"in this run the attention of {self.path!r} did not go through the fused kernel "
                f"but through a softmax, where {self.field} cannot be seen: only 'scores' and "
                "'pattern' can.",
            )
        if self.field not in frame:
            raise PointAbsent(
                self.key,
                f"{self.path!r} computed no attention that mlxray can see "
                "(neither the fused kernel nor a softmax over keys was called).",
            )
        if frame.calls > 1:
            raise PointAbsent(
                self.key, f"{self.path!r} computes attention {frame.calls} times in one call."
            )
        return frame.read(self.field)


@dataclass(frozen=True)
class HeadOutSite:
    """Each head's share of the attention output, by way of the model's output projection."""

    key: str
    path: str
    heads: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.path,)

    def _shares(self, module: Callable[[mx.array], mx.array], merged: mx.array) -> mx.array:
        shares: mx.array = under(None, head_shares, module, merged, self.heads)
        return shares

    def plan_watch(self, run: Plan) -> None:
        run.handler(self.path).keep_input = True

    def read(self, run: Plan) -> Any:
        handler = run.handler(self.path)
        call = _one(self.key, self.path, handler.calls, None)
        if handler.made is not None and call.index in handler.made.shares:
            return handler.made.shares[call.index]
        return self._shares(call.module, first_argument(call))

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        # Not the handler itself: it owns this function, and would outlive the run in a cycle.
        edited = run.handler(self.path).changes.shares

        def after(call: Call, output: mx.array) -> mx.array:
            shares = edited.get(call.index)
            if shares is None:
                shares = self._shares(call.module, first_argument(call))
            new = edited[call.index] = edit.apply(shares, call)
            return output if new is shares else output + (new - shares).sum(axis=1)

        run.handler(self.path).changes.after.append(after)


@dataclass(frozen=True)
class ResidMidSite:
    """The residual stream between the sub-layers.

    It is watched where the MLP's norm receives it. No call returns it, so an edit changes what
    attention adds by just as much: the sum that the model then makes is the edited value, to one
    rounding of its dtype.

    Attributes:
        block: Path of the block, which receives the stream before.
        norm: Path of what receives the stream between.
        adds: Paths of what is added before it, in the order of their calls, each with the factor
            that the model multiplies it with.
        argument: Position of the stream among the block's arguments.
    """

    key: str
    block: str
    norm: str
    adds: tuple[tuple[str, float], ...]
    argument: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.norm,)

    def plan_watch(self, run: Plan) -> None:
        run.handler(self.norm).keep_input = True

    def read(self, run: Plan) -> Any:
        return first_argument(_one(self.key, self.norm, run.handler(self.norm).calls, None))

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        block = run.handler(self.block)
        block.keep_input = True
        entered = block.calls
        *earlier, (last, factor) = self.adds
        others = []
        for path, scale in earlier:
            run.handler(path).keep_output = True
            others.append((run.handler(path).outputs, scale))

        def after(call: Call, output: Any) -> Any:
            added = _first_array(output)
            pre = _first_array(first_argument(entered[-1], self.argument))
            for outputs, scale in others:
                pre = pre + _first_array(outputs[-1]) * scale
            mid = pre + (added if factor == 1 else added * factor)
            new = edit.apply(mid, call)
            if new is mid:
                return output
            wanted = (new.astype(mx.float32) - pre.astype(mx.float32)) / factor
            # Numbers that the edit left alone stay as they are to the bit, and pass gradients on.
            same = added + ((new - mid) / factor).astype(added.dtype)
            return _with_first_array(output, mx.where(new == mid, same, wanted.astype(added.dtype)))

        run.handler(last).changes.after.append(after)
