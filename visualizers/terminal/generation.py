"""What a model wrote, token by token: each with its probability, as a number and as a bar."""

from __future__ import annotations

import math

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from mlxray import hookimpl, visualizer
from mlxray.cli.terminal import bar, heat, heat_color, percent
from mlxray.display import show_text, show_token
from mlxray.generation.result import GenerationResult
from mlxray.plugins import Visualizer

from .grid import padded

#: Cells that a token may take; shortest and longest bar; cells of a probability.
TOKEN, SHORTEST, LONGEST, PROBABILITY = 24, 5, 20, 5
#: Characters of the prompt's end that are shown.
PROMPT = 60


@visualizer(GenerationResult, backend="terminal")
def generation_in_terminal(result: GenerationResult, *, width: int = 80) -> Group:
    """One line for each step: its number, the token, and the probability that it had.

    Args:
        result: What was generated.
        width: Cells that a line may take.
    """
    parts = []
    pieces = result.pieces or [f"#{token}" for token in result.tokens]
    shown = [show_token(piece, TOKEN) for piece in pieces]
    cells = max(map(cell_len, ["token", *shown]))
    digits = max(4, len(str(len(shown) - 1)))
    room = max(SHORTEST, min(LONGEST, width - digits - cells - PROBABILITY - 4))
    if result.prompt:
        end = result.prompt[-PROMPT:]
        cut = "…" if len(end) < len(result.prompt) else ""
        parts.append(Text(f"\nAfter {cut}{show_text(end)}\n", style="bold"))
    drawn = Text(no_wrap=True, overflow="crop")
    drawn.append(f"{'step':>{digits}}  {padded('token', cells)}  probability\n", style="dim")
    drawn.append("─" * (digits + cells + PROBABILITY + room + 4), style="dim")
    for step, (token, logprob) in enumerate(zip(shown, result.logprobs, strict=True)):
        probability = math.exp(logprob)
        drawn.append(f"\n{step:>{digits}}  ", style="dim")
        drawn.append(padded(token, cells), style=heat(probability))
        drawn.append(f" {percent(probability):>{PROBABILITY}} ")
        drawn.append(bar(probability, room), style=heat_color(probability))
    parts.append(drawn)
    return Group(*parts)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The drawing above."""
    return [generation_in_terminal]
