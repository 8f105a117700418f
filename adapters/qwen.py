"""Qwen: the first generation has names of its own, the later ones have Llama's."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

from .llama import LLAMA

QWEN = replace(
    LLAMA,
    name="qwen",
    model_types=("qwen",),
    embed="transformer.wte",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    attn="attn",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    out_proj="c_proj",
    down_proj="c_proj",
    projections=("c_attn",),
    up_proj="w1",
    gate_proj="w2",
    heads="num_attention_heads",
    kv_heads="num_attention_heads",
)
QWEN2 = replace(LLAMA, name="qwen2", model_types=("qwen2",))
QWEN3 = replace(LLAMA, name="qwen3", model_types=("qwen3",))


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Qwen 1 to 3."""
    return [QWEN, QWEN2, QWEN3]
