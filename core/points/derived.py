"""Derived points: values computed from activations, which can be read, edited and written back.

The features of a sparse dictionary are one; coordinates in a subspace would be another. A derived
point is two functions: from activations to its values, and from a change of its values to the
activation that the model goes on with. What the values do not describe stays as it is, since a
change is added to the activation and nothing is rebuilt from the values.

Edits of one derived point in one run act together: they see the values of one reading, one after
the other, and the activation changes once. So their order matters no more than it does for numbers
of one activation, and a value that no edit touches keeps every bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mlx.core as mx

from ..errors import EditError
from ..seams.edits import Call, Edit
from ..seams.instrument import under
from .sites import Plan, Site


@dataclass(frozen=True)
class Change:
    """How values of a derived point are changed.

    Attributes:
        inputs: What the point read, one activation for each address.
        old, new: (B, S, n) the values before and after: all n of them, or those of `units`.
        units: Which values, ascending; None for all.
    """

    inputs: tuple[mx.array, ...]
    old: mx.array
    new: mx.array
    units: tuple[int, ...] | None


class DerivedPoint(Protocol):
    """Values computed from activations, token by token, and the way back.

    Attributes:
        unit: What one value is called, such as ``"feature"``.
        count: How many values a token has.
        reads: Addresses that the values are computed from.
        writes: Addresses that a change of the values changes. The model computes all of `reads`
            before the first of them; the only one read may be among them.
        fixed: Why the values can be watched and not edited; None if they can be edited.
    """

    @property
    def unit(self) -> str: ...

    @property
    def count(self) -> int: ...

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def writes(self) -> tuple[str, ...]: ...

    @property
    def fixed(self) -> str | None: ...

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        """The values (B, S, count) of activations, one for each of `reads`.

        Raises:
            InputError: if an activation has a shape that does not fit.
        """

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        """The activation at ``writes[number]`` after a change; it is the same where none is made.

        Raises:
            InputError: if the activation has a shape that does not fit.
        """


@dataclass(frozen=True)
class DerivedSite:
    """The values of a derived point in a model: (B, S, count), or (B, S) of one of them.

    Attributes:
        whole: Address of all values.
        point: The derived point.
        read_at, write_at: The places that it reads and writes.
        unit: Which value; None for all.
    """

    whole: str
    point: DerivedPoint
    read_at: tuple[Site, ...]
    write_at: tuple[Site, ...]
    unit: int | None = None

    @property
    def key(self) -> str:
        """The canonical address."""
        return self.whole if self.unit is None else f"{self.whole}.{self.unit}"

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(path for site in self.read_at for path in site.inputs)

    def plan_watch(self, run: Plan) -> None:
        _record(run, self.whole).keep()
        for site in self.read_at:
            site.plan_watch(run)

    def read(self, run: Plan) -> Any:
        record = _record(run, self.whole)
        edited = record.together
        if edited is not None and edited.made and _unbroken(edited.read_marks, run):
            return edited.value(self.unit)
        if record.value is None:
            found = [site.read(run) for site in self.read_at]
            record.value = under(None, self.point.read, found)
        return record.value if self.unit is None else record.value[..., self.unit]

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        if self.point.fixed is not None:
            raise EditError(f"{self.key!r} can be watched and not edited: {self.point.fixed}.")
        record = _record(run, self.whole)
        known = record.together
        if known is None or not _unbroken(known.marks, run):
            known = record.together = self._together(run, record)
        known.edits.append((self.unit, edit))

    def _together(self, run: Plan, record: _Record) -> _Together:
        made = _Together(self.whole, self.point, record.kept)
        record.passing.append(made)
        before = _planned(run)
        places: dict[str, _Step] = {}
        sites: dict[str, Site] = {}
        for number, site in enumerate(self.read_at):
            places[site.key] = _Step(made, site.key, reads=number)
            sites[site.key] = site
        for number, site in enumerate(self.write_at):
            places.setdefault(site.key, _Step(made, site.key)).writes = number
            sites[site.key] = site
        reading = {site.key for site in self.read_at}
        for key in sorted(sites, key=lambda key: key not in reading):
            sites[key].plan_edit(run, places[key])
            if key in reading:
                made.read_marks = _changed(before, run)
        made.marks = _changed(before, run)
        return made


@dataclass(eq=False)
class _Record:
    """What a run holds of one derived point.

    Attributes:
        kept: Whether its values are read after the pass.
        value: The values without edits, once they were read.
        together: The edits that were planned last.
        passing: All that were planned.
    """

    kept: bool = False
    value: mx.array | None = None
    together: _Together | None = None
    passing: list[_Together] = field(default_factory=list)

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


def _record(run: Plan, whole: str) -> _Record:
    if whole not in run.derived:
        run.derived[whole] = _Record(kept=run.everything)
    record: _Record = run.derived[whole]
    return record


class _Together:
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
        self._inputs[number] = activation

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


class _Step(Edit):
    """What the edits of a derived point do at one address: look, change, or both.

    Args:
        together: The edits.
        address: The address.
        reads, writes: Its number among those that are read, and written.
    """

    def __init__(
        self,
        together: _Together,
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


def _planned(run: Plan) -> dict[Any, int]:
    """How many changes are planned, by module and by where in its call."""
    found: dict[Any, int] = {}
    for name, handler in run.handlers.items():
        made = handler.made
        if made is not None:
            found[name, "before"], found[name, "after"] = len(made.before), len(made.after)
            found |= {(name, field): len(edits) for field, edits in made.point_edits.items()}
    return found


def _changed(before: Mapping[Any, int], run: Plan) -> dict[Any, int]:
    return {place: n for place, n in _planned(run).items() if n != before.get(place, 0)}


def _unbroken(marks: Mapping[Any, int], run: Plan) -> bool:
    """Whether nothing else was planned at these places since."""
    now = _planned(run) if marks else {}
    return all(now.get(place) == n for place, n in marks.items())
