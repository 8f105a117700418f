"""From trained parameters to a dictionary in the units of the activations."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlxray.arrays import arrays_of, evaluate

from ..types.activations import BatchTopK, JumpReLU
from ..types.cross_layer import CrossLayerTranscoder, TranscoderLayer
from ..types.crosscoder import Crosscoder
from ..types.dictionary import Dictionary
from .kinds import Kind
from .plan import Plan
from .step import State
from .wiring import CrossLayer, Flat, Params, Wiring

Trained = Dictionary | CrossLayerTranscoder | Crosscoder


def finish(
    plan: Plan,
    kind: Kind,
    wiring: Wiring,
    state: State,
    scales: tuple[mx.array, mx.array],
    metadata: dict[str, Any],
) -> Trained:
    """The dictionary, with the scales of training folded into its weights.

    Features are in units of what is written: rows of the decoder keep norm 1 where there is one
    scale.

    Args:
        plan: Of the training.
        kind: Of the dictionary.
        wiring: Of the dictionary.
        state: Of the training.
        scales: (d_in,) and (d_out,): what inputs and outputs were multiplied by.
        metadata: What to note in it.
    """
    if kind.decoder_norm != 1:
        state = {**state, "parameters": with_unit_rows(state["parameters"], wiring)}
    params = state["parameters"]
    reads, writes = scales
    unit = float(np.array(writes).mean())
    if isinstance(wiring, CrossLayer):
        return _cross_layer(plan, kind, wiring, state, scales, unit, metadata)
    assert isinstance(wiring, Flat)
    encoder = params["encoder"] * (reads / unit)[:, None]
    bias = params.get("encoder_bias", mx.zeros(wiring.n_features)) / unit
    decoder = params["decoder"] * (unit / writes)
    decoder_bias = params["decoder_bias"] / writes
    activation = kind.activation(params, state["tracked"], unit)
    if len(plan.reads) > 1:
        n, width = len(plan.reads), wiring.d_in // len(plan.reads)
        made: Trained = Crosscoder(
            encoder=encoder.reshape(n, width, -1),
            encoder_bias=bias,
            decoder=decoder.reshape(-1, n, width),
            decoder_bias=decoder_bias.reshape(n, width),
            activation=activation,
            points=plan.reads,
            metadata=metadata,
        )
    else:
        made = Dictionary(
            encoder=encoder,
            encoder_bias=bias,
            decoder=decoder,
            decoder_bias=decoder_bias,
            activation=activation,
            skip=params["skip"] * reads / writes[:, None] if wiring.skip else None,
            subtract_decoder_bias=wiring.centred,
            reads=plan.reads[0],
            writes=plan.writes[0],
            metadata=metadata,
        )
    evaluate(arrays_of(made))
    return made


def with_unit_rows(params: Params, wiring: Wiring) -> Params:
    """The same dictionary with decoder rows of norm 1: what is before them is scaled instead."""
    norms = [mx.maximum(mx.linalg.norm(params[n], axis=-1), 1e-12) for n in wiring.decoders]
    units = {
        name: params[name] / size[:, None]
        for name, size in zip(wiring.decoders, norms, strict=True)
    }
    sizes = mx.concatenate(norms)
    by_feature = {name: params[name] * sizes for name in ("encoder_bias", "threshold")}
    encoder = params["encoder"]
    # (d, F), or (layers, d, F) with the features of each layer.
    layered = sizes if encoder.ndim == 2 else sizes.reshape(encoder.shape[0], 1, -1)
    return {**params, **units, **by_feature, "encoder": encoder * layered}


def _cross_layer(
    plan: Plan,
    kind: Kind,
    wiring: CrossLayer,
    state: State,
    scales: tuple[mx.array, mx.array],
    unit: float,
    metadata: dict[str, Any],
) -> CrossLayerTranscoder:
    params = state["parameters"]
    reads, writes = (scale.reshape(wiring.layers, wiring.width) for scale in scales)
    biases = (params["encoder_bias"] / unit).reshape(wiring.layers, wiring.per_layer)
    activation = kind.activation(params, state["tracked"], unit)
    thresholds: mx.array | None = None
    if isinstance(activation, JumpReLU):
        thresholds = activation.threshold.reshape(wiring.layers, wiring.per_layer)
    elif isinstance(activation, BatchTopK):
        thresholds = mx.full((wiring.layers, wiring.per_layer), activation.threshold)
    layers = []
    for number in range(wiring.layers):
        decoder = params[f"decoder.{number}"].reshape(wiring.per_layer, -1, wiring.width)
        encoder = params["encoder"][number].T
        layer = TranscoderLayer(
            encoder=encoder * (reads[number] / unit),
            encoder_bias=biases[number],
            decoder=decoder * (unit / writes[number:]),
            decoder_bias=params["decoder_bias"].reshape(wiring.layers, -1)[number] / writes[number],
            threshold=None if thresholds is None else thresholds[number],
        )
        evaluate(arrays_of(layer))
        layers.append(layer)
    return CrossLayerTranscoder(
        layers=tuple(layers),
        reads=plan.reads,
        writes=plan.writes,
        metadata=metadata,
    )
