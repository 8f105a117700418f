"""Imports go down the list of layers and never up, and no folders import each other in a circle.

As a program, this prints every folder with the folders that it imports.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mlxray
from mlxray import results

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "mlxray": ROOT / "core",
    "mlxray.adapters": ROOT / "adapters",
    "mlxray.analyses": ROOT / "analyses",
    "mlxray.visualizers": ROOT / "visualizers",
}

#: From the top down: what stands in a row may import rows below it, and neighbours in its own row
#: as long as that makes no circle. A name stands for all that it begins.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("visualizers",),
    ("analyses.experiments",),
    (
        "analyses.attention",
        "analyses.causal",
        "analyses.circuits",
        "analyses.conversation",
        "analyses.dictionaries",
        "analyses.features",
        "analyses.lenses",
        "analyses.probes",
        "analyses.steering",
    ),
    ("analyses.patching",),
    ("analyses.datasets", "analyses.activations"),
    ("analyses.prompts", "analyses.patience", "analyses.metrics", "adapters"),
    ("reports",),
    ("cli",),
    ("testing",),
    ("model", "resolver", "utilities"),
    ("conversation",),
    ("generation",),
    ("run", "loading"),
    ("results",),
    ("plugins", "interventions"),
    ("points",),
    ("seams",),
    (
        "errors",
        "arrays",
        "checks",
        "display",
        "lazy",
        "machine",
        "moved",
        "pieces",
        "pocket",
        "storage",
        "tokens",
        "top_k",
    ),
)
#: The fronts of packages hand out names when they are asked for one: they may be imported by all,
#: and import nothing of a room at once but what is listed.
FRONTS = ("", "analyses")


class Import(NamedTuple):
    """One import: from which module to which, and where it is written."""

    source: str
    target: str
    place: str


def modules() -> dict[str, Path]:
    """Module, without ``mlxray.``, → its file."""
    found = {}
    for package, folder in ROOMS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts)).removeprefix("mlxray").removeprefix(".")] = file
    return found


MODULES = modules()


def imports_of(module: str, file: Path, text: str) -> Iterator[Import]:
    """All imports of modules of the package: deferred and type-only ones too."""
    package = "mlxray." + module if file.name == "__init__.py" else f"mlxray.{module}"
    if file.name != "__init__.py":
        package = package.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = (
                importlib.util.resolve_name(relative, package.rstrip("."))
                if node.level
                else (node.module or "")
            )
            names = [_home(base, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            if name == "mlxray" or name.startswith("mlxray."):
                target = name.removeprefix("mlxray").removeprefix(".")
                place = f"{file.relative_to(ROOT)}:{node.lineno}"
                yield Import(module, target, place)


def _home(base: str, name: str) -> str:
    """The module that ``from base import name`` reaches, behind the front of the package too."""
    if f"{base}.{name}".removeprefix("mlxray.") in MODULES:
        return f"{base}.{name}"
    if base == "mlxray" and name in mlxray._HOMES:
        return f"mlxray.{mlxray._HOMES[name]}"
    if base == "mlxray.results" and name[:1].isupper():  # a method's type, handed on by name
        return str(getattr(results, name).__module__)
    return base


def layer(module: str) -> int:
    """The row of LAYERS in which a module stands, counted from the top."""
    for index, row in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in row):
            return index
    raise LookupError(f"{module} stands in no layer: add it to LAYERS")


def folder(module: str) -> str:
    """The folder that a module is in, or the module itself where it lies in a room's own folder."""
    file = MODULES[module]
    if file.name == "__init__.py":
        return module
    parent = module.rpartition(".")[0]
    return parent if parent not in FRONTS and parent != "visualizers" else module


def everything() -> list[Import]:
    """Every import of every room."""
    return [
        found
        for module, file in MODULES.items()
        for found in imports_of(module, file, file.read_text(encoding="utf-8"))
        if found.target in MODULES and found.target != module
    ]


ALL = everything()


def is_result_module(module: str) -> bool:
    """Whether a module of the analyses holds nothing but result types."""
    return module.rpartition(".")[2].endswith("result")


