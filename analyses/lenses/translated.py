"""Reading a prompt's residual stream through a lens that translates each layer's first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.run.tail import Norm

from ..prompts import one_prompt
from .lens_result import LensResult
from .readout import read_out, watched


def read_translated(
    model: InterpretableModel,
    text: Any,
    translate: Callable[[mx.array, int], mx.array],
    layers: Sequence[int] | None,
    *,
    summary: Mapping[str, Any],
    top_k: int,
    position: int | None,
    final_norm: Norm | None,
    skip_norm: bool,
) -> LensResult:
    """What the model's tail predicts from each layer's stream, once it is translated.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        translate: From a layer's stream (1, S, D) and the layer to what the tail reads, (1, S, D).
        layers: Layers to read, None for all.
        summary: The lens, for the result's parameters: its name there, and what it is.
        top_k, position, final_norm, skip_norm: See `read_out`.

    Raises:
        InputError: for several prompts, or as `read_out` does.
        PointAbsent: if the model has no single residual stream.
        AnalysisError: if the tail gives NaN.
    """
    batch, tokens = one_prompt(model, text)
    residuals = watched(model, batch, "resid_post", layers)
    result = read_out(
        model,
        {layer: translate(residual, layer) for layer, residual in residuals.items()},
        tokens,
        point="resid_post",
        top_k=top_k,
        position=position,
        final_norm=final_norm,
        skip_norm=skip_norm,
    )
    # A summary of the lens in place of its arrays.
    result.metadata["parameters"] = {
        "text": text,
        **summary,
        "top_k": top_k,
        "layers": result.layers,
        "position": position,
        "final_norm": final_norm,
        "skip_norm": skip_norm,
    }
    return result
