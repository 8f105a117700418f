"""A random GPT-2, eight pairs of prompts, and their statistics by a plain loop.

Nothing here uses mlxray: the forward pass, the gradients, the averages and the pruning are
written out once more, so that what mlxray gives over several pairs has something to agree with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import gpt2

LAYERS, HEADS, WIDTH = 3, 4, 32
SIZES = (10, 20, 24, 26, 28, 40)
TARGET = 0.85


class Pair(NamedTuple):
    """Token ids of two prompts and of two answers."""

    clean: list[int]
    corrupted: list[int]
    correct: int
    incorrect: int


#: Seven pairs with gaps of 3 to 14 logits, and one of 0.036.
PAIRS = [
    Pair([36, 58, 43, 37, 32, 33, 56, 16], [36, 58, 43, 37, 51, 33, 23, 16], 21, 29),
    Pair([55, 24, 26, 28, 57, 11, 29, 2], [55, 24, 20, 28, 57, 11, 59, 2], 6, 29),
    Pair([51, 38, 30, 16, 18, 2, 4, 0], [51, 54, 30, 16, 18, 30, 4, 0], 8, 25),
    Pair([48, 35, 51, 33, 45, 48, 3, 33], [48, 35, 29, 33, 45, 48, 24, 33], 10, 36),
    Pair([33, 2, 45, 43, 50, 10, 5, 51], [28, 2, 45, 17, 50, 10, 5, 51], 18, 4),
    Pair([38, 56, 47, 7, 2, 51, 24, 3], [38, 56, 18, 7, 2, 51, 25, 3], 15, 52),
    Pair([25, 24, 1, 0, 7, 0, 40, 31], [25, 23, 1, 45, 7, 0, 40, 31], 11, 28),
    Pair([27, 59, 48, 58, 22, 41, 57, 39], [27, 59, 48, 58, 52, 23, 57, 39], 7, 43),
]


def random_gpt2() -> gpt2.Model:
    """The model; every parameter is drawn."""
    mx.random.seed(3)
    model = gpt2.Model(
        gpt2.ModelArgs(
            model_type="gpt2",
            n_ctx=16,
            n_embd=WIDTH,
            n_head=HEADS,
            n_layer=LAYERS,
            n_positions=16,
            layer_norm_epsilon=1e-5,
            vocab_size=60,
        )
    )

    def draw(array: mx.array) -> mx.array:
        if array.ndim == 1:
            return 1 + 0.3 * mx.random.normal(array.shape)
        return 0.35 * mx.random.normal(array.shape)

    model.update(tree_map(draw, model.parameters()))
    model.model.wte.weight = 3 * model.model.wte.weight
    mx.eval(model.parameters())
    return model


Edges = list[tuple[str, str]]


def edges() -> Edges:
    """Every (sender, receiver), in the order of the pass."""
    found, senders = [], ["embed"]
    for layer in range(LAYERS):
        heads = [f"a{layer}.h{head}" for head in range(HEADS)]
        found += [(s, f"{h}.{x}") for x in "qkv" for h in heads for s in senders]
        senders += heads
        found += [(s, f"m{layer}") for s in senders]
        senders.append(f"m{layer}")
    return found + [(s, "logits") for s in senders]


def forward(model: gpt2.Model, ids: list[int], inputs: Any = None) -> tuple[mx.array, Any]:
    """Last logits (V,), and sender → what it writes (S, D).

    Args:
        inputs: ``inputs(receiver, stream, written)`` → what the receiver reads; None for the
            stream as it is.
    """
    inner, wrote = model.model, {}

    def read(receiver: str, stream: mx.array) -> mx.array:
        return stream if inputs is None else inputs(receiver, stream, wrote)

    tokens = mx.array(ids)
    stream = inner.wte(tokens) + inner.wpe(mx.arange(len(ids)))
    wrote["embed"] = stream
    size = WIDTH // HEADS
    later = mx.triu(mx.full((len(ids), len(ids)), -mx.inf), k=1)
    for layer, block in enumerate(inner.h):
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        total = block.attn.c_proj.bias
        for head in range(HEADS):
            parts = []
            for i, letter in enumerate("qkv"):
                rows = slice(i * WIDTH + head * size, i * WIDTH + (head + 1) * size)
                normed = block.ln_1(read(f"a{layer}.h{head}.{letter}", stream))
                parts.append(normed @ weight[rows].T + bias[rows])
            query, key, value = parts
            pattern = mx.softmax(query @ key.T / size**0.5 + later, axis=-1)
            columns = slice(head * size, (head + 1) * size)
            written = pattern @ value @ block.attn.c_proj.weight[:, columns].T
            wrote[f"a{layer}.h{head}"] = written
            total = total + written
        stream = stream + total
        wrote[f"m{layer}"] = block.mlp(block.ln_2(read(f"m{layer}", stream)))
        stream = stream + wrote[f"m{layer}"]
    return inner.wte.as_linear(inner.ln_f(read("logits", stream)))[-1], wrote


def difference(logits: mx.array, pair: Pair) -> mx.array:
    """The logit of the correct answer less that of the incorrect one."""
    return logits[pair.correct] - logits[pair.incorrect]


def gap(model: gpt2.Model, pair: Pair) -> float:
    """The logit difference of the clean prompt less that of the corrupted one."""
    ends = [difference(forward(model, ids)[0], pair).item() for ids in pair[:2]]
    return ends[0] - ends[1]


def edge_changes(model: gpt2.Model, pair: Pair) -> np.ndarray:
    """EAP by hand, in logits: (corrupted − clean output of the sender) · gradient at the reader."""
    _, clean = forward(model, pair.clean)
    _, corrupted = forward(model, pair.corrupted)
    readers = list(dict.fromkeys(r for _, r in edges()))

    def value(shifts: dict[str, mx.array]) -> mx.array:
        logits, _ = forward(model, pair.clean, lambda r, stream, _: stream + shifts[r])
        return difference(logits, pair)

    slopes = mx.grad(value)({r: mx.zeros((len(pair.clean), WIDTH)) for r in readers})
    return np.array([mx.sum((corrupted[s] - clean[s]) * slopes[r]).item() for s, r in edges()])


def circuit_change(model: gpt2.Model, pair: Pair, kept: Edges) -> float:
    """How far above the corrupted run the circuit is, in logits."""
    _, corrupted = forward(model, pair.corrupted)
    left = set(edges()) - set(kept)

    def inputs(receiver: str, stream: mx.array, wrote: dict[str, mx.array]) -> mx.array:
        for sender, output in wrote.items():
            if (sender, receiver) in left:
                stream = stream - output + corrupted[sender]
        return stream

    found = difference(forward(model, pair.clean, inputs)[0], pair).item()
    return found - difference(forward(model, pair.corrupted)[0], pair).item()


def first_mlp_change(model: gpt2.Model, pair: Pair) -> float:
    """What the clean output of the first MLP adds to the corrupted run, in logits."""
    _, clean = forward(model, pair.clean)
    plain, corrupted = forward(model, pair.corrupted)
    moved = clean["m0"] - corrupted["m0"]
    later = {receiver for sender, receiver in edges() if sender == "m0"}
    patched, _ = forward(
        model, pair.corrupted, lambda r, stream, _: stream + moved if r in later else stream
    )
    return (difference(patched, pair) - difference(plain, pair)).item()


def strongest(scores: np.ndarray, count: int) -> Edges:
    """The strongest edges, less those that lie on no path from embed to logits."""
    order = sorted(range(len(scores)), key=lambda i: -abs(scores[i]))[:count]
    kept = [edges()[i] for i in order]
    while True:
        nodes = {r.rpartition(".")[0] if r[-1] in "qkv" else r for _, r in kept} | {"embed"}
        senders = {s for s, _ in kept} | {"logits"}
        left = [
            (s, r)
            for s, r in kept
            if s in nodes and (r.rpartition(".")[0] if r[-1] in "qkv" else r) in senders
        ]
        if left == kept:
            return kept
        kept = left


def smallest_circuit(model: gpt2.Model, pairs: list[Pair], scores: np.ndarray) -> tuple[int, float]:
    """Edges and faithfulness of the smallest circuit that reaches the target."""
    whole = sum(gap(model, pair) for pair in pairs)
    for size in SIZES:
        kept = strongest(scores, size)
        share = sum(circuit_change(model, pair, kept) for pair in pairs) / whole if kept else 0.0
        if share >= TARGET:
            return len(kept), share
    return 0, float("nan")
