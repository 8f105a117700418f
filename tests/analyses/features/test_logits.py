"""What features write into the logits, against the model's parts by hand and whole runs."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import Crosscoder, ReLU, Scale, Standardize, TokenNorm
from mlxray.analyses.features import feature_logits
from mlxray.errors import InputError

from .conftest import FEATURES, WIDTH, by_hand, random_dictionary

ALL = {"top_k": 61}


def table(result, feature):
    """(V,) what a feature writes, from its promoted tokens."""
    found = np.zeros(len(result[feature]))
    for each in result[feature]:
        found[each.token_id] = each.logit
    return found


@pytest.mark.floats
def test_the_direction_is_the_decoder_row_through_the_unembedding(model, dictionary) -> None:
    found = feature_logits(model, dictionary, [3, 0], **ALL)
    head = np.array(model.model.model.embed_tokens.weight, np.float64)
    rows = np.array(dictionary.decoder, np.float64)
    for feature in (3, 0):
        assert np.allclose(table(found, feature), head @ rows[feature], atol=1e-4)
    assert found.kind == "direction" and list(found) == [3, 0]
    first = found.promoted[0]
    assert [each.logit for each in first] == sorted((e.logit for e in first), reverse=True)
    assert found.suppressed[0] == first[::-1]
    assert found.mean[0] == pytest.approx((head @ rows[3]).mean(), abs=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "cohere"])
def test_every_head_is_the_models_own(make, family) -> None:
    """Tied or not, scaled, capped: what the module gives for the row less that for zeros."""
    model = make(family)
    dictionary = random_dictionary()
    row = dictionary.decoder[3][None, None]
    wanted = model.finish_from(row, skip_norm=True) - model.finish_from(0 * row, skip_norm=True)
    found = feature_logits(model, dictionary, 3, **ALL)
    assert np.allclose(table(found, 3), np.array(wanted[0, 0]), atol=1e-5)


@pytest.mark.floats
def test_the_direct_effect_in_the_last_layer_is_the_effect(model, texts) -> None:
    """Behind the last block there is no later layer: ablating the feature does nothing else."""
    last = random_dictionary("layers.2.resid_post")
    found = feature_logits(model, last, 3, texts, samples=1000, **ALL)
    changes = []
    for text in texts:
        values = by_hand(model, last, text)[:, 3]
        out = mx.array(values.astype(np.float32))[None, :, None] * last.decoder[3]
        edit = {"layers.2.resid_post": lambda x, out=out: x - out}
        whole = model.run_with_hooks(text)
        ablated = model.run_with_hooks(text, edit, allow_unchanged=True)
        changes.append(np.array(whole - ablated)[0][values > 0])
    wanted = np.concatenate(changes).mean(axis=0)
    assert np.allclose(table(found, 3), wanted, atol=1e-3)
    assert found.kind == "direct effect"


@pytest.mark.floats
def test_samples_are_the_most_active_tokens(model, dictionary, texts) -> None:
    one = feature_logits(model, dictionary, 3, texts, samples=1, **ALL)
    best = max(texts, key=lambda text: by_hand(model, dictionary, text)[:, 3].max())
    alone = feature_logits(model, dictionary, 3, [best], samples=1, **ALL)
    assert np.allclose(table(one, 3), table(alone, 3), atol=1e-4)


def test_scales_of_a_dictionary_are_undone(model, dictionary) -> None:
    plain = table(feature_logits(model, dictionary, 3, **ALL), 3)
    scaled = replace(dictionary, normalization=Scale(4.0))
    assert np.allclose(table(feature_logits(model, scaled, 3, **ALL), 3), plain / 4, atol=1e-5)
    std = mx.full((WIDTH,), 2.0)
    standard = replace(dictionary, normalization=Standardize(mx.ones(WIDTH), std))
    assert np.allclose(table(feature_logits(model, standard, 3, **ALL), 3), 2 * plain, atol=1e-5)
    tokens = feature_logits(model, replace(dictionary, normalization=TokenNorm()), 3, **ALL)
    assert np.allclose(table(tokens, 3), plain, atol=1e-5)
    assert "scales each token" in tokens.summary()


def test_a_dictionary_of_an_mlp_is_followed_where_nothing_stands_behind_it(make, model) -> None:
    mlp = random_dictionary("layers.1.mlp_out")
    at_module = random_dictionary("layers.1.mlp")
    assert table(feature_logits(model, mlp, 3, **ALL), 3).any()
    assert feature_logits(model, at_module, 3).place == "L1.mlp"
    with pytest.raises(InputError, match=r"writes layers\.1\.mlp_out, which is not added"):
        feature_logits(make("gemma2"), mlp, 3)  # a norm stands behind it
    transcoder = random_dictionary("layers.1.mlp.input", writes="layers.1.mlp_out")
    assert feature_logits(model, transcoder, 3).place == "L1.mlp_out"


def test_what_has_no_direction_is_refused(model, dictionary, texts) -> None:
    inside = random_dictionary("layers.1.self_attn.q_proj")
    with pytest.raises(InputError, match="is not added to the residual stream"):
        feature_logits(model, inside, 3)
    crosscoder = Crosscoder(
        encoder=mx.zeros((2, WIDTH, FEATURES)),
        encoder_bias=mx.zeros(FEATURES),
        decoder=mx.zeros((FEATURES, 2, WIDTH)),
        decoder_bias=mx.zeros((2, WIDTH)),
        activation=ReLU(),
        points=("layers.0.resid_post", "layers.1.resid_post"),
    )
    with pytest.raises(InputError, match="a crosscoder writes several points"):
        feature_logits(model, crosscoder, 3)
    with pytest.raises(InputError, match="feature 7 is active on no token"):
        feature_logits(model, dictionary, 7, texts)


def test_ids_that_the_tokenizer_lacks_are_left_out(model, dictionary, monkeypatch) -> None:
    known = list(range(50))
    monkeypatch.setattr(model.tokens.pieces, "known", lambda ids: [i for i in ids if i in known])
    found = feature_logits(model, dictionary, 3, **ALL)
    assert sorted(each.token_id for each in found[3]) == known
