"""Writing a result to a file, by its ending."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.files import write_bytes, write_text
from .base import AnalysisResult, backends_of

PICTURES = (".png", ".svg", ".pdf")
ENDINGS = (".json", ".md", ".html", *PICTURES)


def save(result: AnalysisResult, path: Path, options: dict[str, Any]) -> Path:
    """Write `result` to `path`; `options` go to the visualizer of a picture.

    A page is plotly's, its program included, so that it opens anywhere and loads nothing; or
    HTML of its own where the result has no plotly picture, or ``backend="html"`` asks for it.

    What was at `path` is replaced when all of the new file is on the disk, and not before.

    Raises:
        InputError: for an ending that nothing writes.
        PluginError: if nothing draws the result in that way.
        SaveError: if the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending in (".json", ".md"):
        if options:
            raise InputError(f"a {ending} file takes no options of a picture: {sorted(options)}")
        text = result.to_json(indent=2) if ending == ".json" else result.to_markdown()
        write_text(path, text)
    elif ending == ".html":
        write_text(path, _page(result, **options))
    elif ending in PICTURES:
        figure = result.plot(backend="matplotlib", **options)
        write_bytes(path, picture(figure, ending[1:], dpi=160))
    else:
        raise InputError(f"cannot write {path.name!r}: use one of {', '.join(ENDINGS)}.")
    return path


def picture(figure: Any, kind: str, *, dpi: int) -> bytes:
    """A matplotlib figure as the content of a file: ``"png"``, ``"svg"`` or ``"pdf"``."""
    image = io.BytesIO()
    figure.savefig(image, dpi=dpi, bbox_inches="tight", format=kind)
    return image.getvalue()


def _page(result: AnalysisResult, backend: str | None = None, **options: Any) -> str:
    if backend is None:
        drawn = backends_of(result)
        backend = "html" if "html" in drawn and "plotly" not in drawn else "plotly"
    figure = result.plot(backend=backend, **options)
    if isinstance(figure, str):
        # HTML for a notebook's cell may know the whole page that it makes.
        return figure.page() if hasattr(figure, "page") else figure
    page: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    title = escape(f"{result.result_type.replace('_', ' ')} · mlxray")
    return page.replace("</head>", f"<title>{title}</title></head>", 1)
