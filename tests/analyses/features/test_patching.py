"""What features do to a metric, against a loop of hooks written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import registry
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.dictionaries import (
    AbsTopK,
    Crosscoder,
    Dictionary,
    JumpReLU,
    LayerNorm,
    ReLU,
    Scale,
    TokenNorm,
    TopK,
)
from mlxray.analyses.features import feature_patching
from mlxray.errors import InputError

from .by_hooks import ACTIVE, ANSWERS, DIFF, OTHER, TEXT, diff, loop, without
from .conftest import FEATURES, POINT, WIDTH, random_dictionary
from .test_reader import cross_layer

pytestmark = pytest.mark.floats

TRANSCODER: dict[str, Any] = {"writes": "layers.1.mlp_out", **ACTIVE}
DICTIONARIES: dict[str, Callable[[], Dictionary]] = {
    "relu": random_dictionary,
    "jumprelu": lambda: random_dictionary(activation=JumpReLU(mx.full((FEATURES,), 0.2))),
    "topk": lambda: random_dictionary(activation=TopK(6)),
    "abstopk": lambda: random_dictionary(activation=AbsTopK(6)),
    "scale": lambda: random_dictionary(normalization=Scale(0.5)),
    "token_norm": lambda: random_dictionary(normalization=TokenNorm()),
    "layer_norm": lambda: random_dictionary(normalization=LayerNorm()),
    "mlp": lambda: random_dictionary("layers.1.mlp"),
    "last layer": lambda: random_dictionary("layers.2.resid_post"),
    "transcoder": lambda: random_dictionary("layers.1.mlp.input", **TRANSCODER),
    "skip": lambda: random_dictionary("layers.1.mlp.input", skip=mx.eye(WIDTH), **TRANSCODER),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_effects_are_those_of_a_loop(model, name: str) -> None:
    dictionary = DICTIONARIES[name]()
    found = feature_patching(model, dictionary, TEXT, feature_ids=range(FEATURES), **DIFF)
    wanted = loop(model, dictionary, TEXT, range(FEATURES))
    scale = np.abs(wanted).max()
    assert scale > 0.05
    assert np.allclose([found[f] for f in range(FEATURES)], wanted, atol=2e-3 * max(1, scale))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "cohere"])
def test_other_families(make, family: str) -> None:
    model, dictionary = make(family), random_dictionary()
    found = feature_patching(model, dictionary, TEXT, feature_ids=range(FEATURES), **DIFF)
    wanted = loop(model, dictionary, TEXT, range(FEATURES))
    assert np.allclose([found[f] for f in range(FEATURES)], wanted, atol=2e-3)


def test_a_cross_layer_feature_is_taken_out_of_every_layer(model) -> None:
    transcoder = cross_layer()
    x = model.activations(TEXT, "layers.1.mlp.input")["layers.1.mlp.input"]
    values = transcoder.layers[1].encode(x)[..., 3:4]
    rows = transcoder.layers[1].decoder[3]
    # Features of layer 2 are left alone: what is taken out is what this one wrote.
    hooks = {f"layers.{1 + i}.mlp_out": lambda y, i=i: y - values * rows[i] for i in range(2)}
    wanted = diff(model.run_with_hooks(TEXT)) - diff(model.run_with_hooks(TEXT, hooks))
    found = feature_patching(model, transcoder, TEXT, 1, feature_ids=[3], **DIFF)
    assert found[3] == pytest.approx(wanted, abs=2e-3) and found.place == "L1.mlp.input"


def test_a_dead_feature_has_effect_exactly_zero(model, dictionary) -> None:
    for method in ("exact", "gradient"):
        found = feature_patching(model, dictionary, TEXT, feature_ids=[7, 3], method=method, **DIFF)
        assert found[7] == 0.0
        assert "feature 7 is not active here: its effect is 0" in found.summary()
    at = f"{POINT}.features"
    with model.attached(dictionary):
        same = model.run_with_hooks(TEXT, {f"{at}.7": mx.zeros_like}, allow_unchanged=True)
    assert mx.array_equal(same, model.run_with_hooks(TEXT))


def test_nothing_active_is_said(model, dictionary) -> None:
    silent = replace(dictionary, encoder_bias=mx.full((FEATURES,), -1e6))
    found = feature_patching(model, silent, TEXT)
    assert dict(found) == {} and found.total == 0 and found.shares == {}
    assert "no feature of the dictionary is active here" in found.summary()


def test_the_most_active_features_are_tried(model, dictionary) -> None:
    found = feature_patching(model, dictionary, TEXT, top_k=4)
    x = model.activations(TEXT, POINT)[POINT]
    values = np.array(dictionary.encode(x))[0].max(axis=0)
    assert set(found) == set(np.argsort(-values)[:4].tolist())
    assert found.activations == {f: pytest.approx(float(values[f]), rel=1e-5) for f in found}
    everything = feature_patching(model, dictionary, TEXT, top_k=None)
    assert set(everything) == set(np.flatnonzero(values).tolist())
    assert found.active == everything.active == len(everything)
    assert list(everything) == [f for f, _ in everything.top(100)]


@pytest.mark.parametrize("name", sorted(m.name for m in registry.all("metric")))
def test_every_metric_measures_by_how_much_it_falls(model, dictionary, name: str) -> None:
    sets = {"correct_tokens": [5], "incorrect_tokens": [9]}
    options = {"logit_diff": ANSWERS, "prob_diff": sets}.get(name, {})
    found = feature_patching(
        model, dictionary, TEXT, feature_ids=[3, 7, 11, 0], metric=name, metric_kwargs=options
    )
    metric = registry.get("metric", name)
    if "normalize" in metric.fn.__kwdefaults__:
        options = {**options, "normalize": False}
    clean = model.run_with_hooks(TEXT)
    with model.attached(dictionary) as (at,):
        whole = model.run_with_hooks(TEXT, {at: mx.zeros_like})
    for feature in (3, 7, 11, 0):
        patched = without(model, dictionary, TEXT, feature)
        wanted = float(metric(clean, clean, whole, **options)) - float(
            metric(patched, clean, whole, **options)
        )
        assert found[feature] == pytest.approx(wanted, abs=1e-3)
    total = float(metric(clean, clean, whole, **options)) - float(
        metric(whole, clean, whole, **options)
    )
    assert found.total == pytest.approx(total, abs=1e-3)


def test_a_function_is_a_metric(model, dictionary) -> None:
    def own(patched: mx.array, clean: mx.array, corrupted: mx.array) -> mx.array:
        return patched[0, -1, 5] - patched[0, -1, 9]

    found = feature_patching(model, dictionary, TEXT, feature_ids=[3, 11], metric=own)
    named = feature_patching(model, dictionary, TEXT, feature_ids=[3, 11], **DIFF)
    assert dict(found) == pytest.approx(dict(named), abs=1e-4) and found.metric_name == "own"
    estimated = feature_patching(
        model, dictionary, TEXT, feature_ids=[3], metric=own, method="gradient", verify_top=0
    )
    assert estimated.certificate is None and estimated[3] != found[3]


def test_positions(model) -> None:
    dictionary = random_dictionary(**ACTIVE)
    x = model.activations(TEXT, POINT)[POINT]
    values = dictionary.encode(x)
    often = mx.sum(values[0] > 0, axis=0) * (values[0, -1] > 0) * (values[0, 2] > 0)
    feature = int(mx.argmax(often).item())
    assert often[feature].item() > 3
    everywhere = feature_patching(model, dictionary, TEXT, feature_ids=[feature], **DIFF)
    for positions in ([-1], [2, -1]):
        kept = mx.zeros((1, len(TEXT), 1))
        kept[:, mx.array([p % len(TEXT) for p in positions])] = 1
        moved = kept * values[..., feature : feature + 1] * dictionary.decoder[feature]
        patched = model.run_with_hooks(TEXT, {POINT: lambda y, moved=moved: y - moved})
        wanted = diff(model.run_with_hooks(TEXT)) - diff(patched)
        found = feature_patching(
            model, dictionary, TEXT, feature_ids=[feature], positions=positions, **DIFF
        )
        assert found[feature] == pytest.approx(wanted, abs=1e-3)
        assert abs(found[feature] - everywhere[feature]) > 1e-2
    with pytest.raises(InputError, match="there is no position 50"):
        feature_patching(model, dictionary, TEXT, positions=[50])


# Several texts


def test_several_texts_are_averaged_as_they_are(model, dictionary) -> None:
    texts = [TEXT, OTHER, "short"]
    options: dict[str, Any] = {"feature_ids": [3, 11, 0], **DIFF}
    together = feature_patching(model, dictionary, texts, **options)
    alone = [feature_patching(model, dictionary, text, **options) for text in texts]
    for feature in (3, 11, 0):
        each = [one[feature] for one in alone]
        assert together[feature] == pytest.approx(np.mean(each), abs=1e-4)
        assert together.interval is not None
        low, high = together.interval[feature]
        assert min(each) - 1e-4 <= low <= high <= max(each) + 1e-4
        assert together.shares[feature] == pytest.approx(
            np.mean(each) / np.mean([one.total for one in alone]), rel=1e-2
        )
    assert together.texts == 3 and "mean of 3 texts" in together.summary()
    assert together.rows()[0][-2:] == ["low", "high"]


def test_features_of_another_prompt(model, dictionary) -> None:
    found = feature_patching(
        model, dictionary, TEXT, feature_ids=range(FEATURES), corrupted=OTHER, **DIFF
    )
    other = np.array(dictionary.encode(model.activations(OTHER, POINT)[POINT]))
    own = np.array(dictionary.encode(model.activations(TEXT, POINT)[POINT]))
    clean = diff(model.run_with_hooks(TEXT))
    for feature in (3, 11, 0, 7):
        patched = without(model, dictionary, TEXT, feature, other[..., feature])
        assert found[feature] == pytest.approx(clean - diff(patched), abs=1e-3)
    same = [f for f in range(FEATURES) if (own[..., f] == other[..., f]).all()]
    assert same and all(found[f] == 0.0 for f in same)
    assert found.ablated_to == "corrupted"
    with pytest.raises(InputError, match="length"):
        feature_patching(model, dictionary, TEXT, corrupted="short")
    with pytest.raises(InputError, match="2 texts and 1 corrupted"):
        feature_patching(model, dictionary, [TEXT, OTHER], corrupted=[TEXT])


def test_pairs_bring_their_answers(model, dictionary) -> None:
    pairs = PairSet([PromptPair(TEXT, OTHER, 5, 9), PromptPair(OTHER, TEXT, 6, 8)])
    found = feature_patching(model, dictionary, pairs, feature_ids=[3], metric="logit_diff")
    each = [
        feature_patching(
            model,
            dictionary,
            clean,
            feature_ids=[3],
            corrupted=corrupted,
            metric="logit_diff",
            metric_kwargs={"correct_token": right, "incorrect_token": wrong},
        )[3]
        for clean, corrupted, right, wrong in ((TEXT, OTHER, 5, 9), (OTHER, TEXT, 6, 8))
    ]
    assert found[3] == pytest.approx(np.mean(each), abs=1e-4)
    with pytest.raises(InputError, match="leave corrupted out"):
        feature_patching(model, dictionary, pairs, corrupted=TEXT)


# What is refused, and what is left behind


def test_what_cannot_be_ablated_is_refused(model, dictionary) -> None:
    crosscoder = Crosscoder(
        encoder=mx.zeros((2, WIDTH, FEATURES)),
        encoder_bias=mx.zeros(FEATURES),
        decoder=mx.zeros((FEATURES, 2, WIDTH)),
        decoder_bias=mx.zeros((2, WIDTH)),
        activation=ReLU(),
        points=("layers.0.resid_post", "layers.1.resid_post"),
    )
    with pytest.raises(InputError, match="cannot be ablated"):
        feature_patching(model, crosscoder, TEXT)
    with pytest.raises(InputError, match=r"layers\.0\.resid_pre holds what embed does"):
        feature_patching(model, random_dictionary("embed"), TEXT)
    with pytest.raises(InputError, match="there is no feature 99"):
        feature_patching(model, dictionary, TEXT, feature_ids=[99])
    with pytest.raises(InputError, match="gradient"):
        feature_patching(model, dictionary, TEXT, method="gradients")
    with pytest.raises(InputError, match="correct_token"):
        feature_patching(model, dictionary, TEXT, metric="logit_diff")


def test_nothing_stays_attached(model, dictionary) -> None:
    def broken(patched: mx.array, clean: mx.array, corrupted: mx.array) -> float:
        raise RuntimeError("broken")

    feature_patching(model, dictionary, TEXT, top_k=2)
    with pytest.raises(RuntimeError, match="broken"):
        feature_patching(model, dictionary, TEXT, metric=broken)
    assert not model.layout.attached.all
    with model.attached(dictionary) as addresses:
        feature_patching(model, random_dictionary(seed=1), TEXT, top_k=2)
        assert list(model.layout.attached.all) == addresses


def test_four_bits_and_half_precision(quantized, make) -> None:
    small = quantized("llama")
    wide = replace(
        random_dictionary(None),
        encoder=mx.random.normal((64, FEATURES), key=mx.random.key(0)) / 8,
        decoder=mx.random.normal((FEATURES, 64), key=mx.random.key(1)) / 8,
        decoder_bias=mx.zeros(64),
        reads=POINT,
        writes=None,
    )
    found = feature_patching(small, wide, TEXT, feature_ids=[3, 11], **DIFF)
    assert [found[3], found[11]] == pytest.approx(loop(small, wide, TEXT, [3, 11]), abs=2e-3)
    half = make("llama", dtype=mx.bfloat16, scale=0.1)
    dictionary = random_dictionary()
    exact = feature_patching(half, dictionary, TEXT, top_k=5, **DIFF)
    assert all(np.isfinite(list(exact.values())))
