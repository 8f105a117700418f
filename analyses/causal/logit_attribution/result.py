"""What direct logit attribution found: what each component adds to a logit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested, number
from mlxray.errors import InputError
from mlxray.results.base import AnalysisResult

Part = tuple[str, float]


@dataclass
class DLAResult(AnalysisResult):
    """The parts of a logit, or of a difference of two logits, that components add directly.

    Attributes:
        head_contributions: (layers,): attention of each layer, all heads and the bias.
        mlp_contributions: (layers,): the MLP of each layer, bias included.
        target_token: The token whose logit it is.
        target_token_str: The same as text.
        layers: The layers told apart; entries of the arrays.
        tokens: The prompt's tokens, as text.
        position: The position whose prediction it is.
        heads: layer → (H,), each head's part; empty where they were not asked for. With
            `attention_bias` they sum to `head_contributions`.
        attention_bias: (layers,): of the output projection.
        neurons: layer → (F,), each neuron's part of the MLP's contribution, likewise.
        mlp_bias: (layers,): of the down projection; zeros where neurons were not asked for.
        embedding: What the embedding adds.
        other_layers: What the layers add that were not asked for, all together.
        constant: Biases of the final norm and the output head.
        logit: What the parts sum to: the model's logit, before the cap where it has one.
        mixers: layer → what a mixer beside or in place of attention (a state space, …) adds.
        capped_logit: The model's logit behind its cap; None without one.
        cap: ``c`` of ``c · tanh(logit / c)``; None without one.
        incorrect_token, incorrect_token_str: The token whose logit is subtracted, or None.
    """

    result_type: ClassVar[str] = "dla"

    head_contributions: mx.array
    mlp_contributions: mx.array
    target_token: int
    target_token_str: str
    layers: list[int]
    tokens: list[str]
    position: int
    embedding: float
    other_layers: float
    constant: float
    logit: float
    heads: dict[int, mx.array] = field(default_factory=dict)
    attention_bias: mx.array = field(default_factory=lambda: mx.zeros(0))
    neurons: dict[int, mx.array] = field(default_factory=dict)
    mlp_bias: mx.array = field(default_factory=lambda: mx.zeros(0))
    mixers: dict[int, float] = field(default_factory=dict)
    capped_logit: float | None = None
    cap: float | None = None
    incorrect_token: int | None = None
    incorrect_token_str: str | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The result's own fields, the sum and its error."""
        return {**super().data, "total": self.total, "error": self.error}

    @property
    def total(self) -> float:
        """The sum of the parts."""
        layers = mx.sum(self.head_contributions) + mx.sum(self.mlp_contributions)
        rest = self.embedding + self.other_layers + self.constant + sum(self.mixers.values())
        return rest + number(layers)

    @property
    def error(self) -> float:
        """`total` less `logit`: rounding of the model's dtype, and of this sum."""
        return self.total - self.logit

    def components(self) -> list[Part]:
        """Every part by name, in the order of the model; they sum to `total`.

        Names are those of circuits: ``embed``, ``a3.h1``, ``a3.bias``, ``m3``; ``a3`` where heads
        were not asked for; ``x3`` for a mixer; ``others`` for other layers and ``bias`` for the
        end of the model.
        """
        attention: Any = nested(self.head_contributions)
        mlp: Any = nested(self.mlp_contributions)
        parts: list[Part] = [("embed", self.embedding)]
        for row, layer in enumerate(self.layers):
            if layer in self.mixers:
                parts.append((f"x{layer}", self.mixers[layer]))
            if layer in self.heads:
                values: Any = nested(self.heads[layer])
                parts += [(f"a{layer}.h{head}", value) for head, value in enumerate(values)]
                if bias := number(self.attention_bias[row]):
                    parts.append((f"a{layer}.bias", bias))
            else:
                parts.append((f"a{layer}", attention[row]))
            parts.append((f"m{layer}", mlp[row]))
        if len(self.layers) and self.other_layers:
            parts.append(("others", self.other_layers))
        if self.constant:
            parts.append(("bias", self.constant))
        return parts

    def top_components(self, k: int = 5) -> list[Part]:
        """The k parts with the largest absolute value."""
        return sorted(self.components(), key=lambda part: -abs(part[1]))[:k]

    def top_neurons(self, k: int = 10) -> list[tuple[tuple[int, int], float]]:
        """The k neurons with the largest absolute part: ((layer, neuron), part).

        Raises:
            InputError: if the analysis was run without ``neurons=True``.
        """
        if not self.neurons:
            raise InputError("neurons were not told apart: run with neurons=True.")
        found = []
        for layer, values in self.neurons.items():
            order: Any = nested(mx.argsort(-mx.abs(values))[:k])
            found += [((layer, unit), number(values[unit])) for unit in order]
        return sorted(found, key=lambda part: -abs(part[1]))[:k]

    def summary(self) -> str:
        behind = self.tokens[self.position]
        what = f"logit of {self.target_token_str!r}"
        if self.incorrect_token is not None:
            what += f" less {self.incorrect_token_str!r}"
        best = ", ".join(f"{name} {value:+.2f}" for name, value in self.top_components(3))
        capped = "" if self.cap is None else f" before the cap of {self.cap:.3g}"
        return (
            f"after {behind!r}: {what} is {self.logit:+.2f}{capped}, most from {best} "
            f"(the parts sum to it within {abs(self.error):.1g})"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return ["component", "logit"], [[name, value] for name, value in self.components()]
