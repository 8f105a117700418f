"""What a token is in a layer's stream: the direction along which the lens reads more of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.errors import AnalysisError, InputError

from ...datasets.targets import Token, token_id
from .jacobian_lens_result import JacobianLens

#: A token, several that mean one thing, or a direction (D,) in the last layer's stream.
Concept = Token | Sequence[Token] | mx.array

#: Streams at which the tail's gradient is taken.
_MOST = 256

#: The part of the depth in which the paper finds concepts that can be reported.
BAND = (0.38, 0.92)


def unembedding(model: InterpretableModel, token: int) -> mx.array:
    """The direction (D,) of the last layer's stream that raises a token's logit, float32.

    It is the gradient of the logit through the model's own tail, final norm included, averaged
    over streams along one axis each, in which nothing stands out. For a linear head behind a norm
    that is the token's row of the head, times the norm's weight.
    """
    some = model.watch([0], "resid_post", [0])[0]
    width = some.shape[-1]
    axes = mx.arange(0, width, max(1, width // _MOST))[:_MOST]
    streams = math.sqrt(width) * (axes[:, None] == mx.arange(width))[None].astype(mx.float32)

    def logit(streams: mx.array) -> mx.array:
        return model.finish_from(streams)[..., token].astype(mx.float32).sum()

    gradient: mx.array = mx.grad(logit)(streams.astype(some.dtype))
    mean = gradient.astype(mx.float32).mean(axis=(0, 1))
    evaluate(mean)
    return mean


def direction(
    model: InterpretableModel, lens: JacobianLens, concept: Concept, layer: int
) -> mx.array:
    """The unit vector (D,) of a concept in a layer's stream, float32.

    Args:
        model: The model.
        lens: A lens that fits it.
        concept: A token, tokens (the mean of their directions), or a direction (D,) of the last
            layer's stream.
        layer: The layer.

    Raises:
        InputError: if a token does not exist, there is none, or a direction has another width.
        AnalysisError: if the lens maps nothing to it.
    """
    jacobian = None if layer == model.layout.n_layers - 1 else lens.jacobian(layer)
    units = []
    for target in _targets(model, lens, concept):
        back = target if jacobian is None else target @ jacobian
        units.append(back / mx.linalg.norm(back))
    mean = mx.stack(units).mean(axis=0)
    unit = mean / mx.linalg.norm(mean)
    if not math.isfinite(number(unit.sum())):
        raise AnalysisError(f"layer {layer} has no direction for {concept!r:.80}: it is zero.")
    return unit


def _targets(model: InterpretableModel, lens: JacobianLens, concept: Concept) -> list[mx.array]:
    if isinstance(concept, mx.array):
        if tuple(concept.shape) != (lens.d_model,):
            raise InputError(
                f"a direction of the last layer's stream has shape ({lens.d_model},); "
                f"got {tuple(concept.shape)}."
            )
        return [concept.astype(mx.float32)]
    tokens = [concept] if isinstance(concept, (int, str)) else list(concept)
    if not tokens:
        raise InputError("a concept is a token or several; the list is empty.")
    return [unembedding(model, token_id(model, token)) for token in tokens]


def edited_layers(
    model: InterpretableModel, lens: JacobianLens, layers: int | Sequence[int] | None
) -> list[int]:
    """Layers to edit, ascending; None for the lens' own in the middle of the model (see `BAND`).

    Raises:
        AddressError: if a layer does not exist, or the lens was not fitted there.
    """
    if layers is None:
        depth = max(1, model.layout.n_layers - 1)
        inside = [n for n in lens.source_layers if BAND[0] <= n / depth <= BAND[1]]
        return inside or lens.source_layers
    chosen = sorted(model.layer_indices([layers] if isinstance(layers, int) else layers))
    for layer in chosen:
        if layer != model.layout.n_layers - 1:
            lens.jacobian(layer)
    return chosen
