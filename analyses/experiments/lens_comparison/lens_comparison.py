"""The logit lens on the residual stream and on what attention and MLPs add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import AnalysisError, InputError, PointAbsent, nearest
from mlxray.points.vocabulary import ALIASES
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.tokens import Batch

from ...datasets.targets import Token, token_id
from ...lenses.logit_lens import READABLE
from ...lenses.readout import chosen_positions
from ...prompts import one_prompt, token_texts
from .reading import read_point
from .result import LensComparisonResult

#: What the sub-layers of a block add to the stream.
PARTS = ("attn_add", "mixer_add", "mlp_add")


@analysis(result=LensComparisonResult)
def lens_comparison(
    model: InterpretableModel,
    text: Any,
    *,
    points: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    position: int | None = None,
    answer: Token | None = None,
    top_k: int = 5,
    verbose: bool = False,
) -> LensComparisonResult:
    """What the residual stream, attention and MLPs each say about the next token, by layer.

    Every activation goes through the model's own tail: final norm, head, cap and scale, as in
    `logit_lens` (nostalgebraist 2020). For the residual stream that is what the model would
    predict if it stopped there. For one sub-layer's output it is what the model would predict if
    its stream held this output *alone*: the norm makes it as large as any stream, so only its
    direction counts, and a sub-layer that adds next to nothing may read as a confident answer.
    How much each part adds to a logit is `direct_logit_attribution`'s question.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        points: What to read: ``"resid_post"``, what reaches the stream from a sub-layer
            (``"attn_add"``, ``"mixer_add"``, ``"mlp_add"``), or any other point as wide as the
            stream. If left out, those of these four that the model has.
        layers: Layers to read, None for all; a point is read in those that have it.
        position: One position, negative from the end; None for all.
        answer: Token id or text whose probability and rank are told; the model's own most likely
            token at each position if left out.
        top_k: Predictions to keep for each layer and position.
        verbose: Show progress.

    Returns:
        A mapping from point to `Reading`: predictions, probability and rank of the answer,
        entropy, and KL(model's own distribution ‖ the one read).

    Raises:
        InputError: for several prompts, no point, an unknown point or position, an answer of
            several tokens, or a `top_k` out of range.
        PointAbsent: if no layer has a point, or the model's tail reads more than one stream.
        AnalysisError: if the model or its tail gives NaN.
    """
    batch, tokens = one_prompt(model, text)
    positions = chosen_positions(position, len(tokens))
    where = _places(model, points, layers)
    answered = None if answer is None else token_id(model, answer)
    own, residuals = _run(model, batch, where, positions)
    if not 1 <= top_k <= own.shape[-1]:
        raise InputError(f"top_k is between 1 and {own.shape[-1]}, the vocabulary; got {top_k}.")
    best: Any = mx.argmax(own, axis=-1).tolist()
    answers = best if answered is None else [answered] * len(positions)
    readings = {}
    for name in tqdm(where, desc="reading", unit="point", disable=not verbose):
        readings[name] = read_point(
            model, residuals[name], tokens, positions, own, answers, point=name, top_k=top_k
        )
    return LensComparisonResult(tokens, positions, answers, token_texts(model, answers), readings)


def _run(
    model: InterpretableModel,
    batch: Batch,
    where: Mapping[str, Sequence[int]],
    positions: Sequence[int],
) -> tuple[mx.array, dict[str, dict[int, mx.array]]]:
    """The model's logits (P, V) in float32, and point → layer → (1, P, D), at the positions only.

    Raises:
        AnalysisError: if the logits hold NaN.
    """
    run = Run(model.layout, watch=[(name, n) for name, having in where.items() for n in having])
    logits = execute_at(run, batch.ids, positions)[0].astype(mx.float32)
    index = mx.array(list(positions))
    kept = {
        name: {layer: run.read((name, layer))[:, index] for layer in having}
        for name, having in where.items()
    }
    run.forget()
    mx.eval(logits, kept)
    if bool(mx.any(mx.isnan(logits)).item()):
        raise AnalysisError("the model's own logits hold NaN: there is nothing to compare with.")
    return logits, kept


def _places(
    model: InterpretableModel, points: Sequence[str] | None, layers: Sequence[int] | None
) -> dict[str, list[int]]:
    """Which of the wanted layers have which point: point → layers.

    Raises:
        InputError: if there is no point, or one that a lens cannot read.
        PointAbsent: if no layer has a point that was asked for.
    """
    wanted = model.layer_indices(layers)
    asked = ["resid_post"] if points is None else _names(points)
    found = {}
    for point in asked if points is not None else (*asked, *PARTS):
        statuses = [s for s in model.points() if s.point == point and s.layer in wanted]
        having = {s.layer for s in statuses if s.available}
        if having:
            found[point] = [layer for layer in wanted if layer in having]
        elif point in asked:
            raise PointAbsent(point, statuses[0].detail)
    return found


def _names(points: Sequence[str]) -> list[str]:
    given = [points] if isinstance(points, str) else list(points)
    if not given:
        raise InputError("the list of points is empty; leave it out for the usual ones.")
    for point in given:
        if ALIASES.get(point, point) not in READABLE:
            raise InputError(
                f"a lens reads what is as wide as the residual stream, and {point!r} is not. "
                f"{nearest(str(point), READABLE)}"
            )
    return list(dict.fromkeys(ALIASES.get(point, point) for point in given))


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The comparison of lenses."""
    return [lens_comparison]
