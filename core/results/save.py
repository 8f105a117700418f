"""Writing a result to a file, by its ending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import AnalysisResult

PICTURES = (".png", ".svg", ".pdf")
ENDINGS = (".json", ".md", ".html", *PICTURES)


def save(result: AnalysisResult, path: Path, options: dict[str, Any]) -> Path:
    """Write `result` to `path`; `options` go to the visualizer of a picture.

    Raises:
        ValueError: for an ending that nothing writes.
    """
    ending = path.suffix.lower()
    if ending in (".json", ".md"):
        if options:
            raise ValueError(f"a {ending} file takes no options of a picture: {sorted(options)}")
        text = result.to_json(indent=2) if ending == ".json" else result.to_markdown()
        path.write_text(text, encoding="utf-8")
    elif ending == ".html":
        figure = result.plot(backend="plotly", **options)
        figure.write_html(str(path), include_plotlyjs=True)
    elif ending in PICTURES:
        figure = result.plot(backend="matplotlib", **options)
        figure.savefig(path, dpi=160, bbox_inches="tight")
    else:
        raise ValueError(f"cannot write {path.name!r}: use one of {', '.join(ENDINGS)}.")
    return path
