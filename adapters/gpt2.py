"""GPT-2: learned positions, LayerNorm, one projection for queries, keys and values."""

from __future__ import annotations

from mlxray import Adapter, hookimpl

GPT2 = Adapter(
    name="gpt2",
    model_types=("gpt2",),
    embed="model.wte",
    layers="model.h",
    final_norm="model.ln_f",
    positions="model.wpe",
    attn="attn",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    out_proj="c_proj",
    down_proj="c_proj",
    projections=("c_attn",),
    up_proj="c_fc",
    gate_proj=None,
    heads="n_head",
    kv_heads="n_head",
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """GPT-2."""
    return [GPT2]
