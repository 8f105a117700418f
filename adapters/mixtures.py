"""Mixtures of experts, with plain or latent attention."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA, inside

ROUTED = {"mlp_act": "tokens are routed to experts, each with activations of its own"}
SCALED = dict.fromkeys(("router", "expert_out"), "the router scales what enters the experts")
GATED = {"out_proj": "a gate multiplies z before the output projection"}
POSITIONS = {"scores": "positions' part of the scores is added to scale · q @ k"}


def sparse(mlp: str, experts: str) -> Variant:
    """The blocks with experts, in families that also have dense ones."""
    return Variant({"absent": ROUTED, "experts": experts}, has=f"{mlp}.{experts}")


SPARSE = (sparse("mlp", "switch_mlp"), sparse("mlp", "experts"))

MIXTURE = replace(
    LLAMA,
    name="mixture",
    model_types=(
        *("dots1", "ernie4_5_moe", "exaone_moe", "glm4_moe", "mellum", "mimo_v2_flash"),
        *("olmoe", "qwen2_moe", "qwen3_moe", "solar_open"),
    ),
    variants=SPARSE,
)
QWEN3_VL = inside(MIXTURE, "language_model", name="qwen3-vl-moe", model_types=("qwen3_vl_moe",))
# Blocks hand keys and values on to each other.
HUNYUAN = replace(MIXTURE, name="hunyuan", model_types=("hunyuan",), returns=2)
LAGUNA = replace(MIXTURE, name="laguna", model_types=("laguna",), departures=GATED)

MIXTRAL = replace(
    LLAMA,
    name="mixtral",
    model_types=("mixtral",),
    mlp="block_sparse_moe",
    heads="num_heads",
    kv_heads="num_key_value_heads",
    experts="switch_mlp",
    absent=ROUTED,
)
MINIMAX = replace(MIXTRAL, name="minimax", model_types=("minimax",), heads="num_attention_heads")
PHI_MOE = replace(
    MIXTRAL, name="phi-moe", model_types=("phimoe",), heads="n_heads", kv_heads="n_kv_heads"
)
GRANITE_MOE = replace(
    PHI_MOE,
    name="granite-moe",
    model_types=("granitemoe",),
    attn_scale="residual_multiplier",
    mlp_scale="residual_multiplier",
)
GPT_OSS = replace(
    LLAMA,
    name="gpt-oss",
    model_types=("gpt_oss",),
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
    experts="experts",
    absent=ROUTED,
)
LLAMA4_VISION = inside(
    replace(LLAMA, mlp="feed_forward"),
    "language_model",
    name="llama4",
    model_types=("llama4",),
    variants=(Variant({"absent": {**ROUTED, **SCALED}}, has="feed_forward.experts"),),
)

# Latent attention: keys and values are expanded before the scores, so that they look plain.
LATENT = replace(
    MIXTURE,
    name="latent",
    model_types=("deepseek_v2", "mistral4", "youtu_llm"),
    heads="num_heads",
    kv_heads="num_heads",
)
DEEPSEEK = replace(
    MIXTURE,
    name="deepseek",
    model_types=("deepseek",),
    heads="num_attention_heads",
    kv_heads="num_kv_heads",
)
DEEPSEEK_V3 = replace(
    LATENT,
    name="deepseek-v3",
    model_types=("deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"),
    departures=POSITIONS,
)
KIMI_VL = inside(DEEPSEEK_V3, "language_model", name="kimi-vl", model_types=("kimi_vl", "kimi_k25"))
MINICPM3 = replace(
    LATENT,
    name="minicpm3",
    model_types=("minicpm3",),
    attn_scale=lambda block: block.scale_depth / block.num_hidden_layers**0.5,
    mlp_scale=lambda block: block.scale_depth / block.num_hidden_layers**0.5,
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Families of experts."""
    return [
        *(
            MIXTURE,
            QWEN3_VL,
            HUNYUAN,
            LAGUNA,
            MIXTRAL,
            MINIMAX,
            PHI_MOE,
            GRANITE_MOE,
            GPT_OSS,
            LLAMA4_VISION,
        ),
        *(LATENT, DEEPSEEK, DEEPSEEK_V3, KIMI_VL, MINICPM3),
    ]
