"""Reading residual streams out through the model's own tail, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, on_gpu, start_evaluating
from mlxray.checks.arguments import whole_number
from mlxray.errors import AnalysisError, InputError
from mlxray.points.layout import Layout
from mlxray.run.run import Run
from mlxray.run.tail import Norm, Tail
from mlxray.tokens import Batch
from mlxray.top_k import top_k as largest

from ..prompts import token_texts
from .lens_result import LensResult, Prediction

#: Logits of one part, of which two exist at one time: 64 MiB of float32 each.
LOGITS_AT_ONCE = 1 << 24

#: How many times larger parts are on a GPU, which ends a small one before the next is built.
TIMES_ON_GPU = 4
#: Token ids, logits and probabilities of the best tokens: (…, top_k) each.
Top = tuple[mx.array, mx.array, mx.array]


def rows_at_once(vocabulary: int) -> int:
    """How many rows of logits may exist at one time."""
    many = LOGITS_AT_ONCE * (TIMES_ON_GPU if on_gpu() else 1)
    return max(1, many // vocabulary)


def top_tokens(logits: mx.array, top_k: int) -> Top:
    """The largest logits of each row, equal ones in the order of their ids.

    Args:
        logits: (…, V).
        top_k: How many, at most V.

    Returns:
        Token ids, logits and probabilities (float32), each (…, top_k), best first.
    """
    ids, values = largest(logits, top_k)
    scores = values.astype(mx.float32)
    total = mx.logsumexp(logits.astype(mx.float32), axis=-1, keepdims=True)
    return ids, scores, mx.exp(scores - total)


def watched(
    model: InterpretableModel, batch: Batch, point: str, layers: Sequence[int] | None
) -> dict[int, mx.array]:
    """As `InterpretableModel.watch`, while the device still works on it: not evaluated to the end.

    Raises:
        PointAbsent: if a layer does not have the point.
        InputError: if `layers` is empty.
    """
    wanted = model.layer_indices(layers)
    run = Run(model.layout, watch=[(point, layer) for layer in wanted])
    run.execute(batch.ids)
    found = {layer: run.read((point, layer)) for layer in wanted}
    run.forget()
    start_evaluating(found)
    return found


def read_out(
    model: InterpretableModel,
    residuals: Mapping[int, mx.array],
    tokens: list[str],
    *,
    point: str,
    top_k: int,
    position: int | None,
    final_norm: Norm | None,
    skip_norm: bool,
) -> LensResult:
    """What the model's tail predicts from each layer's residual stream.

    Args:
        model: The model.
        residuals: layer → (1, S, D).
        tokens: The prompt's tokens as text.
        point: Where the residuals come from.
        top_k: Predictions to keep for each position.
        position: One position, or None for all.
        final_norm, skip_norm: See `InterpretableModel.finish_from`.

    Raises:
        InputError: if `top_k` or `position` does not exist, or both norm arguments are given.
        AnalysisError: if the tail gives NaN.
    """
    if final_norm is not None and skip_norm:
        raise InputError("final_norm and skip_norm=True exclude each other: give one of them.")
    positions = chosen_positions(position, len(tokens))
    layers = list(residuals)

    layout = model.layout
    finish = Tail(layout, final_norm=final_norm, skip_norm=skip_norm)
    parts: list[Top] = []
    for _, _, logits in in_parts(residuals, positions, layout.once(vocabulary_of), finish):
        # A head may have got other weights since the vocabulary was asked for.
        vocabulary = logits.shape[-1]
        if not 1 <= top_k <= vocabulary:
            raise InputError(f"top_k is between 1 and {vocabulary}, the vocabulary; got {top_k}.")
        part = top_tokens(logits, top_k)
        del logits
        start_evaluating(part)
        # The device always has a part to work on, and never more than two.
        evaluate(parts[-1:])
        parts.append(part)
    return result_of(model, parts, tokens, layers, positions, point)


def result_of(
    model: InterpretableModel,
    parts: Sequence[Top],
    tokens: list[str],
    layers: list[int],
    positions: list[int],
    point: str,
) -> LensResult:
    """The result of what `top_tokens` found in all of `in_parts`.

    Raises:
        AnalysisError: if the tail gave NaN.
    """
    top_k = parts[0][0].shape[-1]
    # Parts follow one another: all positions of one layer before those of the next.
    each = [
        mx.concatenate([x.reshape(-1, top_k) for x in kind]) for kind in zip(*parts, strict=True)
    ]
    evaluate(each)
    shape = len(layers), len(positions), top_k
    ids, scores, probabilities = (np.array(kind).reshape(shape) for kind in each)
    if np.isnan(probabilities).any():
        _refuse_nan(probabilities, layers, positions)
    named = Names(model)
    predictions = map(named.predictions, ids.tolist(), scores.tolist())
    return LensResult(
        tokens=tokens,
        positions=positions,
        layers=layers,
        predictions=dict(zip(layers, predictions, strict=True)),
        probabilities=dict(zip(layers, probabilities.tolist(), strict=True)),
        point=point,
    )


def vocabulary_of(layout: Layout) -> int:
    """Numbers in a row of the model's logits; nothing is computed to know it."""
    logits: mx.array = Run(layout).execute(mx.zeros((1, 1), dtype=mx.int32))
    return int(logits.shape[-1])


