"""Gemma 1, 2 and 3: scaled embeddings; from Gemma 2 on, norms on both sides of a sub-layer."""

from __future__ import annotations

from dataclasses import replace

from mlxray import Adapter, OwnSoftmax, hookimpl
from mlxray.points.adapter import Variant

from .llama import LLAMA, inside

GEMMA = replace(LLAMA, name="gemma", model_types=("gemma",))

GEMMA3 = replace(
    GEMMA,
    name="gemma3",
    model_types=("gemma3_text",),
    post_attn_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
)

# Gemma 2 caps its scores with a tanh, which the fused kernel does not do.
GEMMA2 = replace(GEMMA3, name="gemma2", model_types=("gemma2",), attention=OwnSoftmax())

# The checkpoint with eyes: the same tower below a wrapper.
GEMMA3_VISION = inside(GEMMA3, "language_model", name="gemma3-vision", model_types=("gemma3",))

STREAMS = "the model keeps several residual streams side by side (AltUp)"

# Layers that share keys and values find them in a cache only; without one they would use
# projections that were never trained.
GEMMA3N = replace(
    GEMMA3,
    name="gemma3n",
    model_types=("gemma3n",),
    embed="model.language_model.embed_tokens",
    layers="model.language_model.layers",
    final_norm="model.language_model.norm",
    needs_cache=True,
    absent=dict.fromkeys(("embed", "resid_pre", "resid_mid", "resid_post"), STREAMS),
    departures={
        "lens": "the logits are a mean over several residual streams (AltUp), not of one",
    },
)

EXPERTS = "the MLP is the sum of 'mlp' and 'experts', each behind norms of its own"
GATED = "a gated input of each layer's own is added, and a learned factor scales the whole stream"

GEMMA4 = replace(
    GEMMA3,
    name="gemma4",
    model_types=("gemma4_text",),
    returns=3,
    departures={"sum": GATED, "post": GATED},
    variants=(Variant({"absent": {"mlp_out": EXPERTS, "mlp_act": EXPERTS}}, has="experts"),),
)
GEMMA4_VISION = inside(GEMMA4, "language_model", name="gemma4-vision", model_types=("gemma4",))


@hookimpl
def mlxray_adapters() -> list[Adapter]:
    """Gemma 1 to 4, and 3n."""
    return [GEMMA, GEMMA2, GEMMA3, GEMMA3_VISION, GEMMA3N, GEMMA4, GEMMA4_VISION]
