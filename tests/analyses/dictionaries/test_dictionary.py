"""Dictionaries against formulas written out in numpy; shapes that do not fit are named."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxray.analyses.dictionaries import (
    AbsTopK,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    Dictionary,
    Gated,
    JumpReLU,
    LayerNorm,
    ReLU,
    Scale,
    Standardize,
    TokenNorm,
    TopK,
    TranscoderLayer,
)
from mlxray.errors import InputError

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)
D, F, N = 6, 12, 5


def array(*shape: int) -> mx.array:
    return mx.array(RNG.normal(size=shape).astype(np.float32))


def dictionary(activation: Any, **more: Any) -> Dictionary:
    return Dictionary(
        encoder=more.pop("encoder", array(D, F)),
        encoder_bias=array(F),
        decoder=more.pop("decoder", array(F, D)),
        decoder_bias=more.pop("decoder_bias", array(D)),
        activation=activation,
        **more,
    )


def numpy_features(activation: Any, pre: Floats) -> Floats:
    """One token at a time, by the definition of each kind."""
    out = np.zeros_like(pre)
    for row, found in zip(pre, out, strict=True):
        for i, z in enumerate(row):
            match activation:
                case ReLU():
                    found[i] = max(z, 0)
                case JumpReLU():
                    found[i] = z if z > float(activation.threshold[i].item()) and z > 0 else 0
                case BatchTopK():
                    found[i] = z if z > max(activation.threshold, 0) else 0
                case TopK():
                    found[i] = max(z, 0) if (row > z).sum() < activation.k else 0
                case AbsTopK():
                    found[i] = z if (abs(row) > abs(z)).sum() < activation.k else 0
                case Gated():
                    gate, bias, r = (
                        float(getattr(activation, name)[i].item())
                        for name in ("gate_bias", "magnitude_bias", "log_magnitude")
                    )
                    found[i] = max(z * np.exp(r) + bias, 0) if z + gate > 0 else 0
    return out


KINDS = [
    ReLU(),
    JumpReLU(mx.abs(array(F))),
    TopK(3),
    TopK(F),
    AbsTopK(4),
    BatchTopK(3, 0.7),
    Gated(array(F), array(F), array(F)),
]


@pytest.mark.parametrize("activation", KINDS, ids=lambda a: a.kind)
@pytest.mark.parametrize("subtract", [False, True])
def test_features_and_output_are_the_formula(activation: Any, subtract: bool) -> None:
    d = dictionary(activation, subtract_decoder_bias=subtract, skip=array(D, D))
    x = np.array(array(N, D), np.float64)
    weights = {
        n: np.array(getattr(d, n), np.float64)
        for n in ("encoder", "encoder_bias", "decoder", "decoder_bias", "skip")
    }
    read = x - weights["decoder_bias"] if subtract else x
    features = numpy_features(activation, read @ weights["encoder"] + weights["encoder_bias"])
    output = features @ weights["decoder"] + weights["decoder_bias"] + x @ weights["skip"].T
    assert np.allclose(np.array(d.encode(mx.array(x.astype(np.float32)))), features, atol=1e-4)
    assert np.allclose(np.array(d(mx.array(x.astype(np.float32)))), output, atol=1e-4)


@pytest.mark.parametrize("activation", [TopK(3), AbsTopK(4)], ids=lambda a: a.kind)
def test_sparse_is_dense(activation: Any) -> None:
    d = dictionary(activation)
    x = array(2, N, D)
    values, indices = d.encode_sparse(x)
    assert values.shape == indices.shape == (2, N, activation.k)
    dense = np.zeros((2, N, F))
    np.put_along_axis(dense, np.array(indices).astype(int), np.array(values), -1)
    assert np.array_equal(dense, np.array(d.encode(x)))
    assert mx.allclose(d.decode_sparse(values, indices), d(x), atol=1e-5)


@given(st.integers(1, F), st.lists(st.floats(-4, 4, width=32), min_size=F, max_size=F))
@settings(max_examples=50, deadline=None)
def test_top_k_keeps_k_and_what_is_kept_is_unchanged(k: int, row: list[float]) -> None:
    pre = mx.array([row])
    kept = np.array(AbsTopK(k)(pre))[0]
    assert ((kept == 0) | (kept == np.array(pre)[0])).all() and (kept != 0).sum() <= k
    positive = np.array(TopK(k)(pre))[0]
    assert (positive >= 0).all() and (positive != 0).sum() <= k
    assert sum(sorted(positive)) == pytest.approx(sum(sorted(np.maximum(row, 0))[-k:]), abs=1e-4)


@pytest.mark.parametrize(
    ("normalization", "there", "back"),
    [
        (Scale(2.0), lambda x: 2 * x, lambda y, x: y / 2),
        (Scale(2.0, 4.0), lambda x: 2 * x, lambda y, x: y / 4),
        (
            TokenNorm(),
            lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True) * D**0.5,
            lambda y, x: y * np.linalg.norm(x, axis=-1, keepdims=True) / D**0.5,
        ),
        (
            LayerNorm(),
            lambda x: (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-5),
            lambda y, x: y * x.std(-1, ddof=1, keepdims=True) + x.mean(-1, keepdims=True),
        ),
        (
            Standardize(mx.full((D,), 3.0), mx.full((D,), 2.0)),
            lambda x: (x - 3) / 2,
            lambda y, x: 2 * y + 3,
        ),
    ],
    ids=["scale", "two scales", "token norm", "layer norm", "standardize"],
)
def test_normalization(normalization: Any, there: Any, back: Any) -> None:
    d = dictionary(ReLU(), normalization=normalization)
    plain = Dictionary(
        encoder=d.encoder,
        encoder_bias=d.encoder_bias,
        decoder=d.decoder,
        decoder_bias=d.decoder_bias,
        activation=ReLU(),
    )
    x = array(N, D) + 1.0
    within = plain(mx.array(there(np.array(x)).astype(np.float32)))
    assert np.allclose(np.array(d(x)), back(np.array(within), np.array(x)), atol=1e-4)
    if normalization.per_token:
        with pytest.raises(InputError, match=r"decode\(features, x\)"):
            d.decode(d.encode(x))
    else:
        assert mx.array_equal(d.decode(d.encode(x)), d(x))


def test_half_precision_weights_compare_with_thresholds_in_float32() -> None:
    threshold = mx.array([1.0001, 0.9999])
    d = Dictionary(
        encoder=mx.eye(2).astype(mx.bfloat16),
        encoder_bias=mx.zeros(2, mx.bfloat16),
        decoder=mx.eye(2).astype(mx.bfloat16),
        decoder_bias=mx.zeros(2, mx.bfloat16),
        activation=JumpReLU(threshold),
    )
    features = d.encode(mx.array([1.0, 1.0]))
    assert features.tolist() == [0.0, 1.0] and features.dtype == mx.bfloat16
    assert JumpReLU(threshold.astype(mx.bfloat16)).threshold.dtype == mx.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": array(D)}, r"encoder has 2 axes; got shape \(6,\)"),
        (
            {"encoder_bias": array(D)},
            r"encoder_bias has shape \(6,\); expected \(12,\), because encoder has shape \(6, 12\)",
        ),
        ({"decoder": array(D, F)}, r"decoder has shape \(6, 12\); expected \(12, 12\)"),
        ({"decoder_bias": array(F)}, r"decoder_bias has shape \(12,\); expected \(6,\)"),
        ({"skip": array(D, F)}, r"skip has shape \(6, 12\); expected \(6, 6\)"),
        ({"activation": JumpReLU(array(D))}, r"threshold has shape \(6,\); expected \(12,\)"),
        ({"activation": TopK(13)}, "k=13, but the dictionary has 12 features"),
        ({"normalization": Standardize(array(F), array(F))}, r"mean has shape \(12,\)"),
        ({"encoder_bias": mx.zeros(F, mx.int32)}, "encoder_bias holds floating-point numbers"),
        ({"encoder_bias": np.zeros(F)}, "encoder_bias is an mx.array; got ndarray"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    parts = {
        "encoder": array(D, F),
        "encoder_bias": array(F),
        "decoder": array(F, D),
        "decoder_bias": array(D),
        "activation": ReLU(),
    }
    with pytest.raises(InputError, match=message):
        Dictionary(**(parts | change))


@pytest.mark.parametrize("kind", [TopK, AbsTopK])
def test_k_is_at_least_one(kind: Any) -> None:
    with pytest.raises(InputError, match="k is an integer, at least 1; got 0"):
        kind(0)


def test_data_of_another_width_is_refused() -> None:
    d = dictionary(ReLU())
    with pytest.raises(InputError, match="last axis must be 6"):
        d.encode(array(N, F))
    with pytest.raises(InputError, match="use encode"):
        d.encode_sparse(array(N, D))


def test_cross_layer_transcoder_is_a_double_loop() -> None:
    layers = tuple(
        TranscoderLayer(
            encoder=array(F, D),
            encoder_bias=array(F),
            decoder=array(F, 3 - number, D),
            decoder_bias=array(D),
            threshold=None if number else mx.abs(array(F)),
        )
        for number in range(3)
    )
    clt = CrossLayerTranscoder(layers=layers)
    inputs = [array(N, D) for _ in range(3)]
    wanted = [np.tile(np.array(layer.decoder_bias, np.float64), (N, 1)) for layer in layers]
    for at, layer in enumerate(layers):
        pre = np.array(inputs[at]) @ np.array(layer.encoder).T + np.array(layer.encoder_bias)
        floor = 0 if layer.threshold is None else np.array(layer.threshold)
        features = pre * (pre > floor)
        for to in range(at, 3):
            wanted[to] += features @ np.array(layer.decoder)[:, to - at]
    for found, own in zip(clt(inputs), wanted, strict=True):
        assert np.allclose(np.array(found), own, atol=1e-4)
    with pytest.raises(InputError, match="got 2, but the transcoder has 3 layers"):
        clt(inputs[:2])
    with pytest.raises(InputError, match=r"layer 1: decoder has shape \(12, 3, 6\)"):
        CrossLayerTranscoder(layers=(layers[0], layers[0], layers[0]))


def test_a_crosscoder_is_a_dictionary_of_joined_points() -> None:
    coder = Crosscoder(
        encoder=array(2, D, F),
        encoder_bias=array(F),
        decoder=array(F, 2, D),
        decoder_bias=array(2, D),
        activation=TopK(3),
    )
    joined = Dictionary(
        encoder=coder.encoder.reshape(2 * D, F),
        encoder_bias=coder.encoder_bias,
        decoder=coder.decoder.reshape(F, 2 * D),
        decoder_bias=coder.decoder_bias.reshape(-1),
        activation=TopK(3),
    )
    inputs = [array(N, D), array(N, D)]
    output = joined(mx.concatenate(inputs, axis=-1))
    assert mx.allclose(mx.concatenate(coder(inputs), axis=-1), output, atol=1e-4)
    with pytest.raises(InputError, match="got 1, but the crosscoder has 2 points"):
        coder.encode(inputs[:1])
