"""Tokens that the model's head, or another, finds likeliest for a hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from ..arrays import nested
from ..checks.arguments import checked, count
from ..errors import InputError
from .tail import finish_from
from .wrapped import WrappedModel


@checked()
def get_token_predictions(
    model: WrappedModel,
    hidden_state: mx.array,
    top_k: int = 10,
    return_scores: bool = False,
    embedding_layer: Any = None,
    lm_head: Callable[[mx.array], mx.array] | None = None,
) -> list[Any]:
    """The tokens that the output projection scores highest for a hidden state.

    The final norm is not applied (`logit_lens` does): a cap or a scale of the model's is.

    Args:
        model: The model.
        hidden_state: (D,), or (B, D) for a list per row.
        top_k: How many.
        return_scores: Give (token id, logit) pairs.
        embedding_layer: Use this embedding, transposed, instead of the model's head.
        lm_head: Use this module instead; it goes before `embedding_layer`.
    """
    if hidden_state.ndim not in (1, 2):
        raise InputError(f"hidden_state has shape (D,) or (B, D); got {hidden_state.shape}.")
    rows = hidden_state if hidden_state.ndim == 2 else hidden_state[None]
    if lm_head is None and embedding_layer is not None:
        lm_head = getattr(embedding_layer, "as_linear", None)
        if lm_head is None:
            kind = type(embedding_layer).__name__
            raise InputError(f"embedding_layer is an embedding with as_linear; got {kind}.")
    try:
        if lm_head is not None:
            logits = lm_head(rows)
        else:
            logits = finish_from(model.layout, rows[:, None], skip_norm=True)[:, 0]
    except ValueError as error:
        shape = hidden_state.shape
        raise InputError(f"the head does not take a state of shape {shape}: {error}") from error
    top_k = count(top_k, "top_k", most=logits.shape[-1])
    order = mx.argsort(-logits, axis=-1)[:, :top_k]
    scores = mx.take_along_axis(logits, order, axis=-1).astype(mx.float32)
    ids: list[Any] = nested(order)
    found = ids
    if return_scores:
        values = nested(scores)
        found = [list(zip(i, s, strict=True)) for i, s in zip(ids, values, strict=True)]
    return found if hidden_state.ndim == 2 else found[0]
