"""Phi 3 small: one projection for queries, keys and values, and block-sparse layers."""

from __future__ import annotations

from dataclasses import replace

import mlx.nn as nn

from mlxray import Adapter, OwnSoftmax, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA

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


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """This family."""
    return [PHI3_SMALL]
