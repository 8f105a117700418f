"""Which attention heads look at the previous token, and which complete repeated sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .tokenizer import BOS, SPECIAL

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadReport:
    """Scores of the heads on repeated random tokens, named ``layer.head``.

    ``previous``: mean attention to the token before. ``induction``: mean attention, in the second
    copy, to the token that followed the current one in the first. Both list the heads above 0.3.
    ``accuracy`` is that of the second copy's next tokens; ``without_induction`` and
    ``without_previous`` are the same with the listed heads' outputs set to zero, and
    ``without_others`` is the mean over draws of as many other heads (as ``without_induction``).
    """

    previous: dict[str, float]
    induction: dict[str, float]
    accuracy: float
    without_induction: float
    without_previous: float
    without_others: float

    def text(self) -> str:
        """The report in some lines."""

        def line(scores: dict[str, float]) -> str:
            return ", ".join(f"{head} ({value:.2f})" for head, value in scores.items()) or "none"

        return (
            f"previous-token heads: {line(self.previous)}\n"
            f"induction heads: {line(self.induction)}\n"
            f"repeats: {self.accuracy:.1%}, without the induction heads "
            f"{self.without_induction:.1%}, without the previous-token heads "
            f"{self.without_previous:.1%}, without as many others {self.without_others:.1%}"
        )


@contextmanager
def _attention(handle: Callable[..., Any]) -> Iterator[None]:
    """Route `mx.fast.scaled_dot_product_attention` through ``handle(original, q, k, v, **kw)``."""
    original = mx.fast.scaled_dot_product_attention

    def replaced(q: mx.array, k: mx.array, v: mx.array, **kw: Any) -> Any:
        return handle(original, q, k, v, **kw)

    mx.fast.scaled_dot_product_attention = replaced
    try:
        yield
    finally:
        mx.fast.scaled_dot_product_attention = original


def attention_patterns(model: nn.Module, ids: mx.array) -> list[Matrix]:
    """The causal attention pattern of each layer, (batch, heads, queries, keys)."""
    patterns: list[Matrix] = []

    def watch(
        original: Callable[..., Any], q: mx.array, k: mx.array, v: mx.array, **kw: Any
    ) -> Any:
        keys = mx.repeat(k, q.shape[1] // k.shape[1], axis=1)
        scores = kw["scale"] * (q @ keys.swapaxes(-1, -2))
        allowed = mx.tril(mx.ones(scores.shape[-2:], mx.bool_))
        patterns.append(np.array(mx.softmax(mx.where(allowed, scores, -mx.inf), axis=-1)))
        return original(q, k, v, **kw)

    with _attention(watch):
        mx.eval(model(ids))
    return patterns


def repeat_accuracy(
    model: nn.Module, ids: mx.array, length: int, without: Set[tuple[int, int]] = frozenset()
) -> float:
    """Accuracy on the second copy's tokens, the outputs of the heads in ``without`` set to zero.

    ``ids`` (batch, 1 + 2 · length) start with ``<|bos|>``.
    """
    layer = -1

    def edit(original: Callable[..., Any], q: mx.array, k: mx.array, v: mx.array, **kw: Any) -> Any:
        nonlocal layer
        layer += 1
        keep = [0.0 if (layer, head) in without else 1.0 for head in range(q.shape[1])]
        return original(q, k, v, **kw) * mx.array(keep)[None, :, None, None]

    with _attention(edit):
        guesses = mx.argmax(model(ids[:, :-1]), axis=-1)[:, length + 1 :]
    return round(float((guesses == ids[:, length + 2 :]).mean()), 4)


def repeated_tokens(tokenizer: Tokenizer, rows: int, length: int, seed: int = 0) -> mx.array:
    """``rows`` of ``<|bos|>`` and a random block twice, (rows, 1 + 2 · length)."""
    rng = Random(f"heads/{seed}")
    vocabulary = tokenizer.get_vocab()
    pool = sorted(index for token, index in vocabulary.items() if token not in SPECIAL)
    blocks = [rng.sample(pool, length) for _ in range(rows)]
    return mx.array([[vocabulary[BOS], *block, *block] for block in blocks])


def find_heads(
    model: nn.Module, tokenizer: Tokenizer, *, rows: int = 64, length: int = 34, seed: int = 0
) -> HeadReport:
    """Score every head on repeated random tokens, and check the found ones by removing them."""
    ids = repeated_tokens(tokenizer, rows, length, seed)
    previous: dict[tuple[int, int], float] = {}
    induction: dict[tuple[int, int], float] = {}
    for layer, pattern in enumerate(attention_patterns(model, ids)):
        before = np.diagonal(pattern, -1, axis1=-2, axis2=-1).mean((0, 2))
        after = np.diagonal(pattern, 1 - length, axis1=-2, axis2=-1)[..., 2:].mean((0, 2))
        for head in range(pattern.shape[1]):
            previous[layer, head] = float(before[head])
            induction[layer, head] = float(after[head])
    strong_previous = {head for head, value in previous.items() if value > 0.3}
    strong_induction = {head for head, value in induction.items() if value > 0.3}
    others = sorted(set(previous) - strong_previous - strong_induction)
    rng = Random(f"others/{seed}")
    draws = [
        repeat_accuracy(model, ids, length, set(rng.sample(others, min(len(others), size))))
        for size in [len(strong_induction)] * 8
    ]
    return HeadReport(
        previous=_named(previous, strong_previous),
        induction=_named(induction, strong_induction),
        accuracy=repeat_accuracy(model, ids, length),
        without_induction=repeat_accuracy(model, ids, length, strong_induction),
        without_previous=repeat_accuracy(model, ids, length, strong_previous),
        without_others=round(sum(draws) / len(draws), 4),
    )


def _named(scores: dict[tuple[int, int], float], chosen: set[tuple[int, int]]) -> dict[str, float]:
    strongest = sorted(chosen, key=lambda head: -scores[head])
    return {f"{layer}.{head}": round(scores[layer, head], 3) for layer, head in strongest}
