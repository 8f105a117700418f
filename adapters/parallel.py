"""Blocks whose attention and MLP read the same stream: GPT-NeoX, GPT-J, Phi, Cohere, PLaMo."""

from __future__ import annotations

from dataclasses import replace

import mlx.nn as nn

from mlxray import Adapter, hookimpl
from mlxray.points.adapter import Variant

from .gpt2 import GPT2
from .llama import LLAMA

PARALLEL = {"resid_mid": "attention and MLP run in parallel, on the same stream"}


def is_parallel(block: nn.Module) -> bool:
    """Whether a checkpoint chose the parallel form."""
    return bool(block.use_parallel_residual)


COHERE = replace(
    LLAMA,
    name="cohere",
    model_types=("cohere", "cohere2"),
    mlp_norm="input_layernorm",
    absent=PARALLEL,
)

GPT_NEOX = replace(
    LLAMA,
    name="gpt-neox",
    model_types=("gpt_neox",),
    embed="model.embed_in",
    layers="model.h",
    final_norm="model.final_layer_norm",
    head="model.embed_out",
    attn="attention",
    out_proj="dense",
    down_proj="dense_4h_to_h",
    up_proj="dense_h_to_4h",
    gate_proj=None,
    heads="num_attention_heads",
    kv_heads="num_attention_heads",
    variants=(Variant({"absent": PARALLEL}, has=is_parallel),),
)

GPT_J = replace(
    GPT2,
    name="gpt-j",
    model_types=("gptj",),
    positions=None,
    mlp_norm="ln_1",
    out_proj="out_proj",
    down_proj="fc_out",
    projections=("q_proj", "k_proj", "v_proj"),
    up_proj="fc_in",
    heads="num_attention_heads",
    kv_heads="num_attention_heads",
    absent=PARALLEL,
)

PHI = replace(
    COHERE,
    name="phi",
    model_types=("phi",),
    final_norm="model.final_layernorm",
    out_proj="dense",
    down_proj="fc2",
    up_proj="fc1",
    gate_proj=None,
    heads="num_heads",
    kv_heads="num_key_value_heads",
)

PLAMO = replace(
    LLAMA,
    name="plamo",
    model_types=("plamo",),
    layers="model.layers.layers",
    attn_norm="norm",
    mlp_norm="norm",
    heads="q_num_heads",
    kv_heads="q_num_heads",
    absent=PARALLEL,
)

STABLELM = replace(
    LLAMA,
    name="stablelm",
    model_types=("stablelm",),
    heads="num_heads",
    kv_heads="num_key_value_heads",
    variants=(Variant({"mlp_norm": "input_layernorm", "absent": PARALLEL}, has=is_parallel),),
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Families with parallel blocks."""
    return [COHERE, GPT_NEOX, GPT_J, PHI, PLAMO, STABLELM]
