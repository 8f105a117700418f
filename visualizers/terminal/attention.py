"""Attention patterns in a terminal: what each head looks at, and maps of chosen heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from mlxray import hookimpl, visualizer
from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.cli.terminal import FAINT, heat, heat_color, percent
from mlxray.display import show_token
from mlxray.errors import InputError
from mlxray.plugins import Visualizer

from .grid import MARGIN, grid, padded

#: Cells that a token may take: beside a row of a map, and in the table of heads.
LABEL, TOKEN = 12, 9
#: Cells of a share with its gaps.
SHARE = 5
#: Shares of attention in a map too wide for numbers.
_SHADES = "░▒▓█"


@visualizer(AttentionResult, backend="terminal")
def attention_in_terminal(
    result: AttentionResult, *, width: int = 80, heads: Sequence[int] | None = None
) -> Group:
    """What the last token looks at most, head by head; or a map of each chosen head.

    Args:
        result: Patterns of any layers.
        width: Cells that a line may take.
        heads: Draw the whole pattern of these heads, in every layer.

    Raises:
        InputError: if a layer has no such head.
    """
    return Group(
        *(_strongest_keys(result, width) if heads is None else _maps(result, width, heads))
    )


def _strongest_keys(result: AttentionResult, width: int) -> Iterator[Text]:
    """Layers down, heads across: the token that the last one looks at most, and how much."""
    last = show_token(result.tokens[-1], 30)
    yield Text(f"\nWhat the last token, {last}, looks at most\n", style="bold").append(
        "layers down, heads across; the share of the head's attention\n", "not bold dim"
    )
    most = {layer: _strongest(pattern) for layer, pattern in result.patterns.items()}
    shown = {show_token(result.tokens[key], TOKEN) for row in most.values() for key, _ in row}
    cells = max(map(cell_len, shown))
    across = max(1, (width - MARGIN) // (cells + SHARE + 2))
    count = max(map(len, most.values()))
    for start in range(0, count, across):
        block = range(start, min(start + across, count))
        names = [Text(f" {f'head {h}':<{cells + SHARE + 1}}", style="dim") for h in block]
        rows = [
            (layer, [_head(result.tokens, *row[h], cells) for h in block if h < len(row)])
            for layer, row in most.items()
        ]
        yield Text("\n" if start else "").append_text(grid(names, rows))


def _maps(result: AttentionResult, width: int, heads: Sequence[int]) -> Iterator[Text]:
    """A map for each of chosen heads: queries down, keys across."""
    for layer, pattern in result.patterns.items():
        count = pattern.shape[0]
        for head in heads:
            if not -count <= head < count:
                raise InputError(
                    f"layer {layer} has no head {head}: it has {count} (0 to {count - 1})."
                )
    for layer, pattern in result.patterns.items():
        for head in heads:
            weights: Any = pattern[head].tolist()
            yield Text(f"\nlayer {layer}, head {head % pattern.shape[0]}", style="bold")
            yield head_map(result.tokens, weights, width)


def _strongest(pattern: Any) -> list[tuple[int, float]]:
    """For each head of (H, S, S), the key that the last query looks at most, and the weight."""
    rows: list[list[float]] = pattern[:, -1].tolist()
    return [max(enumerate(row), key=lambda pair: pair[1]) for row in rows]


def _head(tokens: list[str], key: int, weight: float, width: int) -> Text:
    token = padded(show_token(tokens[key], TOKEN), width)
    return Text(f" {token}{percent(weight):>{SHARE}} ", style=heat(weight))


def head_map(tokens: list[str], weights: list[list[float]], width: int) -> Text:
    """One head's attention, queries down and keys across.

    Numbers where there is room, shades where there is not; where even those would not fit, the
    last tokens, with what goes to all before them in one column.

    Args:
        tokens: The prompt's.
        weights: Query × key, shares of one.
        width: Cells that a line may take.
    """
    digits = len(str(len(tokens) - 1))
    label = min(LABEL, max(cell_len(show_token(t, LABEL)) for t in tokens))
    room = width - digits - label - 2
    cell = next((c for c in (SHARE, 2) if len(tokens) * c <= room), 1)
    first = max(0, len(tokens) - room // cell + 1) if len(tokens) * cell > room else 0
    drawn = Text(no_wrap=True, overflow="crop")
    if first:
        note = f"the last {len(tokens) - first} of {len(tokens)} tokens; … is all before them\n"
        drawn.append(note, style="dim")
    marks = "".join(_mark(i, cell) for i in range(first, len(tokens)))
    drawn.append(" " * (digits + label + 2) + "…" * bool(first) + marks, style="dim")
    for query in range(first, len(tokens)):
        drawn.append(f"\n{query:>{digits}} ", style="dim")
        drawn.append(padded(show_token(tokens[query], label), label) + " ")
        row = weights[query]
        for weight in [*([sum(row[:first])] if first else []), *row[first:]]:
            drawn.append(*_share(weight, cell))
    return drawn


def _mark(position: int, cell: int) -> str:
    """The number of a column; every fifth where cells are narrow."""
    if cell == SHARE:
        return f"{position:>{cell - 1}} "
    return f"{position:<{5 * cell}}" if position % 5 == 0 else ""


def _share(weight: float, cell: int) -> tuple[str, str]:
    if not weight:
        return " " * cell, ""
    if cell == SHARE:
        return f"{percent(weight):>{cell - 1}} ", heat(weight)
    if weight < FAINT:
        return "·" * cell, "dim"
    # Solid in a terminal with colours, a shade of grey without.
    shade = _SHADES[min(len(_SHADES) - 1, int(weight * len(_SHADES)))]
    color = heat_color(weight)
    return shade * cell, f"{color} on {color}"


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The drawing above."""
    return [attention_in_terminal]
