"""What turns of a conversation do to an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.conversation.result import short_text
from mlxray.results.base import AnalysisResult


@dataclass
class TurnEffectsResult(AnalysisResult):
    """What each turn does to an answer: the answer measured with the turn cut or replaced.

    Attributes:
        turns: The turns tested, described as in `ConversationResult`.
        effects: (T,), or (T, layers): `values` less `baseline`. With log-probabilities a negative
            number means that the answer is less likely so.
        values: Shaped like `effects`: the measured number with the turn cut or replaced.
        baseline: The measured number of the conversation as it is.
        metric_name: What is measured.
        change: "cut" or "replaced".
        readers: Who meets the change: "later" (every token after the turn), or "last" (only the
            last turn and the answer; turns in between keep what they have read).
        answer: The answer measured, as text.
        layers: The layers of the columns; None if all were changed together.
        top_tokens: The most likely first token of the answer, for each turn (all layers together).
        baseline_token: The same of the conversation as it is.
        answers: What the model writes with each turn changed, where that was asked for.
        baseline_answer: The same of the conversation as it is; None if not asked for.
    """

    result_type: ClassVar[str] = "turn_effects"

    turns: list[dict[str, Any]]
    effects: mx.array
    values: mx.array
    baseline: float
    metric_name: str
    change: str
    readers: str
    answer: str
    layers: list[int] | None = None
    top_tokens: list[str] = field(default_factory=list)
    baseline_token: str = ""
    answers: list[str] = field(default_factory=list)
    baseline_answer: str | None = None

    @property
    def names(self) -> list[str]:
        """Each turn as ``"0 user"``."""
        return [f"{turn['index']} {turn['role']}" for turn in self.turns]

    def strongest(self) -> tuple[int, float]:
        """Index of the turn with the effect of largest size (of any layer), and that effect."""
        flat: list[float] = nested(self.effects.reshape(-1))
        place = max(range(len(flat)), key=lambda i: abs(flat[i]))
        row = place // (len(flat) // len(self.turns))
        return int(self.turns[row]["index"]), flat[place]

    def summary(self) -> str:
        """The turn that matters most."""
        index, effect = self.strongest()
        role = next(turn["role"] for turn in self.turns if turn["index"] == index)
        return (
            f"{short_text(self.answer)!r}: turn {index} ({role}) {self.change} changes "
            f"{self.metric_name} most, by {effect:+.3g} from {self.baseline:.3g}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Turn by turn."""
        columns = ["turn", "role", "content"]
        effects = nested(self.effects)
        if self.layers is None:
            columns += [self.metric_name, "effect"]
            numbers = [[v, e] for v, e in zip(nested(self.values), effects, strict=True)]
        else:
            columns += [f"layer {layer}" for layer in self.layers]
            numbers = effects
        extra: list[list[str]] = [[] for _ in self.turns]
        for name, texts in (("first token", self.top_tokens), ("answer", self.answers)):
            if texts:
                columns.append(name)
                extra = [[*had, text] for had, text in zip(extra, texts, strict=True)]
        table = [
            [turn["index"], turn["role"], short_text(turn["content"]), *row, *more]
            for turn, row, more in zip(self.turns, numbers, extra, strict=True)
        ]
        return columns, table
