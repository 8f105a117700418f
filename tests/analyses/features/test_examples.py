"""Maximally activating examples against sorting everything, text by text, in numpy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.activations import harvest
from mlxray.analyses.dictionaries import AbsTopK, TopK
from mlxray.analyses.features import (
    get_top_features_for_text,
    get_top_texts_for_feature,
    max_activating_examples,
)
from mlxray.analyses.features.reading import active as active_module
from mlxray.analyses.features.reading.active import Active
from mlxray.analyses.features.top import Largest
from mlxray.errors import AddressError, InputError

from .conftest import FEATURES, POINT, by_hand, random_dictionary, some_texts

TOLERANCE = 1e-3


def everything(model: Any, dictionary: Any, texts: Any, feature: int) -> list[Any]:
    """(value, text, position) of each token where the feature is active, largest first."""
    found = [
        (value, number, position)
        for number, text in enumerate(texts)
        if text
        for position, value in enumerate(by_hand(model, dictionary, text)[:, feature])
        if value > 0
    ]
    return sorted(found, key=lambda each: (-each[0], *each[1:]))


def places(examples: Any) -> list[tuple[int, int]]:
    return [(each["document"], each["token_position"]) for each in examples]


@pytest.mark.floats
def test_examples_are_those_of_sorting_all_tokens(model, dictionary, texts) -> None:
    features = [3, 11, 7, 0]
    found = max_activating_examples(
        model, dictionary, features, texts, top_k=6, window=2, once_per_text=False
    )
    for feature in features:
        wanted = everything(model, dictionary, texts, feature)[:6]
        own = found.of(feature)
        assert places(own) == [(number, position) for _, number, position in wanted]
        assert np.allclose(
            [each["activation_value"] for each in own], [w[0] for w in wanted], atol=TOLERANCE
        )
    assert found.of(7) == [] and found.warnings == ["feature 7 is active on no token"]
    with pytest.raises(KeyError):
        found.of(1)


@pytest.mark.floats
def test_one_example_of_each_text(model, dictionary, texts) -> None:
    found = max_activating_examples(model, dictionary, 3, texts, top_k=4)
    best: dict[int, Any] = {}
    for value, number, position in everything(model, dictionary, texts, 3):
        best.setdefault(number, (value, position))
    wanted = [(number, position) for number, (_, position) in list(best.items())[:4]]
    assert places(found) == wanted


@pytest.mark.floats
def test_the_window_holds_the_values_around(model, dictionary, texts) -> None:
    for each in max_activating_examples(model, dictionary, 3, texts, top_k=8, window=3):
        values = by_hand(model, dictionary, texts[each["document"]])[:, 3]
        at = each["token_position"]
        first, end = max(0, at - 3), at + 4
        assert np.allclose(each["activations"], values[first:end], atol=TOLERANCE)
        tokens = model.to_str_tokens(texts[each["document"]])[first:end]
        assert each["tokens"] == tokens and each["at"] == at - first
        assert each["activations"][each["at"]] == each["activation_value"]


def test_batches_of_any_size_give_the_same(model, dictionary, texts, monkeypatch) -> None:
    together = max_activating_examples(model, dictionary, range(FEATURES), texts, top_k=3)
    monkeypatch.setattr(active_module, "MOST_TOKENS", 1)
    alone = max_activating_examples(model, dictionary, range(FEATURES), texts, top_k=3)
    assert len(alone) == len(together) > 60
    for one, other in zip(alone, together, strict=True):
        assert one["activation_value"] == pytest.approx(other["activation_value"], abs=TOLERANCE)
    assert np.mean([a == b for a, b in zip(places(alone), places(together), strict=True)]) > 0.95
    assert alone.active == pytest.approx(together.active, abs=0.02)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_streaming_equals_a_full_sort_with_ties(once: bool, size: int) -> None:
    """Small integers tie all the time: then the earlier text and token comes first."""
    rng = np.random.default_rng(size)
    tokens, features, k = 200, 5, 4
    values = rng.integers(-3, 4, size=(tokens, features))
    lengths = rng.integers(1, 9, size=tokens)
    documents = np.repeat(np.arange(tokens), lengths)[:tokens]
    positions = np.arange(tokens) - np.searchsorted(documents, documents)
    largest = Largest(k, once=once, keep=lambda batch, row, feature: int(batch.tokens[row]))
    for start in range(0, tokens, size):
        part = slice(start, start + size)
        rows, names = np.nonzero(values[part])
        whole = np.arange(tokens)[part]
        largest.add(
            Active(
                whole,
                documents[part],
                positions[part],
                np.ones(len(whole), bool),
                rows,
                names,
                values[part][rows, names].astype(np.float32),
            )
        )
    found = [(e.feature, e.document, e.position, e.value, e.kept) for e in largest.entries()]
    wanted = []
    for feature in range(features):
        order = np.argsort(-np.abs(values[:, feature]), kind="stable")
        order = [t for t in order if values[t, feature]]
        if once:
            seen: set[int] = set()
            order = [t for t in order if not (documents[t] in seen or seen.add(documents[t]))]  # type: ignore[func-returns-value]
        wanted += [(feature, documents[t], positions[t], values[t, feature], t) for t in order[:k]]
    assert found == wanted


def test_skipped_tokens_do_not_count(model, dictionary, texts) -> None:
    found = max_activating_examples(
        model, dictionary, 3, texts, top_k=50, once_per_text=False, skip_first=2
    )
    wanted = [w for w in everything(model, dictionary, texts, 3) if w[2] >= 2]
    assert sorted(places(found)) == sorted((number, position) for _, number, position in wanted)
    assert found.tokens_read == sum(max(0, len(text) - 2) for text in texts)
    with pytest.raises(InputError, match="no tokens after the first 99"):
        max_activating_examples(model, dictionary, 3, texts, skip_first=99)


def test_blank_texts_keep_their_number(model, dictionary, texts) -> None:
    found = max_activating_examples(model, dictionary, 3, ["", *texts[:4], "  "])
    wanted = everything(model, dictionary, ["", *texts[:4]], 3)
    assert {each["document"] for each in found} == {number for _, number, _ in wanted}
    with pytest.raises(InputError, match="no tokens"):
        max_activating_examples(model, dictionary, 3, [""])


def test_a_feature_with_its_sign_is_ordered_by_magnitude(model, texts) -> None:
    signed = random_dictionary(activation=AbsTopK(3))
    found = max_activating_examples(
        model, signed, range(FEATURES), texts, top_k=5, once_per_text=False
    )
    values = [each["activation_value"] for each in found]
    assert min(values) < 0
    for feature in range(FEATURES):
        own = [abs(each["activation_value"]) for each in found.of(feature)]
        assert own == sorted(own, reverse=True)


@pytest.fixture(scope="module")
def pocket() -> InterpretableModel:
    return InterpretableModel("pocket")


@pytest.fixture(scope="module")
def wide(pocket) -> Any:
    rng = np.random.default_rng(0)
    return replace(
        random_dictionary(None),
        encoder=mx.array((rng.normal(size=(128, FEATURES)) / 40).astype(np.float32)),
        encoder_bias=mx.zeros(FEATURES),
        decoder=mx.array(rng.normal(size=(FEATURES, 128)).astype(np.float32)),
        decoder_bias=mx.zeros(128),
        reads=POINT,
        writes=None,
    )


SENTENCES = [
    "The capital of France is Paris.",
    "Anna gave Tom the book, and he went home.",
    "Paris is in France.",
    "Rome is in Italy, and Madrid is in Spain.",
]


@pytest.mark.floats
@pytest.mark.parametrize("size", [4096, 7])
def test_a_store_gives_what_its_texts_give(pocket, wide, tmp_path, monkeypatch, size) -> None:
    store = harvest(
        pocket,
        SENTENCES,
        [POINT],
        tmp_path / "s",
        context=32,
        dtype="float32",
        packing="documents",
        exclude=(),
        verbose=False,
    )
    monkeypatch.setattr(active_module, "MOST_TOKENS", size)
    for source in (store, str(tmp_path / "s")):
        from_store = pocket.max_activating_examples(wide, [1, 2], source, top_k=3, window=4)
        from_texts = pocket.max_activating_examples(wide, [1, 2], SENTENCES, top_k=3, window=4)
        assert places(from_store) == places(from_texts)
        for one, other in zip(from_store, from_texts, strict=True):
            assert one["tokens"] == other["tokens"] and one["text"] == other["text"]
            assert np.allclose(one["activations"], other["activations"], atol=TOLERANCE)
        assert from_store.tokens_read == from_texts.tokens_read


def test_a_store_of_another_model_or_point_is_refused(pocket, wide, model, tmp_path) -> None:
    store = harvest(
        pocket, SENTENCES, ["layers.0.resid_post"], tmp_path / "s", context=8, verbose=False
    )
    with pytest.raises(AddressError, match=r"the store has no 'layers\.1\.resid_post'"):
        pocket.max_activating_examples(wide, 1, store)
    with pytest.raises(InputError, match="another model"):
        model.max_activating_examples(random_dictionary("layers.0.resid_post"), 1, store)


def test_top_texts(pocket, wide) -> None:
    found = get_top_texts_for_feature(pocket, wide, 2, SENTENCES, top_k=2)
    assert [text in SENTENCES for text, *_ in found] == [True, True]
    best = max_activating_examples(pocket, wide, 2, SENTENCES, top_k=2)
    assert [(e["activation_value"], e["token_position"]) for e in best] == [e[1:] for e in found]
    assert found[0][1] == max(found.activations[0])
    assert json.loads(found.to_json())["data"]["feature"] == 2


def test_tokens_of_bytes_and_markup_are_shown_and_escaped(pocket, wide) -> None:
    found = pocket.max_activating_examples(
        wide, [0, 1, 2, 3], ["<b>日本|\u202e</b>\x1b[31m"], top_k=1, window=50
    )
    joined = "".join(found[0]["tokens"])
    assert "<0xE6>" in joined and "\x1b" not in found.to_markdown()
    assert "<b>" not in found.to_markdown() and "\u202e" not in found.to_markdown()


@pytest.mark.floats
def test_top_features_of_a_text(model, dictionary) -> None:
    text = "hello world"
    table = by_hand(model, dictionary, text)
    found = get_top_features_for_text(model, dictionary, text, top_k=5)
    order = np.argsort(-table.max(axis=0), kind="stable")[:5]
    assert [feature for feature, _ in found] == order.tolist()
    assert np.allclose([value for _, value in found], table.max(axis=0)[order], atol=TOLERANCE)
    assert found.positions == table.argmax(axis=0)[order].tolist()
    assert np.allclose(np.array(found.activations), table[:, order].T, atol=TOLERANCE)
    assert found.active == int((table > 0).any(axis=0).sum())
    one = get_top_features_for_text(model, dictionary, text, top_k=3, position=-2)
    assert [feature for feature, _ in one] == np.argsort(-table[-2], kind="stable")[:3].tolist()
    with pytest.raises(InputError, match="one prompt"):
        get_top_features_for_text(model, dictionary, ["a", "b"])


def test_a_text_that_turns_nothing_on(model, dictionary) -> None:
    silent = replace(dictionary, encoder_bias=mx.full((FEATURES,), -1e6))
    found = get_top_features_for_text(model, silent, "abc")
    assert list(found) == [] and found.summary() == "L1.resid_post: 0 active features"


def test_topk_features_compete_with_all_others(model, texts) -> None:
    """Reading two features of a TopK dictionary gives what they are among all of them."""
    sparse = random_dictionary(activation=TopK(2))
    found = max_activating_examples(model, sparse, [1, 2], texts, top_k=99, once_per_text=False)
    x = [np.array(model.activations(t, POINT)[POINT][0]) for t in texts]
    pre = np.concatenate(x) @ np.array(sparse.encoder) + np.array(sparse.encoder_bias)
    kept = np.argsort(-pre, axis=1)[:, :2]
    positive = np.take_along_axis(pre, kept, axis=1) > 0
    wanted = [int(((kept == feature) & positive).sum()) for feature in (1, 2)]
    assert [len(found.of(1)), len(found.of(2))] == wanted and sum(wanted) > 0


def test_texts_without_a_tokenizer(make, dictionary) -> None:
    bare = make("llama", tokenizer=False)
    found = max_activating_examples(bare, dictionary, [3, 11], [[5, 6, 7], [8, 9]], top_k=1)
    assert all(token.startswith("#") for each in found for token in each["tokens"])


def test_a_long_pass_over_many_texts_shows_a_bar(model, dictionary, texts, capsys) -> None:
    max_activating_examples(model, dictionary, 3, texts, verbose=True)
    assert "features: 100%" in capsys.readouterr().err


def test_results_are_tables_and_json(model, dictionary, texts) -> None:
    found = max_activating_examples(model, dictionary, [3, 7], some_texts(3), top_k=2, window=1)
    columns, rows = found.rows()
    assert columns[0] == "feature" and len(rows) == len(found)
    assert len(json.loads(found.to_json())["data"]["examples"]) == len(found)
    assert "weights" not in found.to_json() and len(found.to_json()) < 4000
    assert "f3" in found.summary() and "warning: feature 7 is active on no token" in found.summary()
