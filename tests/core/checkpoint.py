"""A small random llama on disk, and how its loading fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import LoadError

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 20,
    "tie_word_embeddings": False,
}
IDS = [3, 5, 7]


def checkpoint(folder: Path, *, shards: int = 1, config: Any = None) -> dict[str, mx.array]:
    """Write a small random llama; returns its weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    mx.random.seed(3)
    model = llama.Model(llama.ModelArgs(**CONFIG))
    weights = dict(tree_flatten(model.parameters()))
    names = sorted(weights)
    for index in range(shards):
        part = {name: weights[name] for name in names[index::shards]}
        suffix = "" if shards == 1 else f"-{index + 1:05}-of-{shards:05}"
        mx.save_safetensors(str(folder / f"model{suffix}.safetensors"), part)
    return weights


def fails(source: Any, match: str, **options: Any) -> str:
    """The one line of a LoadError, which is also a ValueError."""
    with pytest.raises(LoadError, match=match) as error:
        InterpretableModel(source, **options)
    text = str(error.value)
    assert isinstance(error.value, ValueError)
    assert "\n" not in text and len(text) < 1000
    return text
