"""The logit lens as a table: layers down, the prompt's tokens across."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from mlxray import hookimpl, visualizer
from mlxray.analyses.lenses.lens_result import LensResult
from mlxray.cli.terminal import bar, heat_color, percent, short_name
from mlxray.display import show_token
from mlxray.plugins import Visualizer

from .grid import MARGIN, grid, heat_cell, token_cell

#: Cells that one token may take, the probability with its gaps, and the bar behind it.
TOKEN, PROBABILITY, SHORTEST_BAR, LONGEST_BAR = 12, 6, 5, 20


@visualizer(LensResult, backend="terminal")
def lens_in_terminal(result: LensResult, *, width: int = 80) -> Group:
    """Layers down, tokens across; with several predictions a position, their ranking below.

    Args:
        result: A lens of any kind.
        width: Cells that a line may take.
    """
    widths = _widths(result)
    room = width - MARGIN - PROBABILITY
    shown = _last_that_fit(widths, room - SHORTEST_BAR)
    left = room - sum(widths[i] + 2 for i in shown)
    bars = max(SHORTEST_BAR, min(left, LONGEST_BAR))
    parts = [_title(result, len(shown)), _grid(result, widths, shown, bars)]
    if max(len(result[layer][-1]) for layer in result.layers) > 1:
        parts.append(_ranking(result, width))
    return Group(*parts)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The drawing above."""
    return [lens_in_terminal]


def _title(result: LensResult, shown: int) -> Text:
    kind = str(result.metadata.get("analysis", "logit lens")).replace("_", " ")
    subtitle = f"{kind} of {result.point}: below each token, the likeliest next"
    if shown < len(result.positions):
        subtitle += f" (last {shown} of {len(result.positions)})"
    name = short_name(str(result.metadata.get("model", "the model")))
    when = "next, if it stopped at each layer" if kind == "logit lens" else f"by the {kind}"
    title = Text(f"\nWhat {name} would say {when}\n", "bold")
    return title.append(subtitle + "\n", style="not bold dim")


def _widths(result: LensResult) -> list[int]:
    """For each position, the cells that its widest token takes."""
    columns = (
        [result.tokens[position], *(result[layer][i][0][2] for layer in result.layers)]
        for i, position in enumerate(result.positions)
    )
    return [max(cell_len(show_token(text, TOKEN)) for text in column) for column in columns]


def _last_that_fit(widths: list[int], room: int) -> range:
    """Indices from the first that fits to the last, which is always shown."""
    first, used = len(widths) - 1, widths[-1] + 2
    while first and used + widths[first - 1] + 2 <= room:
        first -= 1
        used += widths[first] + 2
    return range(first, len(widths))


def _grid(result: LensResult, widths: list[int], shown: range, bars: int) -> Text:
    heads = [token_cell(result.tokens[result.positions[i]], widths[i], "bold") for i in shown]
    heads.append(Text(" " * (PROBABILITY + bars)))
    rows = []
    for layer in result.layers:
        best = [position[0][2] for position in result[layer]]
        probabilities = [position[0] for position in result.probabilities[layer]]
        cells = [heat_cell(best[i], widths[i], probabilities[i]) for i in shown]
        last = probabilities[-1]
        cells.append(
            Text(f"{percent(last):>{PROBABILITY - 1}} ", style="bold" if last >= 0.5 else "")
        )
        cells.append(Text(bar(last, bars), style=heat_color(last)))
        rows.append((layer, cells))
    return grid(heads, rows)


def _ranking(result: LensResult, width: int) -> Text:
    """The best predictions at the last position, layer by layer."""
    ranks = max(len(result[layer][-1]) for layer in result.layers)
    texts = [t[2] for layer in result.layers for t in result[layer][-1]]
    room = max(cell_len(show_token(text, TOKEN)) for text in texts)
    ranks = max(1, min(ranks, (width - MARGIN) // (room + 9)))
    heads = [Text(f" {f'{rank}.':<{room + 8}}", style="dim") for rank in range(1, ranks + 1)]
    rows = []
    for layer in result.layers:
        pairs = zip(result[layer][-1], result.probabilities[layer][-1], strict=True)
        cells = []
        for (_, _, token), probability in list(pairs)[:ranks]:
            cells += [heat_cell(token, room, probability), Text(f"{percent(probability):>5}  ")]
        rows.append((layer, cells))
    token = show_token(result.tokens[result.positions[-1]])
    title = Text.assemble((f"\nMost likely after {token}\n\n", "bold"))
    return title.append_text(grid(heads, rows))
