"""How text is written on a picture: `mlxray.display` makes it visible, markup is escaped here."""

from __future__ import annotations

import html
import unicodedata

from mlxray.display import EMPTY, fit, show_text, show_token

#: A token as one visible, unambiguous line.
token_label = show_token
#: The start of a label that fits into so many columns, with ``…`` where something is cut.
clip = fit


def text_label(text: str, width: int | None = None) -> str:
    """Text that need not be a token as one line: as `token_label`, but inner spaces stay."""
    return show_text(text, width) or EMPTY


def columns(label: str) -> int:
    """Columns that `label` takes in a font of even widths."""
    from rich.cells import cell_len

    return cell_len(label)


def plotly_text(text: str) -> str:
    """Plain text for plotly, which reads tags, entities and TeX in every label."""
    escaped = html.escape(isolate(text), quote=False)
    return escaped.replace("$", "&#36;").replace("\n", "<br>")


def html_text(text: str) -> str:
    """Plain text for an HTML page."""
    return html.escape(isolate(text), quote=True)


def isolate(text: str) -> str:
    """Keep right-to-left text from reordering what stands beside it."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text
