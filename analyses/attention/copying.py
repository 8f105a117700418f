"""Copying heads: whether attending to a token raises that token's own logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import AnalysisError

from .circuits import norm_directions, ov_factors, standard_basis
from .heads_result import HeadScoresResult
from .patterns import attention_layers
from .scores import eigenvalue_share

#: Numbers of a table that exist at one time: 64 MiB of float32.
AT_ONCE = 1 << 24


@analysis(result=HeadScoresResult)
def copying_scores(
    model: InterpretableModel, layers: Sequence[int] | None = None
) -> HeadScoresResult:
    """How far each head raises the tokens that it attends to (Elhage et al. 2021).

    The whole circuit of a head, from a token's embedding through the layer's norm, the head's
    own values and outputs, the final norm and the head of the model to logits, is a V × V
    matrix. The score is Σλ / Σ|λ| of its eigenvalues: 1 for a head that raises what it reads, −1
    for one that lowers it, 0 for one that does neither. Every part is the model's own module,
    called on the standard basis; norms count by their gain, biases and what lies between the
    layers are left out.

    Args:
        model: The model.
        layers: Layers to look at; None for all that have attention.

    Returns:
        Scores named ``"copying"``.

    Raises:
        AnalysisError: if heads have no OV circuit, or embeddings another width than the
            residual stream.
        PointAbsent: if a layer has no attention that can be seen.
    """
    wanted = attention_layers(model, layers)
    return HeadScoresResult(wanted, {"copying": copying_matrix(model, wanted)}, [])


def copying_matrix(model: InterpretableModel, layers: Sequence[int]) -> mx.array:
    """Copying scores as (layers, H); see `copying_scores`."""
    import numpy as np

    layout, adapter = model.layout, model.adapter
    basis = standard_basis(model)
    around = _from_logits_to_embedding(model, basis)
    rows = []
    for layer in layers:
        block = layout.block(layer)
        post = f"{block}.{adapter.post_attn_norm}" if adapter.post_attn_norm else None
        between = (
            norm_directions(model, post, basis)
            @ around
            @ norm_directions(model, f"{block}.{adapter.attn_norm}", basis)
        )
        values, outputs = ov_factors(model, layer)
        # The (V, V) circuit has, but for zeros, the eigenvalues of this (d, d) matrix per head.
        small = np.array(outputs @ between @ values)
        rows.append([eigenvalue_share(matrix, empty=0.0) for matrix in small])
    if len({len(row) for row in rows}) > 1:
        raise AnalysisError(
            "the layers differ in their number of heads; choose some with layers=[…]."
        )
    return mx.array(rows)


def _from_logits_to_embedding(model: InterpretableModel, basis: mx.array) -> mx.array:
    """``G @ U.T @ E``: directions to logits, and those to the embeddings of their tokens.

    G is the final norm's gain, U the output head (V, D), E the embedding (V, D).
    """
    layout, adapter = model.layout, model.adapter
    gained = norm_directions(model, adapter.final_norm, basis).astype(basis.dtype)
    embed = layout.modules[adapter.embed]

    def logits(rows: mx.array) -> mx.array:
        return model.finish_from(rows[None], skip_norm=True)[0].astype(mx.float32)

    nothing = logits(mx.zeros_like(gained[:1]))
    tokens = min(nothing.shape[-1], layout.rows(adapter.embed) or nothing.shape[-1])
    step = max(1, AT_ONCE // nothing.shape[-1])
    some = max(1, AT_ONCE // basis.shape[0])
    parts = []
    for start in range(0, gained.shape[0], step):
        raised = logits(gained[start : start + step]) - nothing
        total = mx.zeros((raised.shape[0], basis.shape[0]))
        for first in range(0, tokens, some):
            ids = mx.arange(first, min(first + some, tokens))
            table = embed(ids[None])[0].astype(mx.float32)
            if table.shape[-1] != basis.shape[0]:
                raise AnalysisError(
                    f"embeddings are {table.shape[-1]} wide and the residual stream "
                    f"{basis.shape[0]}: there is no circuit from one to the other."
                )
            total = total + raised[:, first : first + some] @ table
            mx.eval(total)
        parts.append(total)
    return mx.concatenate(parts)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Copying scores."""
    return [copying_scores]
