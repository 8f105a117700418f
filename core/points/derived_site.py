"""Where the values of a derived point are in a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import EditError
from ..seams.edits import Edit
from ..seams.instrument import under
from .derived import DerivedPoint, needs_text
from .sites import Plan, Site
from .together import Record, Step, Together


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
        _record(run, self).keep()
        for site in self.read_at:
            site.plan_watch(run)

    def read(self, run: Plan) -> Any:
        record = _record(run, self)
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
        record = _record(run, self)
        known = record.together
        if known is None or not _unbroken(known.marks, run):
            known = record.together = self._together(run, record)
        known.edits.append((self.unit, edit))

    def _together(self, run: Plan, record: Record) -> Together:
        made = Together(self.whole, self.point, record.kept)
        record.passing.append(made)
        before = _planned(run)
        places: dict[str, Step] = {}
        sites: dict[str, Site] = {}
        for number, site in enumerate(self.read_at):
            places[site.key] = Step(made, site.key, reads=number)
            sites[site.key] = site
        for number, site in enumerate(self.write_at):
            places.setdefault(site.key, Step(made, site.key)).writes = number
            sites[site.key] = site
        reading = {site.key for site in self.read_at}
        for key in sorted(sites, key=lambda key: key not in reading):
            sites[key].plan_edit(run, places[key])
            if key in reading:
                made.read_marks = _changed(before, run)
        made.marks = _changed(before, run)
        return made


def _record(run: Plan, site: DerivedSite) -> Record:
    if site.whole not in run.derived:
        reason = needs_text(site.point)
        run.derived[site.whole] = Record(kept=run.everything, needs_text=reason)
    record: Record = run.derived[site.whole]
    return record


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
