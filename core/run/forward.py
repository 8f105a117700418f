"""A plain run of the model: logits, or the loss of its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..checks.arguments import checked
from ..checks.finite import NaNCheck
from ..errors import InputError
from ..tokens import Batch, Inputs
from .run import Run
from .wrapped import WrappedModel

Returned = Literal["logits", "loss"]


@checked("inputs", "return_type")
def forward(
    model: WrappedModel,
    inputs: Inputs,
    return_type: Literal["logits", "loss", "both"] = "logits",
    *,
    loss_per_token: bool = False,
) -> Any:
    """Run once: ``model("Hello")`` gives the logits.

    Args:
        model: The model.
        inputs: Text, texts, token ids, or an array (B, S).
        return_type: ``"logits"`` (B, S, V); ``"loss"``, the mean cross-entropy of the tokens that
            follow, in nats; or ``"both"``, as a pair.
        loss_per_token: Give the loss of each of them, (B, S − 1) float32.

    Raises:
        InputError: for a loss of prompts without a second token.
    """
    batch = model.tokens.batch(inputs)
    check_returned(return_type, batch, ("logits", "loss", "both"))
    run = Run(model.layout)
    logits: mx.array = run.execute(batch.ids, lengths=batch.lengths)
    found = returned(logits, batch, return_type, per_token=loss_per_token)
    check = NaNCheck({}, logits)
    run.settle(found, *check.pending)
    check.warn()
    return found


def check_returned(
    return_type: Any, batch: Batch, choices: Sequence[str] = ("logits", "loss")
) -> None:
    """Refuse a `return_type` before anything runs.

    Raises:
        InputError: if it is none of the choices, or a loss of nothing.
    """
    if return_type is None:
        raise InputError(
            "return_type=None would give nothing. For activations without logits write "
            "model.activations(prompt, addresses)."
        )
    if return_type not in choices:
        words = " or ".join(map(repr, choices))
        raise InputError(f"return_type is {words}; got {return_type!r}.")
    if return_type != "logits" and max(batch.lengths) < 2:
        raise InputError(
            "a loss needs prompts of two tokens at least: the first predicts the next."
        )


def returned(logits: mx.array, batch: Batch, return_type: str, *, per_token: bool = False) -> Any:
    """What a run gives: logits, loss, or both; lazy.

    Raises:
        InputError: if the loss of each token is asked for and the prompts differ in length.
    """
    if return_type == "logits":
        return logits
    if per_token and batch.padded:
        raise InputError("loss_per_token takes prompts of equally many tokens.")
    losses = nn.losses.cross_entropy(logits[:, :-1].astype(mx.float32), batch.ids[:, 1:])
    if not per_token:
        own = mx.arange(losses.shape[1]) < mx.array(batch.lengths)[:, None] - 1
        losses = mx.where(own, losses, 0).sum() / own.sum()
    return losses if return_type == "loss" else (logits, losses)
