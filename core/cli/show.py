"""Showing a result as the user asked: a table, JSON, a file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display import show_text
from .options import load
from .terminal import errors, output, print_json, working

if TYPE_CHECKING:
    from rich.table import Table

    from ..model import InterpretableModel
    from ..plugins.kinds import Analysis, Visualizer
    from ..plugins.result import Result
    from ..results.base import AnalysisResult

#: Rows of a table that are printed unless more are asked for.
ROWS = 50

_PERCENT = re.compile(r"[-+−]?[\d.]+%$")


def check_drawable(result: type[Result], save: Path | None) -> None:
    """Refuse before the work a picture that nothing draws.

    Args:
        result: What the work promises; what it returns may be of a narrower type.
        save: Where the picture is to go; None for nowhere.

    Raises:
        PluginError: if no visualizer could draw it.
    """
    from ..errors import PluginError
    from ..plugins.registry import registry
    from ..results.base import AnalysisResult
    from ..results.save import PICTURES

    ending = "" if save is None else save.suffix.lower()
    if (
        ending not in (".html", *PICTURES)
        or getattr(result, "save", None) is not AnalysisResult.save
    ):
        return
    backends = ("html", "plotly") if ending == ".html" else ("matplotlib",)
    for known in registry.all("visualizer"):
        related = issubclass(result, known.result) or issubclass(known.result, result)
        if known.backend in backends and related:
            return
    raise PluginError(f"nothing draws {result.__name__} as {ending}. Save it as .md or .json.")


def run_analysis(
    analysis: Analysis[..., Any],
    model: str | Callable[[], InterpretableModel],
    /,
    *words: Any,
    **values: Any,
) -> Any:
    """Run the analysis on the model of that name, or that is made; stdout is kept for results."""
    from ..pocket.light import alone

    with alone():
        loaded = load(model) if isinstance(model, str) else model()
    with working():
        return analysis(loaded, *words, **values)


def show_result(
    result: AnalysisResult,
    *,
    json: bool,
    save: Path | None,
    limit: int = 0,
    drawing: Mapping[str, Any] | None = None,
    picture: Mapping[str, Any] | None = None,
) -> None:
    """Print a result, and write it to a file where one is named.

    Args:
        result: What an analysis returned.
        json: Print JSON, and nothing else, on stdout.
        save: Where to write it too.
        limit: Rows of the table to show; 0 for all.
        drawing: Options of the terminal drawing that takes the place of the table, where one is
            registered for this type; None for the table.
        picture: Options of the picture, where the file is one.
    """
    from ..results.save import PICTURES

    if json:
        print_json(result.to_json())
    else:
        console = output()
        if drawing is None or not _drawn(result, drawing):
            columns, rows = result.rows()
            console.print(table(columns, rows[: limit or None]))
            if limit and len(rows) > limit:
                console.print(f" … and {len(rows) - limit} more rows (--rows 0 shows all)\n")
        console.print("\n" + show_text(result.summary()), style="bold")
    if save is not None:
        options = picture if save.suffix.lower() in (".html", *PICTURES) else None
        written = result.save(save, **(options or {}))
        errors().print(f"wrote {show_text(str(written))}", soft_wrap=True)


def _drawn(result: AnalysisResult, options: Mapping[str, Any]) -> bool:
    """Print the terminal drawing of a result; False, with a warning if it failed, if none is."""
    from ..errors import InputError
    from ..plugins.registry import PluginWarning

    painter, console = terminal_visualizer(result), output()
    if painter is None:
        return False
    try:
        console.print(painter(result, width=console.width, **options))
    except InputError:  # an option that the result does not allow
        raise
    except Exception as error:  # noqa: BLE001  (a plugin's drawing; the table says the same)
        warnings.warn(
            f"the terminal drawing {painter.name!r} failed ({type(error).__name__}: {error}); "
            "this is the table.",
            PluginWarning,
            stacklevel=2,
        )
        return False
    return True


def terminal_visualizer(result: AnalysisResult) -> Visualizer | None:
    """What draws a result of this type in a terminal; None if nothing registered does."""
    from ..errors import PluginError
    from ..plugins.registry import registry
    from ..results.base import find_visualizer

    try:
        found: Visualizer = find_visualizer(registry.all("visualizer"), result, "terminal")
    except PluginError:
        return None
    return found


def new_table(*columns: str) -> Table:
    """An empty table in the house's style."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        made.add_column(Text(show_text(column)), overflow="fold")
    return made


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of foreign values; numbers stand on the right."""
    from rich.text import Text

    made = new_table(*map(str, columns))
    formats = []
    for index, column in enumerate(made.columns):
        values = [row[index] for row in rows]
        formats.append(_float_format(values))
        if values and all(isinstance(v, (int, float)) or _PERCENT.match(str(v)) for v in values):
            column.justify = "right"
    for row in rows:
        made.add_row(*(Text(cell(v, f)) for v, f in zip(row, formats, strict=True)))
    return made


def cell(value: Any, float_format: str = ".4g") -> str:
    """A value of a table as text."""
    if isinstance(value, float):
        return format(value, float_format)
    return show_text(value if isinstance(value, str) else str(value))


def _float_format(values: Sequence[Any]) -> str:
    """Equal decimals where four of them tell enough of every number."""
    sizes = [abs(v) for v in values if isinstance(v, float) and v]
    return ".4f" if sizes and min(sizes) >= 5e-4 and max(sizes) < 1e4 else ".4g"
