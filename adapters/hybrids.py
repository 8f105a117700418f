"""State spaces, linear attention and convolutions, alone, beside attention or instead of it."""

from __future__ import annotations

from dataclasses import replace

import mlx.nn as nn

from mlxray import Adapter, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA, inside
from .mixtures import GATED, POSITIONS, ROUTED, SPARSE, sparse

ONE = {"resid_mid": "this block has one sub-layer only"}

MAMBA = replace(
    LLAMA,
    name="mamba",
    model_types=("mamba", "mamba2"),
    embed="backbone.embeddings",
    layers="backbone.layers",
    final_norm="backbone.norm_f",
    attn=None,
    mlp=None,
    mixer="mixer",
    attn_norm="norm",
    mlp_norm=None,
    absent=ONE,
)

# Each block is one of four things.
NEMOTRON_H = replace(
    MAMBA,
    name="nemotron-h",
    model_types=("nemotron_h",),
    heads="num_heads",
    kv_heads="num_key_value_heads",
    variants=(
        Variant({"attn": "mixer", "mixer": None}, has="mixer.o_proj"),
        Variant(
            {"mlp": "mixer", "mixer": None, "attn_norm": None, "mlp_norm": "norm"},
            has="mixer.up_proj",
        ),
        Variant(
            {
                "mlp": "mixer",
                "mixer": None,
                "attn_norm": None,
                "mlp_norm": "norm",
                "absent": ROUTED,
                "experts": "switch_mlp",
            },
            has="mixer.switch_mlp",
        ),
    ),
)

FALCON_H1 = replace(
    LLAMA,
    name="falcon-h1",
    model_types=("falcon_h1",),
    final_norm="model.final_layernorm",
    mlp="feed_forward",
    mixer="mamba",
    mlp_norm="pre_ff_layernorm",
    heads="num_heads",
    kv_heads="num_kv_heads",
)

JAMBA = replace(
    LLAMA,
    name="jamba",
    model_types=("jamba",),
    final_norm="model.final_layernorm",
    mlp="feed_forward",
    mlp_norm="pre_ff_layernorm",
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
    variants=(
        Variant({"attn": None, "mixer": "mamba"}, has="mamba"),
        sparse("feed_forward", "switch_mlp"),
    ),
)

LFM2 = replace(
    LLAMA,
    name="lfm2",
    model_types=("lfm2", "lfm2_moe"),
    final_norm="model.embedding_norm",
    mlp="feed_forward",
    attn_norm="operator_norm",
    mlp_norm="ffn_norm",
    out_proj="out_proj",
    variants=(
        Variant({"attn": None, "mixer": "conv"}, has="conv"),
        Variant({"down_proj": "w2"}, has="feed_forward.w2"),
        sparse("feed_forward", "switch_mlp"),
    ),
)
LFM2_VISION = inside(LFM2, "language_model", name="lfm2-vl", model_types=("lfm2-vl",))

SUMMED = "the MLP is the sum of 'block_sparse_moe' and 'shared_mlp'"
GRANITE_HYBRID = replace(
    LLAMA,
    name="granite-hybrid",
    model_types=("granitemoehybrid",),
    attn_scale="residual_multiplier",
    mlp_scale="residual_multiplier",
    variants=(
        Variant({"attn": None, "mixer": "mamba"}, has="mamba"),
        Variant(
            {
                "mlp": None,
                "mlp_norm": None,
                "absent": dict.fromkeys(("mlp_out", "mlp_add", "mlp_act", "resid_mid"), SUMMED),
                "departures": {"sum": SUMMED},
            },
            has="block_sparse_moe",
        ),
    ),
)

# Attention with a gated output in every few layers, the gated delta rule in the others.
QWEN3_NEXT = replace(
    LLAMA,
    name="qwen3-next",
    model_types=("qwen3_next",),
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
    variants=(
        Variant({"attn": None, "mixer": "linear_attn"}, has="linear_attn"),
        Variant({"departures": GATED}, has="self_attn"),
        *SPARSE,
    ),
)
QWEN3_5 = inside(
    QWEN3_NEXT,
    "language_model",
    name="qwen3.5",
    model_types=("qwen3_5", "qwen3_5_moe", "prism_hadamard_qwen35"),
)

OLMO_HYBRID = replace(
    LLAMA,
    name="olmo-hybrid",
    model_types=("olmo_hybrid",),
    attn_norm=None,
    mlp_norm=None,
    post_attn_norm="post_attention_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
    variants=(
        Variant(
            {
                "attn": None,
                "mixer": "linear_attn",
                "attn_norm": "input_layernorm",
                "mlp_norm": "post_attention_layernorm",
                "post_attn_norm": None,
                "post_mlp_norm": None,
            },
            has="linear_attn",
        ),
    ),
)

PLAMO2 = replace(
    LLAMA,
    name="plamo2",
    model_types=("plamo2",),
    layers="model.layers.layers",
    attn="mixer",
    attn_norm="pre_mixer_norm",
    mlp_norm="pre_mlp_norm",
    post_attn_norm="post_mixer_norm",
    post_mlp_norm="post_mlp_norm",
    heads="q_num_heads",
    kv_heads="k_num_heads",
    variants=(Variant({"attn": None, "mixer": "mixer"}, has="mixer.conv1d"),),
)


def is_linear(block: nn.Module) -> bool:
    """Whether a block of Kimi's mixes tokens by linear attention."""
    return bool(block.is_linear)


RESIDUALS = "each sub-layer reads a weighted mean of what earlier blocks left (attention residuals)"
KIMI_LINEAR = replace(
    LLAMA,
    name="kimi-linear",
    model_types=("kimi_linear",),
    heads="num_heads",
    kv_heads="num_key_value_heads",
    variants=(
        Variant({"departures": POSITIONS}, has=lambda block: not is_linear(block)),
        Variant({"attn": None, "mixer": "self_attn"}, has=is_linear),
        *SPARSE,
    ),
)
KIMI_K3 = inside(
    KIMI_LINEAR,
    "language_model",
    name="kimi-k3",
    model_types=("kimi_k3",),
    kv_heads="num_heads",
    returns=2,
    variants=(
        *KIMI_LINEAR.variants,
        Variant(
            {
                "attn_norm": None,
                "mlp_norm": None,
                "absent": {"resid_mid": RESIDUALS},
                "departures": dict.fromkeys(("sum", "lens", "final_norm"), RESIDUALS),
            },
            has="self_attention_res_norm",
        ),
    ),
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Families that mix tokens in other ways than softmax attention alone."""
    return [
        *(MAMBA, NEMOTRON_H, FALCON_H1, JAMBA, LFM2, LFM2_VISION, GRANITE_HYBRID),
        *(QWEN3_NEXT, QWEN3_5, OLMO_HYBRID, PLAMO2, KIMI_LINEAR, KIMI_K3),
    ]
