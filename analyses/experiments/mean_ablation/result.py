"""What ablation found: how much of a prediction depends on each place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.display import show_token
from mlxray.results.base import AnalysisResult

#: In place of a token where several prompts have different ones.
VARIES = "(varies)"
#: Columns of effects that a table has at most.
WIDEST = 12


@dataclass
class AblationResult(AnalysisResult):
    """The effect of ablating each place: the metric before, less the metric after.

    Positive where the ablation hurts, negative where it helps, 0 where it does nothing.

    Attributes:
        effects: (layers, positions), or (layers, heads): means over the prompts.
        layers: Values of the first axis.
        by: What the second axis is: ``"position"`` or ``"head"``.
        positions: With ``by="position"`` the second axis; otherwise the positions at which each
            head was ablated, all together.
        tokens: All tokens of the prompt as text; ``"(varies)"`` where several prompts differ,
            empty where they differ in length.
        component: What was ablated.
        source: What it was replaced by: ``"mean"``, ``"zero"`` or ``"dataset"``.
        metric_name: ``"probability"``, or the metric that was asked for.
        base_scores: The metric of each prompt with nothing ablated.
        targets: The likeliest next token of each prompt with nothing ablated, as ids.
        target_texts: The same as text.
        interval: (2, layers, …): lower and upper end of the 95 % interval of the mean over
            prompts; None for one prompt.
    """

    result_type: ClassVar[str] = "ablation"

    effects: mx.array
    layers: list[int]
    by: str
    positions: list[int]
    tokens: list[str]
    component: str
    source: str
    metric_name: str
    base_scores: list[float]
    targets: list[int]
    target_texts: list[str] = field(default_factory=list)
    interval: mx.array | None = None

    @property
    def base_score(self) -> float:
        """The metric with nothing ablated, mean over the prompts."""
        return sum(self.base_scores) / len(self.base_scores)

    @property
    def across(self) -> list[int]:
        """Values of the second axis: positions or heads."""
        return self.positions if self.by == "position" else list(range(self.effects.shape[1]))

    def effect(self, layer: int, index: int) -> float:
        """The effect at a layer and a position (or head), by their own numbers.

        Raises:
            KeyError: if it was not ablated.
        """
        if layer not in self.layers or index not in self.across:
            raise KeyError(f"layer {layer}, {self.by} {index} was not ablated.")
        table: list[list[float]] = nested(self.effects)
        return table[self.layers.index(layer)][self.across.index(index)]

    def strongest(self, k: int = 5) -> list[tuple[tuple[int, int], float]]:
        """The k effects furthest from 0, of either sign: ((layer, position or head), effect)."""
        table: list[list[float]] = nested(self.effects)
        found = [
            ((layer, index), value)
            for layer, row in zip(self.layers, table, strict=True)
            for index, value in zip(self.across, row, strict=True)
        ]
        return sorted(found, key=lambda pair: -abs(pair[1]))[:k]

    def summary(self) -> str:
        """The place that matters most."""
        ((layer, index), effect) = self.strongest(1)[0]
        if abs(effect) <= 1e-6 * max(1.0, abs(self.base_score)):  # rounding
            return f"ablating {self.component} ({self.source}) changes nothing anywhere"
        place = f"layer {layer}, {self.by} {index}"
        if self.by == "position" and self.tokens:
            place += f" ({show_token(self.tokens[index], 30)})"
        what = self.metric_name
        if self.metric_name == "probability" and self.target_texts:
            what = "probability of " + (
                show_token(self.target_texts[0], 30)
                if len(set(self.target_texts)) == 1
                else "each prompt's top token"
            )
        over = f", mean of {len(self.base_scores)} prompts" if len(self.base_scores) > 1 else ""
        return (
            f"ablating {self.component} ({self.source}): {place} "
            f"{'hurts' if effect > 0 else 'helps'} the most: {what} "
            f"{self.base_score:.3f} → {self.base_score - effect:.3f}{over}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Tokens down and layers across, or layers down and heads across; a list if that is wide.

        The list has every place, the largest effect of either sign first, with its interval.
        """
        wide = len(self.layers) if self.by == "position" else self.effects.shape[1]
        if self.interval is not None or wide > WIDEST:
            return self._list()
        table: list[list[float]] = nested(self.effects)
        shown = [[self._shown(value) for value in row] for row in table]
        if self.by == "head":
            heads = [f"head {head}" for head in self.across]
            pairs = zip(self.layers, shown, strict=True)
            return ["layer", *heads], [[layer, *row] for layer, row in pairs]
        named = ["token"] if self.tokens else []
        columns = ["position", *named, *(f"layer {layer}" for layer in self.layers)]
        return columns, [
            [position, *(self.tokens[position] for _ in named), *values]
            for position, values in zip(self.positions, zip(*shown, strict=True), strict=True)
        ]

    def _shown(self, value: float) -> str | float:
        """A probability in percent: ``0%`` is exactly nothing, ``0.0%`` rounds to it."""
        if self.metric_name != "probability":
            return value
        text = f"{value:.1%}" if value else "0%"
        return "0.0%" if text == "-0.0%" else text

    def _list(self) -> tuple[list[str], list[list[Any]]]:
        columns = ["layer", self.by]
        if named := self.by == "position" and bool(self.tokens):
            columns.append("token")
        columns.append("effect")
        ends: Any = None if self.interval is None else nested(self.interval)
        if ends is not None:
            columns += ["low", "high"]
        table: list[list[Any]] = []
        for (layer, index), effect in self.strongest(self.effects.size):
            row: list[Any] = [layer, index]
            if named:
                row.append(self.tokens[index])
            row.append(effect)
            if ends is not None:
                at = self.layers.index(layer), self.across.index(index)
                row += [end[at[0]][at[1]] for end in ends]
            table.append(row)
        return columns, table
