"""What a feature writes, as a steering vector."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    Crosscoder,
    CrossLayerTranscoder,
    Dictionary,
    ReLU,
    Standardize,
    TranscoderLayer,
    feature_vector,
)
from mlxray.analyses.steering import SteeringVector
from mlxray.errors import InputError

D, F = 32, 12
AT = "layers.1.resid_post"
TEXTS = ["look", "inside models"]


def draw(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def dictionary(**more: Any) -> Dictionary:
    parts: dict[str, Any] = {
        "encoder": draw(D, F, seed=1),
        "encoder_bias": draw(F, seed=2),
        "decoder": draw(F, D, seed=3),
        "decoder_bias": draw(D, seed=4),
        "activation": ReLU(),
        "reads": AT,
    }
    return Dictionary(**{**parts, **more})


@pytest.fixture(scope="module")
def model(make: Any) -> Any:
    return make("llama")


def test_strength_counts_in_mean_norms(model: Any) -> None:
    made = dictionary()
    vector = feature_vector(model, made, 7, TEXTS)
    streams = [model.watch(text, "resid_post", [1])[1][0, 1:] for text in TEXTS]
    norm = np.linalg.norm(np.concatenate([np.array(s) for s in streams]), axis=1).mean()
    assert vector.norms[AT] == pytest.approx(norm, rel=1e-5)
    row = made.decoder[7]
    step = 0.5 * norm * row / mx.linalg.norm(row)
    steered = model.run_with_hooks(TEXTS[0], vector.at(0.5))
    assert mx.allclose(steered, model.run_with_hooks(TEXTS[0], {AT: lambda x: x + step}), atol=1e-3)


def test_unscaled_it_is_the_edit_of_the_feature(model: Any) -> None:
    made = dictionary(normalization=Standardize(draw(D), 1 + draw(D, seed=5) ** 2))
    vector = feature_vector(model, made, 7, TEXTS)
    steered = model.run_with_hooks(TEXTS[0], vector.at(2, norm_scaled=False))
    with model.attached(made):
        edited = model.run_with_hooks(TEXTS[0], {("feature", 1, 7): lambda f: f + 2})
    assert mx.allclose(steered, edited, rtol=1e-3, atol=1e-3)


def test_a_cross_layer_transcoder_has_a_vector_for_each_layer_that_it_writes(model: Any) -> None:
    layers = tuple(
        TranscoderLayer(
            encoder=draw(F, D, seed=n),
            encoder_bias=mx.zeros(F),
            decoder=draw(F, 3 - n, D, seed=10 + n),
            decoder_bias=mx.zeros(D),
        )
        for n in range(3)
    )
    made = CrossLayerTranscoder(
        layers=layers,
        reads=tuple(f"layers.{n}.mlp.input" for n in range(3)),
        writes=tuple(f"layers.{n}.mlp_out" for n in range(3)),
    )
    vector = feature_vector(model, made, 3, TEXTS, layer=1)
    assert vector.layers == [1, 2]
    assert mx.array_equal(vector.vectors["layers.2.mlp_out"], layers[1].decoder[3, 1])
    for layer in (None, 5):
        with pytest.raises(InputError, match=r"one of the transcoder's layers, \[0, 1, 2\]"):
            feature_vector(model, made, 3, TEXTS, layer=layer)


def test_a_crosscoder_steers_at_all_its_points(model: Any) -> None:
    points = ("layers.0.resid_post", "layers.2.resid_post")
    made = Crosscoder(
        encoder=draw(2, D, F, seed=1),
        encoder_bias=mx.zeros(F),
        decoder=draw(F, 2, D, seed=3),
        decoder_bias=mx.zeros((2, D)),
        activation=ReLU(),
        points=points,
    )
    vector = feature_vector(model, made, 3, TEXTS)
    assert list(vector.vectors) == list(points)
    assert mx.array_equal(vector.vectors[points[1]], made.decoder[3, 1])


def test_a_point_with_heads(model: Any) -> None:
    made = dictionary(reads="layers.1.z")
    vector = feature_vector(model, made, 3, TEXTS)
    assert vector.vectors["layers.1.z"].shape == (4, 8)
    steered = model.run_with_hooks(TEXTS[0], vector.at(1, norm_scaled=False))
    row = {"layers.1.self_attn.o_proj.input": lambda x: x + made.decoder[3]}
    assert mx.allclose(steered, model.run_with_hooks(TEXTS[0], row), rtol=1e-3, atol=1e-3)


def test_a_vector_of_feature_values(model: Any, tmp_path: Any) -> None:
    """Points that are attached have steering vectors of their own, of one feature too."""
    made = dictionary()
    with model.attached(made):
        vector = SteeringVector(
            {f"{AT}.features.7": mx.array(1.0), f"{AT}.features": mx.arange(F) + 1.0},
            {f"{AT}.features.7": 1.0, f"{AT}.features": 1.0},
            method="by hand",
            position="mean",
            model=model.name,
            n_layers=3,
        )
        again = SteeringVector.load(vector.save(tmp_path / "v.safetensors"), model)
        steered = model.run_with_hooks(TEXTS[0], again.at(0.1, norm_scaled=False))
    change = 0.1 * ((mx.arange(F) + 1.0) @ made.decoder + made.decoder[7])
    expected = model.run_with_hooks(TEXTS[0], {AT: lambda x: x + change})
    assert mx.allclose(steered, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("feature", "message"), [(-1, "between 0 and 11"), (F, "between 0 and 11"), (1.5, "feature")]
)
def test_features_that_are_not_there(model: Any, feature: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        feature_vector(model, dictionary(), feature, TEXTS)


def test_what_cannot_be_steered_with(model: Any) -> None:
    with pytest.raises(InputError, match="is no dictionary"):
        feature_vector(model, object(), 1, TEXTS)
    with pytest.raises(InputError, match="where in the model it stands"):
        feature_vector(model, dictionary(reads=None), 1, TEXTS)
    with pytest.raises(InputError, match="layer is for a cross-layer transcoder"):
        feature_vector(model, dictionary(), 1, TEXTS, layer=1)
    small = dictionary(encoder=draw(8, F), decoder=draw(F, 8), decoder_bias=draw(8))
    with pytest.raises(InputError, match="writes width 8, and"):
        feature_vector(model, small, 1, TEXTS)
