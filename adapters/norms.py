"""Blocks with norms behind their sub-layers, before the residual stream."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

from .llama import LLAMA

# OLMo 2 has no norms before its sub-layers.
OLMO2 = replace(
    LLAMA,
    name="olmo2",
    model_types=("olmo2", "exaone4"),
    attn_norm=None,
    mlp_norm=None,
    post_attn_norm="post_attention_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
)
OLMO3 = replace(
    OLMO2,
    name="olmo3",
    model_types=("olmo3",),
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
)

GLM4 = replace(
    LLAMA,
    name="glm4",
    model_types=("glm4",),
    post_attn_norm="post_self_attn_layernorm",
    post_mlp_norm="post_mlp_layernorm",
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """OLMo 2 and 3, EXAONE 4, GLM 4."""
    return [OLMO2, OLMO3, GLM4]
