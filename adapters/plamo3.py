"""PLaMo 3: norms around each sub-layer, and a window."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

from .llama import LLAMA

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


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """This family."""
    return [PLAMO3]
