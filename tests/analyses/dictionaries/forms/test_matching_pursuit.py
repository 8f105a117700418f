"""Matching pursuit against its definition, one token and one step at a time, in float64."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.dictionaries import (
    DictionaryForm,
    LayerNorm,
    MatchingPursuit,
    Scale,
    TokenNorm,
    feature_vector,
    load_dictionary,
    save_dictionary,
)
from mlxray.errors import InputError, LoadError

from .. import layouts
from ..layouts import D, F, inputs, unit_rows

TEXTS = ["The capital of France is", "The capital of Italy is Rome."]


def pursue(
    x: Any, w: layouts.Arrays, *, threshold: float = 1e-2, steps: int = D, repeat: bool = True
) -> Any:
    """Features of tokens (N, D), from the definition."""
    rows = np.asarray(w["W_dec"], np.float64)
    found = np.zeros((len(x), len(rows)))
    for token, features in zip(np.asarray(x, np.float64) - w["b_dec"], found, strict=True):
        residual = token.copy()
        for _ in range(steps):
            products = rows @ residual
            best = int(np.argmax(products))
            before = features != 0
            value = max(products[best], 0)
            features[best] += value
            residual -= value * rows[best]
            if repeat and ((features != 0) == before).all():
                break
            if threshold > 0 and np.linalg.norm(residual) < threshold:
                break
    return found


def made(**more: Any) -> MatchingPursuit:
    w = {name: mx.array(array) for name, array in unit_rows().items()}
    return MatchingPursuit(decoder=w["W_dec"], decoder_bias=w["b_dec"], **more)


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("threshold", [0, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("steps", [1, 3, D, 40])
def test_the_definition(steps: int, threshold: float, repeat: bool) -> None:
    w, x = unit_rows(), inputs()
    dictionary = made(max_iterations=steps, residual_threshold=threshold, stop_on_repeat=repeat)
    wanted = pursue(x, w, threshold=threshold, steps=steps, repeat=repeat)
    found = dictionary.encode(mx.array(x))
    assert np.allclose(np.array(found), wanted, atol=1e-5)
    output = wanted @ w["W_dec"] + w["b_dec"]
    assert np.allclose(np.array(dictionary.decode(found)), output, atol=1e-5)
    assert np.allclose(np.array(dictionary(mx.array(x))), output, atol=1e-5)


def test_the_settings_matter() -> None:
    """Otherwise the comparison above would prove little."""
    x, w = inputs(), unit_rows()
    kinds = [pursue(x, w, **k) for k in ({}, {"threshold": 1.0}, {"repeat": False}, {"steps": 2})]
    assert all(not np.allclose(a, b) for i, a in enumerate(kinds) for b in kinds[:i])
    taken = [(row != 0).sum() for row in kinds[0]]
    assert len(set(taken)) > 1  # tokens are done after different numbers of steps


def test_shapes_dtypes_and_the_steps() -> None:
    dictionary, x = made(), mx.array(inputs())
    assert isinstance(dictionary, DictionaryForm)
    assert (dictionary.d_in, dictionary.d_out, dictionary.n_features) == (D, D, F)
    many = mx.stack([x, x[::-1]])
    found = dictionary.encode(many)
    assert found.shape == (2, 7, F) and mx.allclose(found[0], dictionary.encode(x), atol=1e-5)
    assert dictionary.encode(x[0]).shape == (F,)
    values, indices = dictionary.encode_sparse(x)
    assert values.shape == indices.shape == (7, values.shape[1])
    sparse = dictionary.decode_sparse(values, indices)
    assert mx.allclose(sparse, dictionary.decode(dictionary.encode(x)), atol=1e-5)
    half = dataclasses.replace(
        dictionary,
        decoder=dictionary.decoder.astype(mx.bfloat16),
        decoder_bias=dictionary.decoder_bias.astype(mx.bfloat16),
    )
    assert half.encode(x).dtype == half(x).dtype == mx.bfloat16


def test_nothing_to_find() -> None:
    """A token that no row points along has no features, and its output is the bias."""
    dictionary = MatchingPursuit(decoder=mx.eye(3), decoder_bias=mx.zeros(3), stop_on_repeat=False)
    x = mx.array([[-1.0, -2.0, 0.0], [0.0, 2.0, 1.0]])
    assert dictionary.encode(x).tolist() == [[0, 0, 0], [0, 2, 1]]


@pytest.mark.parametrize("normalization", [TokenNorm(), LayerNorm(), Scale(1.5)])
def test_normalisations(normalization: Any) -> None:
    w, x = unit_rows(), mx.array(inputs())
    dictionary = made(normalization=normalization)
    features = pursue(np.array(normalization.normalize(x)), w)
    assert np.allclose(np.array(dictionary.encode(x)), features, atol=1e-4)
    output = mx.array((features @ w["W_dec"] + w["b_dec"]).astype(np.float32))
    assert mx.allclose(dictionary(x), normalization.denormalize(output, x), atol=1e-4)


def test_gradients_are_those_of_the_features_that_were_chosen() -> None:
    dictionary = made(max_iterations=3)
    weight = mx.random.normal((F,), key=mx.random.key(0))

    def score(x: mx.array) -> mx.array:
        return mx.sum(dictionary.encode(x) * weight)

    x = inputs()[0]
    slopes = np.array(mx.grad(score)(mx.array(x)))
    for at in range(D):
        step = np.zeros(D, np.float32)
        step[at] = 1e-3
        ends = [pursue([x + s], unit_rows(), steps=3)[0] for s in (step, -step)]
        measured = float((ends[0] - ends[1]) @ np.array(weight)) / 2e-3
        assert slopes[at] == pytest.approx(measured, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"residual_threshold": -1}, "residual_threshold"),
        ({"residual_threshold": float("nan")}, "residual_threshold"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"decoder_bias": mx.zeros(D + 1)}, r"decoder_bias has shape \(7,\); expected \(6,\)"),
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(made(), **more)


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("normalize", ["none", "constant_norm_rescale", "layer_norm"])
def test_files(tmp_path: Path, normalize: str, applied: bool) -> None:
    """Read as SAELens computes, and the same after it is written and read again."""
    w, x = unit_rows(), mx.array(inputs())
    own = {"residual_threshold": 0.1, "max_iterations": 4, "stop_on_duplicate_support": False}
    layouts.saelens(
        tmp_path / "a",
        "matching_pursuit",
        w,
        normalize_activations=normalize,
        apply_b_dec_to_input=applied,
        **own,
    )
    found = load_dictionary(tmp_path / "a", layer=1)
    assert isinstance(found, MatchingPursuit)
    used = w if applied else {**w, "b_dec": 0 * w["b_dec"]}
    read = np.array(found.normalization.normalize(x))
    wanted = pursue(read, used, threshold=0.1, steps=4, repeat=False)
    assert np.allclose(np.array(found.encode(x)), wanted, atol=1e-4)
    assert found.reads == found.writes == "layers.1.resid_post"
    assert found.metadata["architecture"] == "matching_pursuit"
    save_dictionary(found, tmp_path / "b")
    again = load_dictionary(tmp_path / "b")
    assert mx.array_equal(again.encode(x), found.encode(x))
    assert mx.array_equal(again(x), found(x)) and again.reads == found.reads
    settings = json.loads((tmp_path / "b" / "cfg.json").read_text())
    assert {name: settings[name] for name in own} == own


def test_settings_that_are_missing_have_defaults(tmp_path: Path) -> None:
    found = load_dictionary(layouts.saelens(tmp_path, "matching_pursuit", unit_rows()))
    assert isinstance(found, MatchingPursuit)
    assert (found.residual_threshold, found.max_iterations) == (1e-2, None)
    assert found.stop_on_repeat


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"d_in": 7}, r"W_dec has shape \(10, 6\); expected \(10, 7\)"),
        ({"d_sae": 11}, r"W_dec has shape \(10, 6\); expected \(11, 6\)"),
        ({"max_iterations": 0}, "max_iterations = 0"),
        ({"max_iterations": "all"}, "max_iterations = 'all'"),
        ({"residual_threshold": "small"}, "residual_threshold = 'small'"),
        ({"stop_on_duplicate_support": 3}, "stop_on_duplicate_support = 3"),
        ({"normalize_activations": "cube"}, "normalize_activations = 'cube'"),
    ],
)
def test_settings_that_lie(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    layouts.saelens(tmp_path, "matching_pursuit", unit_rows(), **changed)
    with pytest.raises(LoadError, match=said):
        load_dictionary(tmp_path)


def test_tensors_that_are_missing_or_too_many(tmp_path: Path) -> None:
    w = unit_rows()
    for name in w:
        rest = {k: v for k, v in w.items() if k != name}
        with pytest.raises(LoadError, match=f"no tensor '{name}'"):
            load_dictionary(layouts.saelens(tmp_path / name, "matching_pursuit", rest))
    layouts.saelens(tmp_path, "matching_pursuit", {**w, "b_enc": np.zeros(F, "<f4")})
    with pytest.raises(LoadError, match=r"also holds 'b_enc'.*'matching_pursuit'"):
        load_dictionary(tmp_path)


def test_what_saelens_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="normalisation 'scale'"):
        save_dictionary(made(normalization=Scale(2.0)), tmp_path)
    with pytest.raises(InputError, match=r"metadata\['x'\]"):
        save_dictionary(made(metadata={"x": mx.zeros(1)}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


def placed(width: int) -> MatchingPursuit:
    rows = mx.random.normal((96, width), key=mx.random.key(3))
    return MatchingPursuit(
        decoder=rows / mx.linalg.norm(rows, axis=1, keepdims=True),
        decoder_bias=mx.zeros(width),
        max_iterations=6,
        reads="layers.2.resid_post",
    )


def test_in_a_model(model: InterpretableModel) -> None:
    """Reports, features as addresses, generation and steering vectors take it as they are."""
    _, cache = model.run_with_cache(TEXTS[0], ["layers.2.resid_post"])
    stream = cache["layers.2.resid_post"]
    dictionary = placed(stream.shape[-1])
    report = model.evaluate_dictionary(dictionary, TEXTS)
    assert 1 < report.l0 <= 6 and report.explained_variance < 1
    with model.attached(dictionary) as (address,):
        features = model.activations(TEXTS[0], [address])[address]
        assert mx.array_equal(features, dictionary.encode(stream))
        unit = int(mx.argmax(features[0, -1]).item())
        one = f"{address}.{unit}"
        off = model.run_with_hooks(TEXTS[0], {one: mx.zeros_like})
        by_hand = model.run_with_hooks(
            TEXTS[0],
            {
                "layers.2.resid_post": lambda x: (
                    x - features[..., unit : unit + 1] * dictionary.decoder[unit]
                )
            },
        )
        assert mx.allclose(off, by_hand, atol=1e-4)
        _, slopes = model.gradients(TEXTS[0], lambda x: x[0, -1, 3], [address])
        assert slopes[address].shape == features.shape
        assert model.generate(TEXTS[0], 3, interventions={one: lambda f: f + 9}).tokens
    vector = feature_vector(model, dictionary, unit, TEXTS)
    assert vector.method.startswith(f"feature {unit}")


def test_without_an_address(model: InterpretableModel) -> None:
    with pytest.raises(InputError, match=r"dataclasses\.replace\(dictionary, reads="):
        model.attach(made())
    with pytest.raises(InputError, match=r"dataclasses\.replace\(dictionary, reads="):
        model.evaluate_dictionary(made(), TEXTS)
