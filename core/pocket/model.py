"""The architecture: a small Llama, built with mlx-lm's own class."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs

from ..storage.files import save_safetensors, write_text


@dataclass(frozen=True)
class Shape:
    """Sizes of the model: ``heads`` query heads share ``kv_heads`` key/value heads."""

    layers: int = 5
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 320
    vocabulary: int = 1536
    context: int = 256
    rope_theta: float = 1000.0

    def config(self) -> dict[str, Any]:
        """The ``config.json`` that mlx-lm and transformers read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.mlp,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.width // self.heads,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rms_norm_eps": 1e-5,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.context,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 5,
            "dtype": "float32",
        }


def build_model(shape: Shape, seed: int = 0) -> Model:
    """A model with fresh weights; what writes to the residual stream starts smaller."""
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(shape.config()))
    shrink = 1 / math.sqrt(2 * shape.layers)
    for layer in model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight = linear.weight * shrink
    mx.eval(model.parameters())
    return model


def flatten(tree: dict[str, Any]) -> list[tuple[str, mx.array]]:
    """A tree of arrays as a list with dotted names."""
    flat: list[tuple[str, mx.array]] = tree_flatten(tree)  # type: ignore[assignment]
    return flat


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model has; tied embeddings count once."""
    return sum(value.size for _, value in flatten(model.parameters()))


def save_model(model: nn.Module, shape: Shape, folder: Path) -> None:
    """Write ``model.safetensors`` (float32) and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(flatten(model.parameters()))
    save_safetensors(folder / "model.safetensors", weights, {"format": "mlx"})
    write_text(folder / "config.json", json.dumps(shape.config(), indent=2) + "\n")
