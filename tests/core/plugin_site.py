"""Distributions of strangers in a folder on the path, and what a registry makes of them."""

from __future__ import annotations

import itertools
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mlxray import hookimpl
from mlxray.plugins.registry import PluginWarning, Registry, Row

ANALYSIS = """
from mlxray import TableResult, analysis, hookimpl

@analysis
def {name}(model, text: str = "") -> TableResult:
    return TableResult({{"layers": [len(model.layers)]}})

@hookimpl
def mlxray_analyses():
    return [{name}]
"""


NUMBERS = itertools.count()  # no module is imported twice


class Site:
    """A folder on the path with installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, distribution: str, entries: dict[str, str], sources: dict[str, str] | None = None
    ) -> None:
        info = self.folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("[mlxray]\n" + "\n".join(lines) + "\n")
        for name, source in (sources or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def plugin(self, distribution: str, source: str, name: str = "main") -> None:
        """A distribution with one plugin in one module."""
        module = f"plugin_{distribution.replace('-', '_')}_{next(NUMBERS)}"
        self.install(distribution, {name: module}, {module: source})


def load(expect: int = 0) -> tuple[Registry, list[str]]:
    """A new registry, loaded, and the warnings of that."""
    found = Registry()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.rows()
        found.rows()
        found.names("analysis")
    texts = [str(w.message) for w in caught if issubclass(w.category, PluginWarning)]
    assert len(texts) == expect, texts
    return found, texts


def row_of(found: Registry, distribution: str, name: str | None = None) -> Row:
    """The one row of a distribution, or the one of a name in it."""
    (row,) = [
        r
        for r in found.rows()
        if r.distribution == distribution and name in (None, r.name, r.plugin)
    ]
    return row


def plugin_of(**hooks: Callable[..., Any]) -> ModuleType:
    """A plugin of functions, to be registered by hand."""
    module = ModuleType("by_hand")
    for name, function in hooks.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module
