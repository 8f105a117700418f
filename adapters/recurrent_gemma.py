"""Recurrent Gemma: local attention in some blocks, a recurrence in the others."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA

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
    """This family."""
    return [RECURRENT_GEMMA]