def in_parts(
    residuals: Mapping[int, mx.array],
    positions: Sequence[int],
    vocabulary: int,
    finish: Callable[[mx.array], mx.array],
) -> Iterator[tuple[list[int], slice, mx.array]]:
    """The tail's logits, as many rows at a time as memory allows.

    Args:
        residuals: layer → (1, S, D).
        positions: The positions to read.
        vocabulary: Numbers in a row of logits.
        finish: (B, P, D) → (B, P, V).

    Yields:
        Some layers, which of `positions`, and their logits (layers, positions, V), lazy. All
        positions of some layers come before the next layers.
    """
    index, layers = mx.array(list(positions)), list(residuals)
    width = min(len(positions), rows_at_once(vocabulary))
    group = max(1, rows_at_once(vocabulary) // width)
    for first in range(0, len(layers), group):
        together = layers[first : first + group]
        stacked = mx.concatenate([residuals[layer][:, index] for layer in together])
        for start in range(0, len(positions), width):
            part = slice(start, start + width)
            yield together, part, finish(stacked[:, part])


def chosen_positions(position: int | None, length: int) -> list[int]:
    """One position counted from the front, or all of them.

    Raises:
        InputError: if there is no such position, or it is no integer.
    """
    if position is None:
        return list(range(length))
    position = whole_number(position, "position")
    if not -length <= position < length:
        raise InputError(f"the prompt has {length} tokens; there is no position {position}.")
    return [position % length]


def _refuse_nan(
    probabilities: NDArray[np.float32], layers: Sequence[int], positions: Sequence[int]
) -> None:
    layer, position, _ = np.argwhere(np.isnan(probabilities))[0]
    raise AnalysisError(
        f"the model's tail gives NaN for layer {layers[layer]} at position "
        f"{positions[position]}: the residual stream or the norm holds NaN or infinity."
    )


class Names:
    """Texts of tokens, each decoded once."""

    def __init__(self, model: InterpretableModel) -> None:
        self._model = model
        self._texts: dict[int, str] = {}

    def predictions(
        self, ids: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
    ) -> list[list[Prediction]]:
        """Token ids, logits and texts of the best tokens, for each position."""
        texts = self._texts
        new = list(set(chain.from_iterable(ids)).difference(texts))
        texts.update(zip(new, token_texts(self._model, new), strict=True))
        text = texts.__getitem__
        return [
            list(zip(own, values, map(text, own), strict=True))
            for own, values in zip(ids, scores, strict=True)
        ]
