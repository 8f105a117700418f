"""A model that walks through its layers twice."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, hookimpl

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


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """This family."""
    return [IQUEST_LOOP]
