"""Tokens set in lines like text, each as wide as it is: what both backends draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlxray.errors import InputError
from mlxray.generation.result import GenerationResult

from ..drawing.labels import columns, text_label, token_label

#: Characters of a line, and of a token.
LINE_WIDTH, TOKEN_WIDTH = 72, 24
#: With more tokens than this they carry no numbers.
NUMBERED = 80
#: Points of the labels; inches of a character and of a line.
SIZE = 10
CHARACTER_INCHES, LINE_INCHES, NUMBERED_INCHES = 0.085, 0.26, 0.42
#: A short text does not fill the picture: characters and lines that there is room for at least.
LEAST_WIDTH, LEAST_LINES = 48, 3


@dataclass(frozen=True)
class FlowCell:
    """One token: where it stands (in characters and lines), its label, its probability."""

    step: int
    line: int
    start: int
    width: int
    label: str
    probability: float


@dataclass(frozen=True)
class Flow:
    """Tokens in lines.

    Attributes:
        cells: In order.
        title: Of the picture.
        note: Under it.
        numbered: Whether each token carries its probability as a number.
    """

    cells: list[FlowCell]
    title: str
    note: str
    numbered: bool

    @property
    def lines(self) -> int:
        """Lines that there is room for."""
        return max(self.cells[-1].line + 1, LEAST_LINES)

    @property
    def width(self) -> int:
        """Characters that a line has room for."""
        return max(LEAST_WIDTH, *(cell.start + cell.width for cell in self.cells))

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the tokens want."""
        high = NUMBERED_INCHES if self.numbered else LINE_INCHES
        return self.width * CHARACTER_INCHES, self.lines * high


def flow(result: GenerationResult, most: int, title: str | None) -> Flow:
    """Set the tokens of a continuation.

    Args:
        result: The continuation.
        most: Tokens to show at most, from the first.
        title: Instead of the prompt.

    Raises:
        InputError: if there is nothing to draw.
    """
    if most < 1:
        raise InputError(f"max_display_tokens is at least 1; got {most}.")
    pieces = result.pieces or [f"#{token}" for token in result.tokens]
    if not pieces or len(pieces) != len(result.logprobs):
        raise InputError(f"{len(pieces)} tokens and {len(result.logprobs)} probabilities to draw.")
    numbered = min(len(pieces), most) <= NUMBERED
    cells: list[FlowCell] = []
    line = start = 0
    for step, (piece, logprob) in enumerate(zip(pieces[:most], result.logprobs, strict=False)):
        label = token_label(piece, TOKEN_WIDTH)
        width = max(columns(label), 4 if numbered else 1) + 1
        if start and start + width > LINE_WIDTH:
            line, start = line + 1, 0
        cells.append(FlowCell(step, line, start, width, label, math.exp(logprob)))
        start += width
        if "\n" in piece:
            line, start = line + 1, 0
    if title is None:
        title = f"After “{text_label(_end(result.prompt), 60)}”" if result.prompt else "Generation"
    count = f"the first {most} of {len(pieces)}" if most < len(pieces) else f"{len(pieces)}"
    note = (
        f"{count} token{'s' if len(pieces) > 1 else ''}, {result.finish_reason}, "
        f"{result.mean_logprob:.3f} nats per token"
    )
    return Flow(cells, title, note, numbered)


def _end(prompt: str) -> str:
    """The end of a prompt, which is what the text goes on from."""
    return prompt if len(prompt) <= 60 else "…" + prompt[-59:]


def share(probability: float) -> str:
    """A probability in at most four characters: ``<1%`` is not nothing."""
    return "<1%" if 0 < probability < 0.005 else f"{probability:.0%}"
