"""A result as the last line of a notebook: what it says, a picture or a table, its origin."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from ..display import counted, show_text
from .made import made_by
from .save import picture

if TYPE_CHECKING:
    from .base import AnalysisResult

#: Rows and columns of a table, and characters of a cell; what is more is in `AnalysisResult.rows`.
ROWS, COLUMNS, CHARACTERS = 20, 12, 60

#: Characters of registered HTML that a cell shows; a table stands for what is longer.
LONGEST = 200_000

#: Colours are the notebook's own, so that the card is legible in light and dark.
_BOX = "margin:0 0 14px;font:13px/1.5 system-ui,sans-serif;max-width:100%;overflow-x:auto"
_CELL = "padding:2px 8px;text-align:left;border-bottom:1px solid rgba(128,128,128,.35)"
_SMALL = "margin:6px 0 0;opacity:.75;font-size:12px"


def card(result: AnalysisResult) -> str:
    """HTML that stands alone: nothing is loaded, and every text is escaped."""
    parts = [f'<p style="margin:0 0 6px"><strong>{_text(result.summary())}</strong></p>']
    parts += [
        f'<p style="margin:0 0 6px">⚠ {_text(warning)}</p>'
        for warning in result.warnings
        if warning not in result.summary()
    ]
    parts += [_body(result), f'<p style="{_SMALL}">{" · ".join(_origin(result))}</p>']
    return f'<div class="mlxray-result" style="{_BOX}">{"".join(parts)}</div>'


def _origin(result: AnalysisResult) -> list[str]:
    made = [f"<code>{_text(type(result).__name__)}</code>"]
    if (call := made_by(result)) is not None:
        made.append(f"<code>{_text(call.caption)}</code>")
    model, seconds = result.metadata.get("model"), result.metadata.get("seconds")
    if isinstance(model, str):
        made.append(f"model {_text(model)}")
    if isinstance(seconds, (int, float)):
        made.append(f"{seconds:.2g} s")
    return made


def _body(result: AnalysisResult) -> str:
    """The HTML or the picture that is registered for the result; otherwise a table."""
    from .base import backends_of

    drawn = backends_of(result)
    try:
        if "html" in drawn and len(page := str(result.plot(backend="html"))) <= LONGEST:
            return page
        if "matplotlib" in drawn:
            return _image(result.plot(backend="matplotlib"), result.summary())
    except Exception as error:  # noqa: BLE001  a strange picture must not hide the numbers
        reason = f"{type(error).__name__}: {error}"
        return f"<p>The picture failed: {_text(reason, 300)}</p>" + _table(result)
    return _table(result)


def _image(figure: Any, summary: str) -> str:
    data = base64.b64encode(picture(figure, "png", dpi=110)).decode("ascii")
    return f'<img alt="{_text(summary)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def _table(result: AnalysisResult) -> str:
    names, rows = result.rows()
    head = "".join(f'<th style="{_CELL}">{_cell(name)}</th>' for name in names[:COLUMNS])
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}">{_cell(value)}</td>' for value in row[:COLUMNS])
        + "</tr>"
        for row in rows[:ROWS]
    )
    more = [
        counted(left, noun)
        for left, noun in ((len(rows) - ROWS, "row"), (len(names) - COLUMNS, "column"))
        if left > 0
    ]
    note = f'<p style="{_SMALL}">{" and ".join(more)} more: result.rows()</p>' if more else ""
    return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>{note}'


def _cell(value: Any) -> str:
    return _text(f"{value:.4g}" if isinstance(value, float) else str(value), CHARACTERS)


def _text(text: str, width: int | None = None) -> str:
    return escape(show_text(text, width))
