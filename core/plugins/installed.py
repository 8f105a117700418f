"""Entry points of the group ``mlxray``: which distributions bring plugins."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any

GROUP = "mlxray"


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from: the entry point, and the distribution that has it."""

    plugin: str
    distribution: str
    version: str

    @property
    def key(self) -> str:
        """Unique among all plugins, since two distributions may use one entry-point name."""
        return f"{self.distribution}:{self.plugin}"


def installed(unreadable: Callable[[Source, BaseException], None]) -> list[EntryPoint]:
    """Every entry point of the group, mlxray's own first.

    Args:
        unreadable: Called for a distribution whose list of entry points cannot be read.
    """
    try:
        found = list(entry_points(group=GROUP))
    except Exception:  # noqa: BLE001  (one list is broken; which one is found below)
        found = _one_by_one(unreadable)
    return sorted(found, key=_own_first)


def _one_by_one(unreadable: Callable[[Source, BaseException], None]) -> list[EntryPoint]:
    found: dict[tuple[str, str], EntryPoint] = {}
    for distribution in distributions():
        try:
            own = distribution.entry_points.select(group=GROUP)
        except Exception as error:  # noqa: BLE001  (any text may stand in that file)
            unreadable(Source("entry_points.txt", *_name_and_version(distribution)), error)
            continue
        for entry in own:
            found.setdefault((source_of(entry).distribution, entry.name), entry)
    return list(found.values())


def source_of(entry: EntryPoint) -> Source:
    """The distribution of an entry point."""
    if entry.dist is None:
        return Source(entry.name, "(unknown)", "-")
    return Source(entry.name, *_name_and_version(entry.dist))


def _name_and_version(distribution: Any) -> tuple[str, str]:
    """Broken metadata may lack either."""
    try:
        name, version = distribution.name, distribution.version
    except Exception:  # noqa: BLE001  (Python's own versions raise different errors here)
        name, version = None, None
    return str(name or "(unknown)"), str(version or "-")


def canonical(name: str) -> str:
    """A name as package indexes compare them: case, ``-``, ``_`` and ``.`` make no difference."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _own_first(entry: EntryPoint) -> tuple[bool, str, str]:
    distribution = source_of(entry).distribution
    return distribution != "mlxray", distribution, entry.name
