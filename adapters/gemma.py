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

# The checkpoint with eyes: the same tower below a wrapper, its output tied to the embedding.
GEMMA3_VISION = replace(
    GEMMA3,
    name="gemma3-vision",
    model_types=("gemma3",),
    embed="language_model.model.embed_tokens",
    layers="language_model.model.layers",
    final_norm="language_model.model.norm",
    head="language_model.lm_head",
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Gemma 1, 2 and 3."""
    return [GEMMA, GEMMA2, GEMMA3, GEMMA3_VISION]
