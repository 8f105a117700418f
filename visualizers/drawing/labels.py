"""How text is written on a picture: `mlxray.display` makes it visible, markup is escaped here."""

from __future__ import annotations

import html
import textwrap
import unicodedata
from collections.abc import Sequence

from mlxray.display import EMPTY, fit, show_lines, show_text, show_token

#: A token as one visible, unambiguous line.
token_label = show_token
#: The start of a label that fits into so many columns, with ``…`` where something is cut.
clip = fit


#: Characters of a line of warnings.
_CAPTION = 84


def text_label(text: str, width: int | None = None) -> str:
    """Text that need not be a token as one line: as `token_label`, but inner spaces stay."""
    return show_text(text, width) or EMPTY


def captioned(note: str, warnings: Sequence[str]) -> str:
    """A picture's note with a result's warnings under it, in lines that fit a narrow picture."""
    lines = [line for each in warnings for line in textwrap.wrap(f"warning: {each}", _CAPTION)]
    return "\n".join(filter(None, (note, *lines)))


def columns(label: str) -> int:
    """Columns that `label` takes in a font of even widths."""
    from rich.cells import cell_len

    return cell_len(label)


def plotly_text(text: str) -> str:
    """Plain text for plotly, which reads tags, entities and TeX in every label."""
    escaped = html.escape(isolate(text), quote=False)
    return escaped.replace("$", "&#36;").replace("\n", "<br>")


def html_text(text: str) -> str:
    """Plain text for an HTML page; control characters and halves of characters show their code."""
    return html.escape(isolate(show_lines(text)), quote=True)


def isolate(text: str) -> str:
    """Keep right-to-left text from reordering what stands beside it."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text
