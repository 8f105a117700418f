"""Llama, and the many families that keep its names or change a few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlxray import Adapter, hookimpl

LLAMA = Adapter(
    name="llama",
    model_types=(
        *("llama", "mistral", "ernie4_5", "helium", "hunyuan_v1_dense", "internlm3", "mimo"),
        *("ministral3", "nanbeige", "nemotron", "phi3", "seed_oss", "smollm3"),
    ),
)


def inside(adapter: Adapter, wrapper: str, **changes: Any) -> Adapter:
    """The adapter of a model that a wrapper holds at `wrapper`, such as a text tower."""
    paths = {
        role: f"{wrapper}.{getattr(adapter, role)}"
        for role in ("embed", "layers", "final_norm", "head")
    }
    return replace(adapter, **{**paths, **changes})


# Text towers of vision models.
LLAMA_VISION = inside(
    LLAMA,
    "language_model",
    name="llama-vision",
    model_types=("mistral3", "pixtral", "qwen2_vl", "qwen3_vl"),
)

# Longer names for the numbers of heads.
GLM = replace(
    LLAMA,
    name="glm",
    model_types=("glm", "telechat3"),
    heads="num_attention_heads",
    kv_heads="num_key_value_heads",
)
APERTUS = replace(
    GLM,
    name="apertus",
    model_types=("apertus",),
    attn_norm="attention_layernorm",
    mlp_norm="feedforward_layernorm",
)
BAICHUAN = replace(
    LLAMA, name="baichuan", model_types=("baichuan_m1",), heads="num_heads", kv_heads="num_kv_heads"
)

STARCODER2 = replace(
    LLAMA,
    name="starcoder2",
    model_types=("starcoder2",),
    down_proj="c_proj",
    up_proj="c_fc",
    gate_proj=None,
)
LLAMA4 = replace(LLAMA, name="llama4-text", model_types=("llama4_text",), mlp="feed_forward")

INTERNLM2 = replace(
    LLAMA,
    name="internlm2",
    model_types=("internlm2",),
    embed="model.tok_embeddings",
    attn="attention",
    mlp="feed_forward",
    attn_norm="attention_norm",
    mlp_norm="ffn_norm",
    out_proj="wo",
    down_proj="w2",
    up_proj="w3",
    gate_proj="w1",
)

# The stream gets each sub-layer's output times a factor.
GRANITE = replace(
    LLAMA,
    name="granite",
    model_types=("granite",),
    attn_scale="residual_multiplier",
    mlp_scale="residual_multiplier",
)


def by_depth(block: Any) -> float:
    """MiniCPM's factor, which it computes anew in each call."""
    return float(block.scale_depth / block.num_hidden_layers**0.5)


MINICPM = replace(
    LLAMA,
    name="minicpm",
    model_types=("minicpm",),
    heads="num_heads",
    kv_heads="num_key_value_heads",
    attn_scale=by_depth,
    mlp_scale=by_depth,
)


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Llama and its likes."""
    return [
        *(LLAMA, LLAMA_VISION, LLAMA4, GLM, APERTUS, BAICHUAN),
        *(STARCODER2, INTERNLM2, GRANITE, MINICPM),
    ]
