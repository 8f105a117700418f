"""A report of results: what each says, its picture, its table, and how to make it again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, PluginError
from ..plugins.registry import registry
from ..results.base import AnalysisResult
from ..storage.files import write_bytes, write_text
from .markdown import markdown
from .page import page
from .section import Section

Format = Literal["markdown", "html"]

_ENDINGS: dict[str, Format] = {".md": "markdown", ".markdown": "markdown", ".html": "html"}
_TITLE = "Analysis report"


def generate_report(
    results: AnalysisResult | Iterable[AnalysisResult],
    title: str = _TITLE,
    format: Format = "markdown",  # noqa: A002
    include_plots: bool | None = None,
    include_json: bool = False,
) -> str:
    """A report as text.

    Args:
        results: One result or several.
        title: Of the whole.
        format: ``"markdown"``, or ``"html"`` for a page that stands alone: it loads nothing, and
            holds no program.
        include_plots: Draw each result that has a picture. None does so in HTML; in Markdown the
            pictures would be data in the text, and `save_report` puts them beside it.
        include_json: Put each result's data at the end, as JSON.

    Raises:
        InputError: if there are no results, or something is none, or for another format.
    """
    if format not in _ENDINGS.values():
        raise InputError(f"format is 'markdown' or 'html'; got {format!r}.")
    drawn = format == "html" if include_plots is None else include_plots
    sections = _sections(results, drawn)
    if format == "html":
        return page(title, sections, include_json=include_json)
    return markdown(title, sections, include_json=include_json)


def save_report(
    results: AnalysisResult | Iterable[AnalysisResult],
    path: str | Path,
    title: str = _TITLE,
    format: Format | None = None,  # noqa: A002
    include_plots: bool = True,
    include_json: bool = False,
) -> Path:
    """Write a report; its ending tells the format.

    Pictures of a Markdown report lie beside it, in a folder ``NAME_pictures``.

    Args:
        results, title, include_json: See `generate_report`.
        path: ``.md`` or ``.html``.
        format: For a file of another ending.
        include_plots: Draw each result that has a picture.

    Raises:
        InputError: as `generate_report`, or for an ending that tells no format.
        SaveError: if it cannot be written; what was there before is intact.
    """
    path = Path(path).expanduser()
    chosen = format or _ENDINGS.get(path.suffix.lower())
    if chosen is None:
        raise InputError(
            f"cannot tell the format of {path.name!r}: end it with .md or .html, or give format=."
        )
    if chosen == "html":
        write_text(path, generate_report(results, title, "html", include_plots, include_json))
        return path
    sections = _sections(results, include_plots)
    folder = path.with_name(f"{path.stem}_pictures")
    if any(section.image for section in sections):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    places = {}
    for index, section in enumerate(sections):
        if section.image:
            file = folder / f"{index + 1}.png"
            write_bytes(file, section.image)
            places[index] = f"{folder.name}/{file.name}"
    write_text(path, markdown(title, sections, include_json=include_json, places=places))
    return path


def _sections(results: Any, drawn: bool) -> list[Section]:
    given = [results] if isinstance(results, AnalysisResult) else results
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        kind = type(given).__name__
        raise InputError(f"a report is of results of analyses; got {kind}.")
    found = list(given)
    for index, result in enumerate(found):
        if not isinstance(result, AnalysisResult):
            kind = type(result).__name__
            raise InputError(f"a report is of results of analyses; number {index} is {kind}.")
    if not found:
        raise InputError("the list of results is empty: a report needs at least one.")
    return [_section(result, drawn) for result in found]


def _section(result: AnalysisResult, drawn: bool) -> Section:
    if not drawn:
        return Section(result)
    backends = {c.backend for c in registry.all("visualizer") if isinstance(result, c.result)}
    if "matplotlib" not in backends:
        return Section(result)
    try:
        figure = result.plot(backend="matplotlib")
        image = io.BytesIO()
        figure.savefig(image, dpi=140, bbox_inches="tight", format="png")
    except PluginError:
        raise
    except Exception as error:  # noqa: BLE001  one picture must not cost the whole report
        return Section(result, failure=f"{type(error).__name__}: {error}")
    return Section(result, image=image.getvalue())
