"""Results made by hand, with hostile tokens in them."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.analyses.lenses.lens_result import LensResult

#: What a vocabulary may hold: mathtext, tags, entities, templates, controls, scripts, repetition.
HOSTILE = [
    "The",
    " a",
    " a",
    "$\\frac{",
    "$x$",
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "&lt;",
    "%{x}",
    "\n",
    "\t\x1b[31m",
    "\u202eevil",
    "你好",
    "שלום",
    "\ud800",
    "",
    "W" * 300,
    "a" + "\u0301" * 300,
]


@pytest.fixture
def hostile() -> list[str]:
    return list(HOSTILE)


def make_lens(tokens, layers=(0, 2, 5), positions=None, top_k=2, vocabulary=None, seed=0):
    """Random predictions; token ids index `vocabulary`."""
    rng = np.random.default_rng(seed)
    vocabulary = vocabulary or tokens
    positions = list(range(len(tokens))) if positions is None else positions
    predictions, probabilities = {}, {}
    for layer in layers:
        drawn = -np.sort(-rng.uniform(0, 1 / top_k, size=(len(positions), top_k)))
        ids = rng.integers(len(vocabulary), size=(len(positions), top_k))
        probabilities[layer] = drawn.tolist()
        predictions[layer] = [
            [(int(i), float(np.log(c)), vocabulary[i]) for i, c in zip(*pair, strict=True)]
            for pair in zip(ids, drawn, strict=True)
        ]
    return LensResult(list(tokens), positions, list(layers), predictions, probabilities)


def make_patterns(heads, queries, keys=None, seed=0):
    """Causal attention of the last `queries` of `keys` positions: rows sum to 1."""
    keys = keys or queries
    scores = np.random.default_rng(seed).normal(size=(heads, queries, keys))
    weights = np.exp(scores) * np.tril(np.ones((queries, keys)), k=keys - queries)
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture
def lens():
    return make_lens


@pytest.fixture
def patterns():
    return make_patterns


@pytest.fixture
def attention(hostile):
    """Two layers of three heads."""
    size = len(hostile)
    return AttentionResult(
        hostile, {layer: mx.array(make_patterns(3, size, seed=layer)) for layer in (0, 4)}
    )