def faults(imports: list[Import]) -> list[str]:
    """What breaks the rule, each with file, line and the rule."""
    found = []
    for source, target, place in imports:
        if target in FRONTS or source in FRONTS:
            continue
        if layer(target) < layer(source):
            found.append(f"{place}: {source} imports {target}, which stands above it in LAYERS")
        elif (
            source.startswith("visualizers")
            and target.startswith("analyses")
            and not is_result_module(target)
        ):
            found.append(f"{place}: a visualizer imports {target}: only result modules are for it")
    return found


def listing(imports: list[Import]) -> list[str]:
    """Each folder and the folders that it imports, from the top layer down."""
    reached: dict[str, set[str]] = {folder(m): set() for m in MODULES if m not in FRONTS}
    for source, target, _ in imports:
        if source not in FRONTS and target not in FRONTS and folder(source) != folder(target):
            reached[folder(source)].add(folder(target))
    order = sorted(reached, key=lambda name: (layer(name), name))
    return [f"{name} → {', '.join(sorted(reached[name])) or '(nothing)'}" for name in order]


def circles(imports: list[Import]) -> list[str]:
    """Folders that import each other, directly or around a corner."""
    edges: dict[str, dict[str, str]] = {}
    for source, target, place in imports:
        if target in FRONTS or source in FRONTS:
            continue
        start, end = folder(source), folder(target)
        if start != end:
            edges.setdefault(start, {}).setdefault(end, place)
    found = []
    done: set[str] = set()

    def walk(at: str, way: tuple[str, ...]) -> None:
        if at in way:
            loop = (*way[way.index(at) :], at)
            places = [edges[a][b] for a, b in itertools.pairwise(loop)]
            found.append(" → ".join(loop) + " (" + ", ".join(places) + ")")
            return
        if at in done:
            return
        for following in edges.get(at, {}):
            walk(following, (*way, at))
        done.add(at)

    for start in list(edges):
        walk(start, ())
    return found


def test_every_module_stands_in_a_layer() -> None:
    for module in MODULES:
        if module not in FRONTS:
            layer(module)


def test_imports_go_down() -> None:
    assert faults(ALL) == []


def test_no_circle_between_folders() -> None:
    assert circles(ALL) == []


def test_documentation_names_the_folders_that_exist() -> None:
    """Folders that the architecture page and CONTRIBUTING name are there, and none is left out."""
    for page in ("docs/architecture.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        named = set(re.findall(r"`((?:core|adapters|analyses|visualizers)/[a-z_/]*)`", text))
        assert [name for name in sorted(named) if not (ROOT / name).is_dir()] == []
        rooms = ("core", "analyses", "visualizers")
        folders = {f"{p.parent.name}/{p.name}/" for room in rooms for p in (ROOT / room).iterdir()}
        folders = {f for f in folders if (ROOT / f / "__init__.py").exists()}
        assert sorted(folders - named) == [], f"{page} leaves these out"


GENERATE = MODULES["generation.generate"]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("from ..model import InterpretableModel", "which stands above it"),
        ("from mlxray import InterpretableModel", "which stands above it"),
        ("def f():\n    import mlxray.analyses.lenses.logit_lens", "which stands above it"),
        (
            "if TYPE_CHECKING:\n    from mlxray.results import LensResult",
            "lens_result, which stands above it",
        ),
    ],
)
def test_an_import_that_is_turned_round_is_named(line: str, rule: str) -> None:
    """Deferred, type-only, and through the package's front: file, line and rule are told."""
    found = faults(list(imports_of("generation.generate", GENERATE, "\n" + line)))
    assert len(found) == 1 and rule in found[0]
    assert found[0].startswith(f"core/generation/generate.py:{2 + line.count(chr(10))}: ")


def test_a_visualizer_draws_results_and_imports_no_method() -> None:
    file = MODULES["visualizers.lenses.lens"]
    text = "from mlxray.analyses.lenses.readout import read_out"
    (found,) = faults(list(imports_of("visualizers.lenses.lens", file, text)))
    assert "only result modules" in found


def test_a_circle_is_named() -> None:
    there = Import("analyses.lenses.readout", "analyses.steering.build", "a:1")
    back = Import("analyses.steering.rows", "analyses.lenses.readout", "b:2")
    (found,) = circles([there, back])
    assert found == "analyses.lenses → analyses.steering → analyses.lenses (a:1, b:2)"


if __name__ == "__main__":
    print(*listing(ALL), sep="\n")
    print(f"\nimports that go up: {len(faults(ALL))}; circles: {len(circles(ALL))}")
