"""Reading residual streams out through the model's own tail, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, nested, on_gpu, start_evaluating
from mlxray.checks.arguments import whole_number
from mlxray.errors import AnalysisError, InputError
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

#: Ids, logits and probabilities of a position's best tokens.
TopRow = tuple[list[int], list[float], list[float]]


def rows_at_once(vocabulary: int) -> int:
    """How many rows of logits may exist at one time."""
    many = LOGITS_AT_ONCE * (TIMES_ON_GPU if on_gpu() else 1)
    return max(1, many // vocabulary)


def top_tokens(logits: mx.array, top_k: int) -> tuple[mx.array, mx.array, mx.array]:
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

    finish = Tail(model.layout, final_norm=final_norm, skip_norm=skip_norm)
    vocabulary = finish(residuals[layers[0]][:, :1]).shape[-1]
    if not 1 <= top_k <= vocabulary:
        raise InputError(f"top_k is between 1 and {vocabulary}, the vocabulary; got {top_k}.")
    parts: list[tuple[mx.array, mx.array, mx.array]] = []
    for _, _, logits in in_parts(residuals, positions, vocabulary, finish):
        part = top_tokens(logits, top_k)
        del logits
        start_evaluating(part)
        # The device always has a part to work on, and never more than two.
        evaluate(parts[-1:])
        parts.append(part)
    # Parts follow one another: all positions of one layer before those of the next.
    each = [
        mx.concatenate([x.reshape(-1, top_k) for x in kind]) for kind in zip(*parts, strict=True)
    ]
    evaluate(each)
    ids, scores, chances = map(nested, each)
    rows = list(zip(ids, scores, chances, strict=True))
    count = len(positions)
    found: dict[int, list[TopRow]] = {
        layer: rows[i * count : (i + 1) * count] for i, layer in enumerate(layers)
    }
    check_numbers(found, positions)
    named = Names(model)
    return LensResult(
        tokens=tokens,
        positions=positions,
        layers=layers,
        predictions={layer: named.predictions(found[layer]) for layer in layers},
        probabilities={layer: [row[2] for row in found[layer]] for layer in layers},
        point=point,
    )


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


def check_numbers(found: Mapping[int, Sequence[TopRow]], positions: Sequence[int]) -> None:
    """Refuse NaN.

    Raises:
        AnalysisError: if a probability is not a number.
    """
    for layer, rows in found.items():
        if not math.isnan(sum(sum(chances) for _, _, chances in rows)):
            continue
        for position, (_, _, chances) in zip(positions, rows, strict=True):
            if any(map(math.isnan, chances)):
                raise AnalysisError(
                    f"the model's tail gives NaN for layer {layer} at position {position}: "
                    "the residual stream or the norm holds NaN or infinity."
                )


class Names:
    """Texts of tokens, each decoded once."""

    def __init__(self, model: InterpretableModel) -> None:
        self._model = model
        self._texts: dict[int, str] = {}

    def predictions(self, rows: Sequence[TopRow]) -> list[list[Prediction]]:
        """Token ids, logits and texts of the best tokens, for each position."""
        texts = self._texts
        new = list({token for ids, _, _ in rows for token in ids}.difference(texts))
        texts.update(zip(new, token_texts(self._model, new), strict=True))
        return [
            [(i, s, texts[i]) for i, s in zip(ids, scores, strict=True)] for ids, scores, _ in rows
        ]
