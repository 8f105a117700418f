"""Pairs of prompts, and their alignment with a model's tokens."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.datasets.targets import token_id
from mlxray.errors import InputError, TokenizerMissing


class Words:
    """A token per known word (with its space), else one per letter; a first token of its own."""

    bos_token, bos_token_id = "<s>", 0
    words = (" Mary", " John", " gave", " Paris", "Mary", "John", " to", " it")

    def encode(self, text, add_special_tokens=True):
        ids = [0] if add_special_tokens else []
        while text:
            word = next((w for w in self.words if text.startswith(w)), None)
            ids.append(1 + self.words.index(word) if word else 20 + ord(text[0]) % 100)
            text = text[len(word) if word else 1 :]
        return ids

    def decode(self, ids):
        return "".join(map(self.piece, ids))

    def piece(self, i):
        if i < 20:
            return "<s>" if i == 0 else self.words[i - 1]
        return chr(i - 20 if i >= 52 else i + 80)


@pytest.fixture(scope="module")
def model():
    arguments = llama.ModelArgs(
        model_type="llama", hidden_size=8, num_hidden_layers=1, intermediate_size=8,
        num_attention_heads=2, rms_norm_eps=1e-5, vocab_size=120,
    )  # fmt: skip
    return InterpretableModel(llama.Model(arguments), tokenizer=Words())


PAIR = PromptPair("Mary gave it to", "John gave it to", " John", " Mary")


def test_answers_become_tuples_and_ids_are_taken_from_arrays():
    pair = PromptPair(mx.array([1, 2]), np.array([1, 3]), 5, [6, " x"], {"a": 1})
    assert (pair.clean, pair.corrupted) == ((1, 2), (1, 3))
    assert (pair.correct, pair.incorrect) == ((5,), (6, " x"))
    assert pair.metadata == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("same", "same"), "same prompt"),
        (([1, 2], (1, 2)), "same prompt"),
        (("", "x"), "clean prompt is empty"),
        (("x", []), "corrupted prompt is list"),
        (("x", 3), "int"),
        (("x", [1.5]), "no token id"),
        (("x", [True]), "no token id"),
        (("x", "y", 1.5), "correct is float"),
        (("x", "y", [""]), "''"),
        (("x", "y", (), [True]), "True"),
        (("x", "y", [" a", 3], 3), "both correct and incorrect"),
    ],
)
def test_pairs_that_are_none(arguments, fault):
    with pytest.raises(InputError, match=fault):
        PromptPair(*arguments)


def test_a_set_is_a_sequence():
    pairs = PairSet([PAIR, PromptPair("a", "b")], "two")
    assert len(pairs) == 2 and pairs[0] is PAIR and list(pairs)[1].clean == "a"
    assert isinstance(pairs[:1], PairSet) and pairs[:1].name == "two"
    assert repr(pairs) == "<PairSet 'two': 2 pairs>"
    with pytest.raises(InputError, match="no pairs"):
        pairs[5:]
    with pytest.raises(InputError, match=r"'x'\[0\] is str"):
        PairSet(["a"], "x")


def test_aligned_ids(model):
    (pair,) = PairSet([PAIR]).aligned(model)
    assert pair.clean == [0, 5, 3, 8, 7] and pair.corrupted == [0, 6, 3, 8, 7]
    assert pair.differing == [1]
    assert pair.metric_kwargs == {"correct_token": 2, "incorrect_token": 1}
    assert pair.pair is PAIR


def test_several_answers(model):
    (pair,) = PairSet([PromptPair("Mary to", "John to", [" John", 2, 3], ())]).aligned(model)
    assert pair.correct == (2, 3) and pair.incorrect == ()
    with pytest.raises(InputError, match="has 2 and 0"):
        _ = pair.metric_kwargs


LONG = PromptPair("Mary gave it to", "Al gave it to", " John", " Mary")


def test_unequal_lengths_are_refused_with_both_tokenizations(model):
    with pytest.raises(InputError, match=r"pairs\[1\]: clean has 5 tokens and corrupted 6") as e:
        PairSet([PAIR, LONG]).aligned(model)
    assert "'Mary'" in str(e.value) and "'A'" in str(e.value) and 'unequal="drop"' in str(e.value)


def test_unequal_lengths_dropped_or_trimmed(model):
    aligned = PairSet([PAIR, LONG]).aligned(model, unequal="drop")
    assert len(aligned) == 1
    assert aligned.dropped[0][0] == 1 and "5 tokens" in aligned.dropped[0][1]
    assert "1 dropped" in repr(aligned)
    trimmed = PairSet([LONG]).aligned(model, unequal="trim")[0]
    assert trimmed.clean == [0, 5, 3, 8, 7]
    assert trimmed.corrupted == [0, 20 + ord("l") % 100, 3, 8, 7]


def test_trimming_needs_something_in_common(model):
    with pytest.raises(InputError, match="no tokens to align"):
        PairSet([PromptPair([0], [0, 1, 2])]).aligned(model, unequal="trim")


def test_groups_by_length(model):
    pairs = PairSet([PAIR, PromptPair([1, 2], [1, 3]), PromptPair("Mary to", "John to")])
    groups = pairs.aligned(model).by_length()
    assert {length: len(group) for length, group in groups.items()} == {2: 1, 3: 1, 5: 1}


def test_answers_of_several_pieces(model):
    pairs = PairSet([PAIR, PromptPair("Mary", "John", " Rome", " Mary")])
    with pytest.raises(InputError, match=r"\[1\]: ' Rome' is 5 tokens here: .*'R', 'o'"):
        pairs.aligned(model)
    assert [i for i, _ in pairs.aligned(model, pieces="drop").dropped] == [1]
    first = pairs.aligned(model, pieces="first")[1]
    assert first.correct == (20 + ord(" "),)


def test_first_pieces_that_are_the_same(model):
    pairs = PairSet([PromptPair("Mary", "John", " Rome", " Riga")])
    with pytest.raises(InputError, match=r"share the token 52 \(' '\)"):
        pairs.aligned(model, pieces="first")


def test_none_left(model):
    with pytest.raises(InputError, match="none of 1 pairs"):
        PairSet([LONG]).aligned(model, unequal="drop")


def test_prompts_that_become_the_same(model):
    pairs = PairSet([PromptPair("Mary", [0, 5])])
    with pytest.raises(InputError, match="same tokens"):
        pairs.aligned(model)


@pytest.mark.parametrize("option", ["unequal", "pieces"])
def test_unknown_options(model, option):
    with pytest.raises(InputError, match=f"{option}='drp': Did you mean 'drop'"):
        PairSet([PAIR]).aligned(model, **{option: "drp"})


def test_without_a_tokenizer():
    planted = llama.Model(llama.ModelArgs("llama", 8, 1, 8, 2, 1e-5, 10))
    bare = InterpretableModel(planted)
    assert PairSet([PromptPair([1, 2], [1, 3], 4, 5)]).aligned(bare)[0].clean == [1, 2]
    with pytest.raises(TokenizerMissing):
        PairSet([PAIR]).aligned(bare)
    with pytest.raises(InputError, match=r"clean has 2 tokens and corrupted 1"):
        PairSet([PromptPair([1, 2], [1])]).aligned(bare)
    with pytest.raises(InputError, match=r"12 is outside the vocabulary \(0 to 9\)"):
        PairSet([PromptPair([1, 2], [1, 3], 12)]).aligned(bare)


def test_token_id(model):
    assert token_id(model, " Paris") == 4 == token_id(model, np.int64(4))
    for wrong, fault in ((-1, "outside"), (True, "outside"), ("", "empty"), (1.5, "float")):
        with pytest.raises(InputError, match=fault):
            token_id(model, wrong)
