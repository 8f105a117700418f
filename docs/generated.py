"""Tables of the documentation that come from the code."""

import inspect
import json
from collections.abc import Iterable
from pathlib import Path

from mlxray import registry
from mlxray.plugins import hookspecs
from mlxray.points.vocabulary import POINTS

PLUGIN = Path(__file__).resolve().parent / "plugins/mlxray-entropy"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, with an empty line before and after it."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *map(list, rows)]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def points() -> str:
    """The vocabulary of hook points."""
    rows = (
        (f"`{p.name}`", p.axes, "each layer" if p.per_layer else "model", p.meaning)
        for p in POINTS.values()
    )
    return table(("point", "shape", "of", "what it is"), rows)


def hooks() -> str:
    """The hook specifications."""
    names = [name for name in vars(hookspecs) if name.startswith("mlxray_")]
    rows = ((f"`{name}`", _first_line(getattr(hookspecs, name))) for name in names)
    return table(("hook", "gives"), rows)


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def analyses() -> str:
    """The analyses that come with mlxray."""
    own = {row.name for row in registry.rows() if row.distribution == "mlxray"}
    rows = (
        (f"`{a.name}`", f"`{a.result.__name__}`", a.summary)
        for a in registry.all("analysis")
        if a.name in own
    )
    return table(("analysis", "result", "what it does"), rows)


def pocket_dictionaries() -> str:
    """The numbers of the embedded model's dictionaries, from their card."""
    from mlxray.analyses.dictionaries.pocket.card import table as numbers
    from mlxray.analyses.dictionaries.shipped import FOLDER

    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    return f"\n{numbers(card['dictionaries'])}\n\n"


def plugin_project() -> str:
    """The project file of the example package."""
    return _included(PLUGIN / "pyproject.toml", "toml")


def plugin_module() -> str:
    """The module of the example package."""
    return _included(PLUGIN / "mlxray_entropy.py", "python")


def _included(file: Path, language: str) -> str:
    return f"\n```{language}\n{file.read_text(encoding='utf-8')}```\n\n"
