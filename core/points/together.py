"""Edits of one derived point in one run, which act together.

They see the values of one reading, one after the other, and the activation changes once. So their
order matters no more than it does for numbers of one activation, and a value that no edit touches
keeps every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from ..arrays import held
from ..errors import EditError
from ..seams.edits import Call, Edit
from ..seams.instrument import under
from .derived import Change, DerivedPoint


@dataclass(eq=False)
class Record:
    """What a run holds of one derived point.

    Attributes:
        kept: Whether its values are read after the pass.
        needs_text: Why the pass has to begin where the text begins; None if it need not.
        value: The values without edits, once they were read.
        together: The edits that were planned last.
        passing: All that were planned.
    """

    kept: bool = False
    needs_text: str | None = None
    value: mx.array | None = None
    together: Together | None = None
    passing: list[Together] = field(default_factory=list)

    def keep(self) -> None:
        """The values will be read after the pass."""
        self.kept = True
        for together in self.passing:
            together.kept = True

    def restart(self) -> None:
        """Let go of what the last pass left."""
        self.value = None
        for together in self.passing:
            together.clear()


class Together:
    """Edits of one derived point that nothing else was planned between.

    Attributes:
        edits: The value that each edits (None for all) and the edit, in order.
        marks, read_marks: How much is planned at the modules of all places, and of those read:
            more than that, and another edit acts there since.
        made: Whether the edits acted in this pass.
        kept: Whether the values are read after the pass.
    """

    def __init__(self, whole: str, point: DerivedPoint, kept: bool) -> None:
        self.edits: list[tuple[int | None, Edit]] = []
        self.marks: Mapping[Any, int] = {}
        self.read_marks: Mapping[Any, int] = {}
        self.made = False
        self.kept = kept
        self._whole, self._point = whole, point
        self._inputs: dict[int, mx.array] = {}
        self._change: Change | None = None
        self._values: mx.array | None = None
        self._parts: dict[int, mx.array] = {}

    def clear(self) -> None:
        """Be ready for another pass."""
        self.made, self._change, self._values = False, None, None
        self._inputs.clear()
        self._parts.clear()

    def look(self, number: int, activation: mx.array) -> None:
        """Take what is read at one address; a new call of the module begins anew."""
        if self.made or number in self._inputs:
            self.clear()
        self._inputs[number] = held(activation)  # the model may go on in its place

    def put(self, number: int, activation: mx.array, call: Call) -> mx.array:
        """The activation at ``writes[number]`` with the edits in it."""
        point = self._point
        if not self.made:
            self._edit(call)
        change = self._change
        if change is not None:
            new = under(None, point.write, number, activation, change)
            if new.shape != activation.shape:
                raise EditError(
                    f"{self._whole!r} made shape {new.shape} of {activation.shape} at "
                    f"{point.writes[number]!r}."
                )
            activation = new.astype(activation.dtype)
        if number == len(point.writes) - 1 and not self.kept:
            self.clear()
        return activation

    def value(self, unit: int | None) -> mx.array:
        """The values after the edits, or one of them."""
        assert self._values is not None
        if unit is None:
            return _with_parts(self._values, self._parts)
        return self._parts[unit] if unit in self._parts else self._values[..., unit]

    def _edit(self, call: Call) -> None:
        point = self._point
        missing = [a for number, a in enumerate(point.reads) if number not in self._inputs]
        if missing:
            raise EditError(
                f"{self._whole!r} reads {', '.join(map(repr, missing))}, which the model has not "
                f"computed when it comes to {call.path!r}, where a change is written. What is "
                "written comes after what is read."
            )
        inputs = tuple(self._inputs[number] for number in range(len(point.reads)))
        old: mx.array = under(None, point.read, inputs)
        values, parts = old, self._parts
        for unit, edit in self.edits:
            if unit is None:
                values = edit.apply(_with_parts(values, parts), call)
                parts.clear()
                continue
            own = parts[unit] if unit in parts else values[..., unit]
            new = edit.apply(own, call)
            if new is not own:
                parts[unit] = new
        self.made, self._values = True, values
        if values is not old:
            self._change = Change(inputs, old, _with_parts(values, parts), None)
        elif parts:
            units = tuple(sorted(parts))
            new = mx.stack([parts[unit] for unit in units], axis=-1)
            self._change = Change(inputs, old[..., mx.array(units)], new, units)


class Step(Edit):
    """What the edits of a derived point do at one address: look, change, or both.

    Args:
        together: The edits.
        address: The address.
        reads, writes: Its number among those that are read, and written.
    """

    def __init__(
        self,
        together: Together,
        address: str,
        reads: int | None = None,
        writes: int | None = None,
    ) -> None:
        super().__init__(address, held_as_it_is, allow_unchanged=True)
        self.reads, self.writes = reads, writes
        self._together = together

    def apply(self, value: Any, call: Call) -> Any:
        self.span = self._together.edits[0][1].span
        if self.reads is not None:
            self._together.look(self.reads, value)
        return value if self.writes is None else self._together.put(self.writes, value, call)


def held_as_it_is(activation: mx.array) -> mx.array:
    """The activation itself."""
    return activation


def _with_parts(values: mx.array, parts: Mapping[int, mx.array]) -> mx.array:
    """All values, some of them replaced by others (B, S)."""
    if not parts:
        return values
    new = mx.array(values)
    new[..., mx.array(list(parts))] = mx.stack(list(parts.values()), axis=-1)
    return new
