"""Temporal dictionaries against their definition: token by token and head by head, in float64."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.causal.activation_patching import activation_patching
from mlxray.analyses.dictionaries import (
    AbsTopK,
    ContextAttention,
    DictionaryForm,
    ReLU,
    Scale,
    Standardize,
    TemporalDictionary,
    TopK,
    feature_vector,
    load_dictionary,
    save_dictionary,
)
from mlxray.errors import InputError, LoadError

from .. import layouts
from ..layouts import D, F, K, inputs, relu, temporal_weights, top

TEXTS = ["The capital of France is", "The capital of Italy is Rome."]
AT = "layers.2.resid_post"


def attended(codes: Any, w: layouts.Arrays, layer: int, heads: int) -> Any:
    """What one layer of attention makes of codes (S, F)."""

    def linear(name: str, x: Any) -> Any:
        at = f"attn_layers.{layer}.{name}"
        return w[f"{at}.weight"].astype(np.float64) @ x + w[f"{at}.bias"]

    made = []
    for t, own in enumerate(codes):
        past = [np.zeros(F), *codes[:t]]
        query = np.split(linear("q_target", own), heads)
        keys = [np.split(linear("k_ctx", each), heads) for each in past]
        values = [np.split(linear("v_ctx", each), heads) for each in past]
        mixed = []
        for h in range(heads):
            scores = np.array([query[h] @ key[h] / np.sqrt(len(query[h])) for key in keys])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed.append(sum(p * value[h] for p, value in zip(weights, values, strict=True)))
        made.append(linear("c_proj", np.concatenate(mixed)))
    return np.array(made)


def defined(x: Any, w: layouts.Arrays, layers: int, heads: int, k: int | None = K) -> Any:
    """Features and predicted codes of a text (S, D) that is normalised and less the bias."""
    encoder = w.get("W_enc", w["W_dec"].T).astype(np.float64)
    predicted = np.zeros((len(x), F))
    for layer in range(layers):
        codes = relu(attended(relu(x / (4 * D) @ encoder), w, layer, heads))
        for t, own in enumerate(codes):
            direction = own @ w["W_dec"]
            share = direction @ x[t] / (np.linalg.norm(direction) + 1e-6) ** 2
            predicted[t] += share * own
            x[t] -= share * direction
    pre = x / (4 * D) @ encoder
    return (relu(pre) if k is None else top(pre, k)), predicted


def text() -> Any:
    """Long activations, so that codes are far from zero and attention tells tokens apart."""
    return 40 * inputs()


def write(folder: Path, w: layouts.Arrays, **changed: Any) -> Path:
    return layouts.saelens(folder, "temporal", w, **changed)


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("layers", "heads", "k"), [(0, 1, K), (1, 1, K), (2, 5, None)])
def test_files(
    tmp_path: Path, layers: int, heads: int, k: int | None, tied: bool, applied: bool
) -> None:
    """Read as SAELens computes, and the same after it is written and read again."""
    w, x = temporal_weights(layers=layers, tied=tied), text()
    found = load_dictionary(
        write(
            tmp_path / "a",
            w,
            n_heads=heads,
            n_attn_layers=layers,
            tied_weights=tied,
            apply_b_dec_to_input=applied,
            sae_diff_type="relu" if k is None else "topk",
        )
    )
    assert isinstance(found, TemporalDictionary) and isinstance(found, DictionaryForm)
    assert (found.d_in, found.d_out, found.n_features) == (D, D, F)
    wide = np.asarray(x, np.float64) - (w["b_dec"] if applied else 0)
    features, predicted = defined(wide, w, layers, heads, k)
    output = (features + predicted) @ w["W_dec"]
    output += w["b_dec"] if applied or not tied else 0
    assert layers == 0 or np.abs(predicted).max() > 0.1
    encoded = found.encode(mx.array(x))
    assert np.allclose(np.array(encoded), features, rtol=1e-4, atol=1e-4)
    assert np.allclose(np.array(found(mx.array(x))), output, rtol=1e-4, atol=1e-3)
    assert mx.array_equal(found.decode(encoded, mx.array(x)), found(mx.array(x)))
    assert found.reads == found.writes == "layers.1.resid_post"
    save_dictionary(found, tmp_path / "b")
    again = load_dictionary(tmp_path / "b", layer=1)
    assert mx.allclose(again.encode(mx.array(x)), encoded, rtol=1e-5, atol=1e-4)
    assert mx.allclose(again(mx.array(x)), found(mx.array(x)), rtol=1e-5, atol=1e-4)


def small(folder: Path, **changed: Any) -> TemporalDictionary:
    found = load_dictionary(write(folder, temporal_weights(), **changed))
    assert isinstance(found, TemporalDictionary)
    return found


def test_a_token_depends_on_those_before_and_no_other(tmp_path: Path) -> None:
    dictionary, x = small(tmp_path, sae_diff_type="relu"), mx.array(text())
    whole = dictionary.encode(x)
    assert mx.allclose(dictionary.encode(x[:4]), whole[:4], rtol=1e-4, atol=1e-4)
    assert not mx.allclose(dictionary.encode(x[1:]), whole[1:], rtol=1e-2)
    both = dictionary.encode(mx.stack([x, x[::-1]]))
    assert mx.allclose(both[0], whole, rtol=1e-4, atol=1e-4)
    assert mx.allclose(both[1], dictionary.encode(x[::-1]), rtol=1e-4, atol=1e-4)


def test_a_scale(tmp_path: Path) -> None:
    scale = {"activation_normalization_factor": 0.5}
    settings = {"normalize_activations": "constant_scalar_rescale", "sae_diff_type": "relu"}
    scaled, x = small(tmp_path, **settings, **scale), mx.array(text())
    plain = dataclasses.replace(scaled, normalization=Scale(1.0))
    assert mx.allclose(scaled.encode(x), plain.encode(x * 0.5))
    assert mx.allclose(scaled(x), plain(x * 0.5) / 0.5)
    save_dictionary(scaled, tmp_path / "b")
    assert mx.array_equal(load_dictionary(tmp_path / "b").encode(x), scaled.encode(x))


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    dictionary, x = small(tmp_path), mx.array(text())
    with pytest.raises(InputError, match="temporal dictionary depend on the tokens before"):
        dictionary.encode(x[0])
    with pytest.raises(InputError, match=r"dictionary\.decode\(features, x\)"):
        dictionary.decode(dictionary.encode(x))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"d_in": 7}, r"W_dec has shape \(10, 6\); expected \(10, 7\)"),
        ({"n_heads": 3}, r"d_sae = 10; a multiple of n_heads · bottleneck_factor = 3 · 2"),
        ({"bottleneck_factor": 1}, r"q_target\.weight has shape \(5, 10\); expected \(10, 10\)"),
        ({"n_attn_layers": 2}, r"no tensor 'attn_layers\.1\.q_target\.weight'"),
        ({"n_attn_layers": 0}, r"also holds 'attn_layers\.0.*'temporal'"),
        ({"n_attn_layers": 10**9}, r"no tensor 'attn_layers\.1\.q_target"),
        ({"n_attn_layers": -1}, "n_attn_layers = -1"),
        ({"n_heads": 0}, "n_heads = 0"),
        ({"kval_topk": 11}, "kval_topk = 11; at most d_sae = 10"),
        ({"sae_diff_type": "jumprelu"}, "sae_diff_type = 'jumprelu'"),
        ({"tied_weights": False}, "no tensor 'W_enc'"),
        ({"tied_weights": "no"}, "tied_weights = 'no'"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        (
            {
                "normalize_activations": "constant_scalar_rescale",
                "activation_normalization_factor": 0,
            },
            "activation_normalization_factor = 0; a positive number",
        ),
    ],
)
def test_settings_that_lie(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        load_dictionary(write(tmp_path, temporal_weights(), **changed))


def test_tensors_that_are_missing(tmp_path: Path) -> None:
    w = temporal_weights()
    for name in w:
        rest = {k: v for k, v in w.items() if k != name}
        with pytest.raises(LoadError, match=f"no tensor '{name}'"):
            load_dictionary(write(tmp_path / name, rest))


def test_what_saelens_cannot_hold_is_refused(tmp_path: Path) -> None:
    made = small(tmp_path)
    (layer,) = tuple(made.layers)
    two = dataclasses.replace(layer, n_heads=5)
    standard = Standardize(mx.zeros(D), mx.ones(D))
    for changed, said in (
        ({"activation": AbsTopK(2)}, "no 'abstopk'"),
        ({"normalization": standard}, "no normalisation 'standardize'"),
        ({"layers": [layer, two]}, r"layers of one shape.*\[\(1, 5\), \(5, 5\)\]"),
    ):
        with pytest.raises(InputError, match=said):
            save_dictionary(dataclasses.replace(made, **changed), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    made = small(tmp_path)
    (layer,) = tuple(made.layers)
    with pytest.raises(InputError, match=r"n_heads=2 does not divide 5 and 10"):
        dataclasses.replace(layer, n_heads=2)
    with pytest.raises(InputError, match=r"value_bias has shape \(5,\); expected \(10,\)"):
        dataclasses.replace(layer, value_bias=mx.zeros(5))
    with pytest.raises(InputError, match=r"layer 0: value has shape \(10, 10\); expected \(6, 6\)"):
        dataclasses.replace(made, decoder=mx.ones((6, D)), activation=ReLU())


@pytest.fixture(scope="module")
def model() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.fixture(scope="module")
def placed(model: InterpretableModel) -> TemporalDictionary:
    """For the embedded model; its feature 0 is on at each token, and its attention is not idle."""
    width = model.activations(TEXTS[0], AT)[AT].shape[-1]
    rng = np.random.default_rng(4)

    def draw(*shape: int, size: float) -> mx.array:
        return mx.array((rng.normal(size=shape) * size).astype(np.float32))

    n = 32
    weights = {
        **{name: draw(16, n, size=3.0) for name in ("query", "key")},
        **{name: draw(n, n, size=0.3) for name in ("value", "output")},
        **{f"{name}_bias": draw(16, size=0.1) for name in ("query", "key")},
        **{f"{name}_bias": draw(n, size=0.1) for name in ("value", "output")},
    }
    return TemporalDictionary(
        decoder=draw(n, width, size=0.5),
        decoder_bias=mx.zeros(width),
        layers=[ContextAttention(**weights, n_heads=4)],
        activation=TopK(8),
        reads=AT,
    )


def test_a_report(model: InterpretableModel, placed: TemporalDictionary) -> None:
    """Tokens that are not counted are context all the same."""
    skip = 2
    report = model.evaluate_dictionary(placed, TEXTS, skip_first=skip)
    on = []
    for prompt in TEXTS:
        stream = model.activations(prompt, AT)[AT]
        on.append(np.array(placed.encode(stream)[0, skip:]) != 0)
    assert report.tokens == sum(map(len, on))
    frequencies = np.concatenate(on).mean(axis=0)
    assert np.allclose(np.array(report.frequencies), frequencies, atol=1e-6)


def test_features_as_addresses(model: InterpretableModel, placed: TemporalDictionary) -> None:
    stream = model.activations(TEXTS[0], AT)[AT]
    wanted = placed.encode(stream)
    unit = int(mx.argmax(wanted[0, -1]).item())
    with model.attached(placed) as (address,):
        found = model.activations(TEXTS[0], [address])[address]
        assert mx.array_equal(found, wanted)
        clean = model.run_with_hooks(TEXTS[0])
        same = model.run_with_hooks(TEXTS[0], {address: lambda f: 1 * f}, allow_unchanged=True)
        assert mx.array_equal(same, clean)
        moved = model.run_with_hooks(TEXTS[0], {f"{address}.{unit}": lambda f: f + 9})
        by_hand = model.run_with_hooks(TEXTS[0], {AT: lambda x: x + 9 * placed.decoder[unit]})
        assert mx.allclose(moved, by_hand, rtol=1e-4, atol=1e-4)
    vector = feature_vector(model, placed, unit, TEXTS)
    assert vector.method.startswith(f"feature {unit}")


def test_generation_runs_the_whole_text_or_not_at_all(
    model: InterpretableModel, placed: TemporalDictionary
) -> None:
    with model.attached(placed) as (address,):
        edits = {f"{address}.3": lambda f: f + 9}
        for more in ({"interventions": edits}, {"watch": [address]}):
            with pytest.raises(InputError, match=r"temporal dictionary depend.*use_cache=False"):
                model.generate(TEXTS[0], 2, **more)
        found = model.generate(TEXTS[0], 3, watch=[address, AT], use_cache=False)
        # The watched features of a step are those of the text up to there.
        seen = found.activation(AT, 0)
        assert mx.allclose(found.activation(address, 0), placed.encode(seen), rtol=1e-3, atol=1e-4)
        assert model.generate(TEXTS[0], 2).tokens  # nothing of it is asked for


@pytest.mark.floats
def test_sweeps_leave_no_prefix_out(model: InterpretableModel, placed: TemporalDictionary) -> None:
    """Where activations are patched, keys and values of the tokens before are reused."""
    other = TEXTS[0].replace("France", "Italy")
    with model.attached(placed):
        ways = [
            activation_patching(model, TEXTS[0], other, "features", by="position", exact=exact)
            for exact in ("batched", "naive")
        ]
    assert mx.allclose(*(each.effect_matrix for each in ways), atol=1e-4)
    assert mx.max(mx.abs(ways[1].effect_matrix)).item() > 1e-3
