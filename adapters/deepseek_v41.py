"""DeepSeek 4.1: several residual streams, and keys gathered for each query."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

from .llama import LLAMA

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


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """This family."""
    return [DEEPSEEK_V41]
