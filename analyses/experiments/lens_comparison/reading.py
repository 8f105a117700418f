"""What the model's tail reads at one point, and how far that is from the model's own answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate

from ...lenses.readout import Top, in_parts, result_of, top_tokens
from .result import Reading


def read_point(
    model: InterpretableModel,
    residuals: Mapping[int, mx.array],
    tokens: list[str],
    positions: list[int],
    own: mx.array,
    answers: Sequence[int],
    *,
    point: str,
    top_k: int,
) -> Reading:
    """Read one point of some layers.

    Args:
        model: The model.
        residuals: layer → (1, positions, D).
        tokens: The prompt's tokens as text.
        positions: Where in the prompt the residuals come from.
        own: (positions, V) float32, the model's own logits.
        answers: The answer of each position.
        point: Name of the point.
        top_k: Predictions to keep.

    Raises:
        AnalysisError: if the tail gives NaN.
    """
    layers = list(residuals)
    tops: list[Top] = []
    measured: dict[int, list[mx.array]] = {layer: [] for layer in layers}
    targets, places = mx.array(list(answers)), range(len(positions))
    for together, part, logits in in_parts(residuals, places, own.shape[-1], model.finish_from):
        tops.append(top_tokens(logits, top_k))
        numbers = measures(logits.astype(mx.float32), own[part], targets[part])
        evaluate(tops[-1], numbers)
        for index, layer in enumerate(together):
            measured[layer].append(numbers[:, index])
    lens = result_of(model, tops, tokens, layers, positions, point)
    table = mx.stack([mx.concatenate(measured[layer], axis=-1) for layer in layers], axis=1)
    probability, rank, entropy, kl = table
    return Reading(lens, probability, rank.astype(mx.int32), entropy, kl)


def measures(logits: mx.array, own: mx.array, answers: mx.array) -> mx.array:
    """Four numbers of each distribution.

    Args:
        logits: (layers, P, V) float32.
        own: (P, V) float32, the model's.
        answers: (P,) token ids.

    Returns:
        (4, layers, P): probability and rank of the answer, entropy, and KL(own ‖ read) in nats.
        A token that neither gives any probability counts for nothing.
    """
    read, own_logs = _log_softmax(logits), _log_softmax(own)
    index = mx.broadcast_to(answers[None, :, None], (*logits.shape[:2], 1))
    answer = mx.take_along_axis(logits, index, axis=-1)
    ids = mx.arange(logits.shape[-1])
    # Equal logits rank by id, as in the list of the most likely tokens.
    before = (logits > answer) | ((logits == answer) & (ids < index))
    probability = mx.exp(mx.take_along_axis(read, index, axis=-1)[..., 0])
    weight = mx.exp(own_logs)
    kl = mx.sum(mx.where(weight > 0, weight * (own_logs - read), 0), axis=-1)
    share = mx.exp(read)
    entropy = -mx.sum(mx.where(share > 0, share * read, 0), axis=-1)
    rank = 1 + mx.sum(before, axis=-1)
    return mx.stack([probability, rank.astype(mx.float32), entropy, kl])


def _log_softmax(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
