"""Ablation of features by hooks, one at a time: what `feature_patching` is compared with."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlxray.analyses.dictionaries import Dictionary, ReLU

from .conftest import FEATURES

TEXT, OTHER = "hello world", "jumpy foxes"
ANSWERS = {"correct_token": 5, "incorrect_token": 9}
DIFF: dict[str, Any] = {"metric": "logit_diff", "metric_kwargs": ANSWERS}
#: Weights with which about half of the features are active.
ACTIVE: dict[str, Any] = {"encoder_bias": mx.zeros(FEATURES)}


def diff(logits: Any) -> float:
    """logit(5) − logit(9) at the last position."""
    last = np.array(logits[0, -1], np.float64)
    return float(last[5] - last[9])


def without(model: Any, dictionary: Dictionary, text: Any, feature: int, new: Any = 0.0) -> Any:
    """Logits with one feature at `new`: its part is decoded by the dictionary, the rest stays."""
    reads, writes = str(dictionary.reads), str(dictionary.writes)
    x = model.activations(text, reads)[reads]
    whole = np.array(dictionary.encode(x))
    changed = whole.copy()
    changed[..., feature] = new
    moved = dictionary.decode(mx.array(changed), x) - dictionary.decode(mx.array(whole), x)
    return model.run_with_hooks(text, {writes: lambda y: y + moved}, allow_unchanged=True)


def loop(model: Any, dictionary: Dictionary, text: Any, features: Any) -> list[float]:
    """By how much the difference falls without each feature."""
    clean = diff(model.run_with_hooks(text))
    return [clean - diff(without(model, dictionary, text, feature)) for feature in features]


def identity(width: int, reads: str, dead: Any = ()) -> Dictionary:
    """One feature for each dimension, its positive part."""
    encoder = np.eye(width, dtype=np.float32)
    encoder[:, list(dead)] = 0
    return Dictionary(
        encoder=mx.array(encoder),
        encoder_bias=mx.zeros(width),
        decoder=mx.eye(width),
        decoder_bias=mx.zeros(width),
        activation=ReLU(),
        reads=reads,
    )
