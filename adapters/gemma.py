"""Gemma 1, 2 and 3: scaled embeddings; from Gemma 2 on, norms on both sides of a sub-layer."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, OwnSoftmax, hookimpl

from .llama import LLAMA

GEMMA = replace(LLAMA, name="gemma", model_types=("gemma",))

GEMMA3 = replace(
    GEMMA,
    name="gemma3",
    model_types=("gemma3_text",),
    post_attn_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
)

# Gemma 2 caps its scores with a tanh, which the fused kernel does not do.
GEMMA2 = replace(GEMMA3, name="gemma2", model_types=("gemma2",), attention=OwnSoftmax())


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Gemma 1, 2 and 3 (text)."""
    return [GEMMA, GEMMA2, GEMMA3]
