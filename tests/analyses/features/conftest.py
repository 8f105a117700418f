"""A small random model of single letters, a random dictionary for it, and texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import Dictionary, ReLU

WIDTH, FEATURES = 32, 40
POINT = "layers.1.resid_post"


def random_dictionary(
    reads: str | None = POINT, *, activation: Any = None, seed: int = 0, **more: Any
) -> Dictionary:
    """Weights such that about a tenth of the features is active on a token; feature 7 is dead."""
    rng = np.random.default_rng(seed)
    bias = np.full(FEATURES, -1.5)
    bias[7] = -1e6
    return Dictionary(
        **{
            "encoder": _array(rng.normal(size=(WIDTH, FEATURES)) / WIDTH**0.5),
            "encoder_bias": _array(bias),
            "decoder": _array(rng.normal(size=(FEATURES, WIDTH)) / WIDTH**0.5),
            "decoder_bias": _array(rng.normal(size=WIDTH)),
            "activation": activation or ReLU(),
            "reads": reads,
            **more,
        }
    )


def _array(values: Any) -> mx.array:
    return mx.array(values.astype(np.float32))


def some_texts(count: int = 12, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(rng.choices(letters, k=rng.randint(2, 14))) for _ in range(count)]


def by_hand(model: InterpretableModel, dictionary: Dictionary, text: Any) -> Any:
    """(S, F) features of one text, in float64 from the model's own activations."""
    assert dictionary.reads is not None
    x = np.array(model.activations(text, dictionary.reads)[dictionary.reads][0]).astype(np.float64)
    pre = x @ np.array(dictionary.encoder, np.float64) + np.array(dictionary.encoder_bias)
    return np.maximum(pre, 0)


@pytest.fixture
def dictionary() -> Dictionary:
    return random_dictionary()


@pytest.fixture
def texts() -> list[str]:
    return some_texts()


@pytest.fixture
def model(make: Callable[..., InterpretableModel]) -> InterpretableModel:
    return make("llama")
