"""What a model wrote, token by token: each with its probability, as a number and as a bar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from ..display import show_text, show_token
from .grid import padded
from .terminal import bar, heat, heat_color, percent

if TYPE_CHECKING:
    from rich.console import Console

    from ..results import GenerationResult

#: Cells that a token may take; shortest and longest bar; cells of a probability.
TOKEN, SHORTEST, LONGEST, CHANCE = 24, 5, 20, 5
#: Characters of the prompt's end that are shown.
PROMPT = 60


def draw_steps(result: GenerationResult, console: Console) -> None:
    """One line for each step: its number, the token, and the probability that it had."""
    pieces = result.pieces or [f"#{token}" for token in result.tokens]
    shown = [show_token(piece, TOKEN) for piece in pieces]
    width = max(map(cell_len, ["token", *shown]))
    digits = max(4, len(str(len(shown) - 1)))
    room = max(SHORTEST, min(LONGEST, console.width - digits - width - CHANCE - 4))
    if result.prompt:
        end = result.prompt[-PROMPT:]
        cut = "…" if len(end) < len(result.prompt) else ""
        console.print(Text(f"\nAfter {cut}{show_text(end)}\n", style="bold"))
    drawn = Text(no_wrap=True, overflow="crop")
    drawn.append(f"{'step':>{digits}}  {padded('token', width)}  probability\n", style="dim")
    drawn.append("─" * (digits + width + CHANCE + room + 4), style="dim")
    for step, (token, logprob) in enumerate(zip(shown, result.logprobs, strict=True)):
        chance = math.exp(logprob)
        drawn.append(f"\n{step:>{digits}}  ", style="dim")
        drawn.append(padded(token, width), style=heat(chance))
        drawn.append(f" {percent(chance):>{CHANCE}} ")
        drawn.append(bar(chance, room), style=heat_color(chance))
    console.print(drawn)
