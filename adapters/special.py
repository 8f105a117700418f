"""Families with facts of their own, which looking at them cannot tell."""

from __future__ import annotations

from dataclasses import replace

import mlx.nn as nn

from mlxray import Adapter, OwnSoftmax, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA

LOOPED = (
    "the model walks through its layers twice and calls their parts itself: ask for a call of a "
    "module, such as 'layers.0.mlp#1'"
)

IQUEST_LOOP = replace(
    LLAMA,
    name="iquestloopcoder",
    model_types=("iquestloopcoder",),
    attn=None,
    mlp=None,
    absent=dict.fromkeys(("embed", "resid_pre", "resid_mid", "resid_post"), LOOPED),
    departures={"lens": "the blocks are never called, so they cannot be skipped"},
)

HYPER = "hyper-connections mix several residual streams in and out of each sub-layer"
GATHERED = "each query attends to keys that are gathered for it alone"

DEEPSEEK_V41 = replace(
    LLAMA,
    name="deepseek-v4.1",
    model_types=("deepseek_v41",),
    out_proj="o_b_proj",
    absent={
        **dict.fromkeys(("embed", "resid_pre", "resid_mid", "resid_post"), HYPER),
        **dict.fromkeys(("attn_add", "mlp_add"), HYPER),
        **dict.fromkeys(("q", "k", "v", "scores", "pattern", "z"), GATHERED),
        "head_out": "the output projection takes groups of heads, already projected once",
        "mlp_act": "tokens are routed to experts, each with activations of its own",
    },
    departures={
        "lens": HYPER,
        "gradient": "mlx-lm lets gradients into a router's choice of experts, where MLX has none",
    },
)

UNMASKED = "mlx-lm adds its boolean mask to the scores of block-sparse layers, and hides nothing"
TOGETHER = "one projection gives queries, keys and values: no module returns them alone"


def _is_block_sparse(block: nn.Module) -> bool:
    return bool(block.self_attn.block_sparse)


PHI3_SMALL = replace(
    LLAMA,
    name="phi3small",
    model_types=("phi3small",),
    final_norm="model.final_layernorm",
    out_proj="dense",
    variants=(
        Variant(
            {
                "attention": OwnSoftmax(q="rope#0", k="rope#1"),
                "absent": {"v": TOGETHER},
                "departures": dict.fromkeys(("scores", "mask", "right padding", "cache"), UNMASKED),
            },
            has=_is_block_sparse,
        ),
    ),
)

WINDOW = "mlx-lm masks a window of W + 1 keys, and its cache keeps W"
PLAMO3 = replace(
    LLAMA,
    name="plamo3",
    model_types=("plamo3",),
    layers="model.layers.layers",
    attn="mixer",
    attn_norm="pre_mixer_norm",
    mlp_norm="pre_mlp_norm",
    post_attn_norm="post_mixer_norm",
    post_mlp_norm="post_mlp_norm",
    heads="q_num_heads",
    kv_heads="k_num_heads",
    departures={"cache": WINDOW},
)

RECURRENT_GEMMA = replace(
    LLAMA,
    name="recurrent-gemma",
    model_types=("recurrent_gemma",),
    final_norm="model.final_norm",
    attn="temporal_block",
    mlp="mlp_block",
    attn_norm="temporal_pre_norm",
    mlp_norm="channel_pre_norm",
    heads="num_heads",
    kv_heads=1,
    variants=(
        Variant(
            {"attn": None, "mixer": "temporal_block"},
            has="temporal_block.rg_lru",
        ),
    ),
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Families that need a word of explanation."""
    return [IQUEST_LOOP, DEEPSEEK_V41, PHI3_SMALL, PLAMO3, RECURRENT_GEMMA]
