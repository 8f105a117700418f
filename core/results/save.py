"""Writing a result to a file, by its ending."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from .base import AnalysisResult

PICTURES = (".png", ".svg", ".pdf")
ENDINGS = (".json", ".md", ".html", *PICTURES)


def save(result: AnalysisResult, path: Path, options: dict[str, Any]) -> Path:
    """Write `result` to `path`; `options` go to the visualizer of a picture.

    A page is plotly's, its program included, so that it opens anywhere and loads nothing; or
    HTML of its own where the result has no plotly picture, or ``backend="html"`` asks for it.

    Raises:
        ValueError: for an ending that nothing writes.
        PluginError: if nothing draws the result in that way.
    """
    ending = path.suffix.lower()
    if ending in (".json", ".md"):
        if options:
            raise ValueError(f"a {ending} file takes no options of a picture: {sorted(options)}")
        text = result.to_json(indent=2) if ending == ".json" else result.to_markdown()
        path.write_text(text, encoding="utf-8")
    elif ending == ".html":
        path.write_text(_page(result, **options), encoding="utf-8")
    elif ending in PICTURES:
        figure = result.plot(backend="matplotlib", **options)
        figure.savefig(path, dpi=160, bbox_inches="tight")
    else:
        raise ValueError(f"cannot write {path.name!r}: use one of {', '.join(ENDINGS)}.")
    return path


def _page(result: AnalysisResult, backend: str | None = None, **options: Any) -> str:
    from ..plugins.registry import registry

    if backend is None:
        drawn = {c.backend for c in registry.all("visualizer") if isinstance(result, c.result)}
        backend = "html" if "html" in drawn and "plotly" not in drawn else "plotly"
    figure = result.plot(backend=backend, **options)
    if isinstance(figure, str):
        # HTML for a notebook's cell may know the whole page that it makes.
        return figure.page() if hasattr(figure, "page") else figure
    page: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    title = escape(f"{result.result_type.replace('_', ' ')} · mlxray")
    return page.replace("</head>", f"<title>{title}</title></head>", 1)
