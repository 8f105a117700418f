"""Small random models with every parameter drawn, and a pair of prompts for them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models import gpt2, llama

from mlxray import InterpretableModel

CLEAN = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
CORRUPTED = [1, 22, 3, 4, 25, 6, 7, 8, 9, 10]


def drawn(root: Any, seed: int = 0) -> InterpretableModel:
    mx.random.seed(seed)

    def draw(array: mx.array) -> mx.array:
        if array.ndim == 1:
            return 1 + 0.3 * mx.random.normal(array.shape)
        return 0.15 * mx.random.normal(array.shape)

    root.update(tree_map(draw, root.parameters()))
    return InterpretableModel(root)


def small_llama() -> InterpretableModel:
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=4,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=40,
    )
    return drawn(llama.Model(args))


def small_gpt2() -> InterpretableModel:
    args = gpt2.ModelArgs(
        model_type="gpt2",
        n_ctx=16,
        n_embd=32,
        n_head=4,
        n_layer=3,
        n_positions=16,
        layer_norm_epsilon=1e-5,
        vocab_size=40,
    )
    return drawn(gpt2.Model(args))
