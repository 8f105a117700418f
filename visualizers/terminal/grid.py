"""Layers down, something else across: coloured cells without gaps, one line for each layer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from mlxray.cli.terminal import heat
from mlxray.display import show_token

#: Cells that the layer's number and its gap take.
MARGIN = 6


def grid(heads: Sequence[Text], rows: Sequence[tuple[int, Sequence[Text]]]) -> Text:
    """Lines of cells, each of the width of its column, below their heads and a rule."""
    drawn = Text(no_wrap=True, overflow="crop")
    drawn.append("layer ", style="dim")
    for head in heads:
        drawn.append_text(head)
    drawn.append("\n" + "─" * (MARGIN + sum(head.cell_len for head in heads)), style="dim")
    for layer, cells in rows:
        drawn.append(f"\n{layer:>{MARGIN - 1}} ", style="dim")
        for cell in cells:
            drawn.append_text(cell)
    return drawn


def padded(text: str, width: int) -> str:
    """`text` with spaces behind it, up to `width` cells."""
    return text + " " * (width - cell_len(text))


def token_cell(token: str, width: int, style: str) -> Text:
    """A token in a cell of `width` and a space on each side."""
    return Text(f" {padded(show_token(token, width), width)} ", style=style)


def heat_cell(token: str, width: int, value: float) -> Text:
    """A token coloured by a share of one."""
    return token_cell(token, width, heat(value))
