"""A report of results: what each says, its picture, its table, and how to make it again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..results.base import AnalysisResult, backends_of
from ..results.save import picture
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

    Pictures of a Markdown report lie beside it, in a folder ``NAME_pictures``: the first result's
    is ``1.png``. Other files there stay.

    Args:
        results, title, include_json: See `generate_report`.
        path: ``.md`` or ``.html``.
        format: For a file of another ending.
        include_plots: Draw each result that has a picture.

    Raises:
        InputError: as `generate_report`, or for an ending that tells no format.
        SaveError: if a file cannot be written; what it held before is intact.
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
    images = {f"{i}.png": s.image for i, s in enumerate(sections, start=1) if s.image}
    if images:
        folder.mkdir(exist_ok=True)
    for name, image in images.items():
        write_bytes(folder / name, image)
    places = {int(Path(name).stem) - 1: f"{folder.name}/{name}" for name in images}
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
    if "matplotlib" not in backends_of(result):
        return Section(result)
    try:
        return Section(result, image=picture(result.plot(backend="matplotlib"), "png", dpi=140))
    except Exception as error:  # noqa: BLE001  one picture must not cost the whole report
        return Section(result, failure=f"{type(error).__name__}: {error}")
