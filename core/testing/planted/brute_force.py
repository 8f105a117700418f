"""The effect of every edge of a planted model, by a forward pass of its own in float64 numpy.

It shares nothing with the model's code nor with mlxray's: it reads the weights, and writes the
architecture out. This is what says which edges are true.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from .models import Array, Edge, Planted

Weights = dict[str, Array]


def edge_effects(planted: Planted) -> dict[Edge, float]:
    """By how much the metric of the clean run changes where one edge carries the corrupted value.

    Returns:
        Each candidate edge → metric with the edge ablated − metric of the clean run.
    """
    _, sent = forward(planted, planted.corrupted)
    base = logit_difference(planted, forward(planted, planted.clean)[0])
    return {
        edge: logit_difference(planted, forward(planted, planted.clean, [edge], sent)[0]) - base
        for edge in planted.candidates
    }


def logit_difference(planted: Planted, logits: Array) -> float:
    """The metric: the correct answer's logit less the incorrect one's, (S, V) → number."""
    return float(logits[-1, planted.correct] - logits[-1, planted.incorrect])


def forward(
    planted: Planted,
    ids: Collection[int],
    edges: Collection[Edge] = (),
    others: Mapping[str, Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Logits (S, V), and what each sender writes to the residual stream (S, D).

    Args:
        edges: Receivers take the sender's value from `others` on these.
        others: Sender → (S, D) of another prompt.
    """
    weights = {
        name: np.array(value).astype(np.float64)
        for name, value in tree_flatten(planted.model.parameters())
        if isinstance(value, mx.array)
    }
    family = _GPT2(weights) if "model.wpe.weight" in weights else _Llama(weights, planted)
    tokens = np.array(list(ids))
    written = {"embed": family.embed(tokens)}

    def read(receiver: str) -> Array:
        stream: Array = np.sum(list(written.values()), axis=0)
        for sender, target in edges:
            if target == receiver and others is not None:
                stream = stream + others[sender] - written[sender]
        return stream

    for layer in range(planted.layers):
        new = {}
        for head in range(planted.heads):
            name = f"a{layer}.h{head}"
            inputs = [read(f"{name}.{letter}") for letter in "qkv"]
            new[name] = family.head(layer, head, planted.heads, inputs)
        written |= new
        written[f"m{layer}"] = family.mlp(layer, read(f"m{layer}"))
    return family.logits(read("logits")), written


def _attend(q: Array, k: Array, v: Array) -> Array:
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores[np.triu_indices(len(scores), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed: Array = weights / weights.sum(axis=1, keepdims=True) @ v
    return mixed


class _GPT2:
    def __init__(self, weights: Weights) -> None:
        self.w = weights

    def embed(self, tokens: Any) -> Array:
        found: Array = self.w["model.wte.weight"][tokens]
        return found + self.w["model.wpe.weight"][: len(tokens)]

    def _norm(self, path: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        result: Array = centred / scale * self.w[f"{path}.weight"] + self.w[f"{path}.bias"]
        return result

    def head(self, layer: int, head: int, heads: int, inputs: list[Array]) -> Array:
        path = f"model.h.{layer}"
        weight, bias = self.w[f"{path}.attn.c_attn.weight"], self.w[f"{path}.attn.c_attn.bias"]
        width = weight.shape[1]
        size = width // heads
        parts = []
        for part, stream in enumerate(inputs):
            rows = slice(part * width + head * size, part * width + (head + 1) * size)
            parts.append(self._norm(f"{path}.ln_1", stream) @ weight[rows].T + bias[rows])
        out = self.w[f"{path}.attn.c_proj.weight"][:, head * size : (head + 1) * size]
        result: Array = _attend(*parts) @ out.T
        return result

    def mlp(self, layer: int, stream: Array) -> Array:
        path = f"model.h.{layer}.mlp"
        x = self._norm(f"model.h.{layer}.ln_2", stream)
        x = x @ self.w[f"{path}.c_fc.weight"].T + self.w[f"{path}.c_fc.bias"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        result: Array = x @ self.w[f"{path}.c_proj.weight"].T + self.w[f"{path}.c_proj.bias"]
        return result

    def logits(self, stream: Array) -> Array:
        result: Array = self._norm("model.ln_f", stream) @ self.w["model.wte.weight"].T
        return result


class _Llama:
    def __init__(self, weights: Weights, planted: Planted) -> None:
        self.w = weights
        arguments: Any = planted.model
        self.theta = float(arguments.args.rope_theta)

    def embed(self, tokens: Any) -> Array:
        found: Array = self.w["model.embed_tokens.weight"][tokens]
        return found

    def _norm(self, path: str, x: Array) -> Array:
        scale = np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        result: Array = x / scale * self.w[f"{path}.weight"]
        return result

    def _rotate(self, x: Array) -> Array:
        half = x.shape[1] // 2
        angles = np.arange(len(x))[:, None] * self.theta ** (-np.arange(half) / half)
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = x[:, :half], x[:, half:]
        return np.hstack([first * cos - second * sin, first * sin + second * cos])

    def head(self, layer: int, head: int, heads: int, inputs: list[Array]) -> Array:
        path = f"model.layers.{layer}"
        size = self.w[f"{path}.self_attn.q_proj.weight"].shape[0] // heads
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (
            self._norm(f"{path}.input_layernorm", stream)
            @ self.w[f"{path}.self_attn.{letter}_proj.weight"][rows].T
            for letter, stream in zip("qkv", inputs, strict=True)
        )
        mixed = _attend(self._rotate(q), self._rotate(k), v)
        result: Array = mixed @ self.w[f"{path}.self_attn.o_proj.weight"][:, rows].T
        return result

    def mlp(self, layer: int, stream: Array) -> Array:
        path = f"model.layers.{layer}"
        x = self._norm(f"{path}.post_attention_layernorm", stream)
        gate = x @ self.w[f"{path}.mlp.gate_proj.weight"].T
        hidden = gate / (1 + np.exp(-gate)) * (x @ self.w[f"{path}.mlp.up_proj.weight"].T)
        result: Array = hidden @ self.w[f"{path}.mlp.down_proj.weight"].T
        return result

    def logits(self, stream: Array) -> Array:
        result: Array = self._norm("model.norm", stream) @ self.w["lm_head.weight"].T
        return result
