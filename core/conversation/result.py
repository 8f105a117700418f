"""What was found in a conversation: its turns and the attention between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from ..arrays import nested
from ..results.base import AnalysisResult


def short_text(text: str, width: int = 40) -> str:
    """The beginning of a text, with ``…`` where something is cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


@dataclass
class ConversationResult(AnalysisResult):
    """A conversation's turns and the attention between them.

    Attributes:
        turns: Of each message: index, role, content, full_start, full_end, content_start,
            content_end (tokens; ends exclusive).
        cross_turn_attention: (T, T) float32; [i, j] is the attention from turn i to turn j.
        layers: The layers that it is averaged over.
        heads: The heads; None for all.
        keys: "sum" if [i, j] counts all tokens of turn j together, "mean" if one of them.
        content_only: Whether the template's tokens are left out.
    """

    result_type: ClassVar[str] = "conversation"

    turns: list[dict[str, Any]]
    cross_turn_attention: mx.array
    layers: list[int] = field(default_factory=list)
    heads: list[int] | None = None
    keys: str = "sum"
    content_only: bool = False

    @property
    def names(self) -> list[str]:
        """Each turn as ``"0 user"``."""
        return [f"{turn['index']} {turn['role']}" for turn in self.turns]

    def summary(self) -> str:
        """How many turns, and which earlier one the last looks at most."""
        count = len(self.turns)
        text = f"{count} turn{'s' if count != 1 else ''}"
        rows: list[list[float]] = nested(self.cross_turn_attention)
        earlier = [(x, i) for i, x in enumerate(rows[-1][:-1]) if math.isfinite(x)]
        if not earlier:
            return text
        share, index = max(earlier)
        kind = "of its attention" if self.keys == "sum" else "to each of its tokens"
        return f"{text}; the last looks most at turn {self.names[index]} ({share:.1%} {kind})"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Turn by turn, with its attention to each."""
        columns = ["turn", "role", "content", "tokens"]
        columns += [f"to {turn['index']}" for turn in self.turns]
        matrix: list[list[float]] = nested(self.cross_turn_attention)
        table = [
            [
                turn["index"],
                turn["role"],
                short_text(turn["content"]),
                f"{turn['full_start']}:{turn['full_end']}",
                *row,
            ]
            for turn, row in zip(self.turns, matrix, strict=True)
        ]
        return columns, table
