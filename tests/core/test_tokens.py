"""One way in, for every kind of input and every method; ids that no table has never run."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import InterpretableModel
from mlxray.errors import InputError, MlxrayError, TokenizerMissing
from mlxray.tokens import Batch, Tokens

from .conftest import VOCABULARY, ToyTokenizer

TOKENS = Tokens(ToyTokenizer(), VOCABULARY, 16)


def rows(inputs: Any, tokens: Tokens = TOKENS) -> list[list[int]]:
    return tokens.batch(inputs).rows()


# What is taken


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("ab", [[1, 12, 13]]),
        (["ab", "c"], [[1, 12, 13], [1, 14]]),
        (("ab",), [[1, 12, 13]]),
        (np.array(["ab"]), [[1, 12, 13]]),
        ([3, 5], [[3, 5]]),
        ((3, 5), [[3, 5]]),
        ([[3, 5], [7]], [[3, 5], [7]]),
        (((3, 5), [7]), [[3, 5], [7]]),
        ([0, VOCABULARY - 1], [[0, VOCABULARY - 1]]),
        (mx.array([3, 5]), [[3, 5]]),
        (mx.array([[3, 5], [7, 9]]), [[3, 5], [7, 9]]),
        (mx.array([[3, 5]], dtype=mx.uint8), [[3, 5]]),
        (np.array([3, 5]), [[3, 5]]),
        (np.array([[3, 5], [7, 9]], dtype=np.int16), [[3, 5], [7, 9]]),
        ([np.int64(3), 5], [[3, 5]]),
        ([mx.array(3), mx.array(5)], [[3, 5]]),
        ([mx.array([3, 5]), mx.array([7])], [[3, 5], [7]]),
        ([np.array([3, 5]), [7]], [[3, 5], [7]]),
    ],
)
def test_every_kind_of_input(inputs: Any, expected: list[list[int]]) -> None:
    batch = TOKENS.batch(inputs)
    assert batch.rows() == expected
    assert batch.lengths == tuple(map(len, expected))
    assert batch.ids.dtype == mx.int32
    assert batch.ids.shape == (len(expected), max(map(len, expected)))
    assert batch.padded == (len({*batch.lengths}) > 1)
    assert TOKENS.batch(batch) is batch


@pytest.mark.parametrize(
    ("inputs", "fault"),
    [
        ("", "empty"),
        ([], "empty"),
        ((), "empty"),
        ([""], "empty"),
        (["a", ""], "empty"),
        ([[3], []], "prompt 1 is empty"),
        ([[]], "prompt 0 is empty"),
        (mx.array([], dtype=mx.int32), r"got \(1, 0\)"),
        (np.zeros((0, 3), dtype=int), r"\(0, 3\)"),
        (mx.array(3), r"got \(\)"),
        (mx.zeros((1, 1, 1), dtype=mx.int32), r"\(1, 1, 1\)"),
        (
            [3, VOCABULARY],
            f"token id {VOCABULARY} is outside the vocabulary .0 to {VOCABULARY - 1}",
        ),
        ([-1], "token id -1 is outside"),
        ([[3], [-5]], "token id -5"),
        (mx.array([[3, 99]]), "token id 99"),
        (np.array([2**40]), "token id 1099511627776"),
        (np.array([2**63], dtype=np.uint64), "token id 9223372036854775808"),
        ([2**70], "token id 1180591620717411303424"),
        ([True, False], r"integers; got True \(bool\)"),
        (mx.array([True]), "got an array of mlx.core.bool"),
        (np.array([True]), "bool"),
        ([np.True_], "bool"),
        ([1.0, 2.0], r"integers; got 1.0 \(float\)"),
        ([1, 2.5], r"got 2.5 \(float\)"),
        ([mx.array(1.5)], "float"),
        (mx.array([1.0]), "float32"),
        (np.array([1.0]), "float"),
        ([None], "NoneType"),
        (["a", 3], "int and str"),
        ([[1], 2], "int and list"),
        ([["a", "b"]], r"integers; got 'a' \(str\)"),
        ([[[1]]], r"integers; got \[1\] \(list\)"),
        (None, "cannot run NoneType"),
        (5, "cannot run int"),
        (5.0, "cannot run float"),
        ({"input_ids": [1]}, "cannot run dict"),
        (b"bytes", "cannot run bytes"),
        (object(), "cannot run object"),
        (iter([1, 2]), "cannot run list_iterator"),
        (np.array([b"a", b"b"]), r"array of \|S1"),
        (np.array([object()]), "array of object"),
        (np.array([1 + 2j]), "complex"),
        ([1] * 17, "17 tokens; this model's context is 16"),
        ("a" * 16, "17 tokens"),
        ("\ud800", "cannot encode"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))[:40],
)
def test_every_kind_of_refusal(inputs: Any, fault: str) -> None:
    class Strict(ToyTokenizer):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            text.encode("utf-8")
            return super().encode(text, add_special_tokens) if text else []

    with pytest.raises(InputError, match=fault):
        Tokens(Strict(), VOCABULARY, 16).batch(inputs)


def test_refusals_reach_every_method(gpt2_model: InterpretableModel) -> None:
    """The check stands before each way in; MLX itself would read past the table."""
    for bad in ([VOCABULARY], [-1], [1] * 17, [], ""):
        for method in (
            gpt2_model.run_with_cache,
            gpt2_model.run_with_hooks,
            gpt2_model.trace,
            gpt2_model.get_attention_patterns,
            lambda x: gpt2_model.activations(x, ["logits"]),
            lambda x: gpt2_model.gradients(x, lambda logits: logits.sum(), ["logits"]),
        ):
            with pytest.raises(InputError):
                method(bad)


def test_without_a_tokenizer() -> None:
    tokens = Tokens(None, VOCABULARY)
    assert rows([3, 5], tokens) == [[3, 5]]
    for act in (
        lambda: tokens.batch("text"),
        lambda: tokens.batch(["text"]),
        lambda: tokens.encode("text"),
        lambda: tokens.decode([1]),
        lambda: tokens.piece(1),
    ):
        with pytest.raises(TokenizerMissing, match="tokenizer") as error:
            act()
        assert isinstance(error.value, ValueError)
    assert tokens.bos_id is None


def test_without_a_known_vocabulary() -> None:
    tokens = Tokens(None, None)
    assert rows([2**31 - 1], tokens) == [[2**31 - 1]]
    for bad in (-1, 2**31, 2**63):
        with pytest.raises(InputError, match="outside"):
            tokens.batch([bad])


integers = st.integers(0, VOCABULARY - 1)


@given(st.lists(st.lists(integers, min_size=1, max_size=9), min_size=1, max_size=4))
def test_ragged_rows_come_back(table: list[list[int]]) -> None:
    batch = TOKENS.batch(table)
    assert batch.rows() == table
    ids = batch.ids.tolist()
    for row, padded in zip(table, ids, strict=True):
        assert padded[: len(row)] == row
        assert set(padded[len(row) :]) <= {row[-1]}
    for row, length in enumerate(batch.lengths):
        for position in range(-length, length):
            assert batch.index(row, position) == range(length)[position]
        for outside in (length, -length - 1):
            with pytest.raises(InputError, match=f"prompt {row} has {length} tokens"):
                batch.index(row, outside)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=8,
    )
)
def test_anything_else_is_a_batch_or_a_typed_error(inputs: Any) -> None:
    try:
        batch = TOKENS.batch(inputs)
    except MlxrayError as error:
        assert str(error)  # noqa: PT017
    else:
        assert isinstance(batch, Batch)
        ids = mx.array(batch.ids)
        assert 0 <= mx.min(ids).item() <= mx.max(ids).item() < VOCABULARY


# Special tokens


def test_special_tokens_are_added_once_by_every_method(
    llama_model: InterpretableModel,
) -> None:
    ids = [1, 12, 13]
    assert llama_model.encode("ab") == ids
    assert llama_model.encode_batch(["ab", "c"]) == [ids, [1, 14]]
    assert llama_model.trace("ab").batch.rows() == [ids]
    assert llama_model.run_with_cache("ab", [])[1].metadata["tokens"] == [ids]
    assert llama_model.activations("ab", ["logits"]).metadata["tokens"] == [ids]
    assert len(llama_model.to_str_tokens("ab")) == 3
    bare = llama_model.model(mx.array([ids]))
    assert mx.array_equal(llama_model.run_with_hooks("ab"), bare)
    assert mx.array_equal(llama_model.run_with_hooks("ab"), llama_model.run_with_hooks(ids))
    assert llama_model.get_attention_patterns("ab")[0].shape == (1, 4, 3, 3)


def test_a_rendered_chat_template_gets_no_second_beginning(
    llama_model: InterpretableModel,
) -> None:
    assert llama_model.encode("<s>ab") == [1, 12, 13] == llama_model.encode("ab")
    assert llama_model.encode("<s><s>ab") == [1, 1, 12, 13]  # written twice, kept twice
    assert llama_model.encode("a<s>") == [1, 12, 1]


@pytest.mark.parametrize("variant", ["no keyword", "adds none", "adds both", "no id", "no bos"])
def test_tokenizers_of_other_people(variant: str) -> None:
    class Minimal:
        """`encode` and `decode`, nothing else that could be asked for."""

        def encode(self, text: str) -> Any:
            inner = ToyTokenizer().encode(text, add_special_tokens=variant != "adds none")
            if variant == "adds both":
                inner = [*inner, 0]
            return SimpleNamespace(ids=inner) if variant == "no keyword" else np.array(inner)

        def decode(self, ids: list[int]) -> str:
            return ToyTokenizer().decode(ids)

    tokenizer: Any = Minimal()
    if variant != "no bos":
        tokenizer.bos_token = "<s>"
        tokenizer.bos_token_id = None if variant == "no id" else 1
    tokens = Tokens(tokenizer, VOCABULARY)
    plain, marked = tokens.encode("ab"), tokens.encode("<s>ab")
    assert all(type(i) is int for i in plain)
    if variant == "adds none":
        assert plain == [12, 13] and marked == [1, 12, 13]
    elif variant == "adds both":
        assert plain == marked == [1, 12, 13, 0]
    elif variant in ("no id", "no bos"):  # nobody said which id it is
        assert plain == [1, 12, 13]
    else:
        assert plain == marked == [1, 12, 13]
    assert tokens.decode(plain)
    assert all(tokens.piece(i) for i in plain)


def test_to_str_tokens(llama_model: InterpretableModel) -> None:
    assert llama_model.to_str_tokens("ab") == ["<s>", "a", "b"]
    assert llama_model.to_str_tokens("ab", prepend_bos=True) == ["<s>", "a", "b"]
    for ids in ([12, 13], mx.array([12, 13]), mx.array([[12, 13]]), np.array([12, 13])):
        assert llama_model.to_str_tokens(ids) == ["a", "b"]
        assert llama_model.to_str_tokens(ids, prepend_bos=True) == ["a", "b"]
    for several in (["ab", "c"], [[12], [13]], mx.array([[12], [13]])):
        with pytest.raises(InputError, match="one prompt"):
            llama_model.to_str_tokens(several)
    with pytest.raises(InputError):
        llama_model.to_str_tokens([VOCABULARY])


def test_prepend_bos_where_the_tokenizer_adds_none(make: Any) -> None:
    class Bare(ToyTokenizer):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return super().encode(text, add_special_tokens=False)

    model = InterpretableModel(make.llama(layers=1), tokenizer=Bare())
    assert model.to_str_tokens("ab") == ["a", "b"]
    assert model.to_str_tokens("ab", prepend_bos=True) == ["<s>", "a", "b"]
    assert model.to_str_tokens("<s>ab", prepend_bos=True) == ["<s>", "a", "b"]


# And out


def test_decode_takes_what_runs_take(llama_model: InterpretableModel) -> None:
    for ids in ([1, 12, 13], (1, 12, 13), mx.array([1, 12, 13]), mx.array([[1, 12, 13]])):
        assert llama_model.decode(ids) == "<s>ab"
    for ids in ([[1, 12, 13]], np.array([1, 12, 13]), [mx.array(1), np.int64(12), 13]):
        assert llama_model.decode(ids) == "<s>ab"
    assert llama_model.decode(mx.array(12)) == "a"
    assert llama_model.decode([]) == ""
    for token in (12, np.int64(12), mx.array(12)):
        assert llama_model.token_to_str(token) == "a"


@pytest.mark.parametrize("bad", [VOCABULARY, -1, 2**70, 1.5, "a", None, True])
def test_ids_that_do_not_exist_have_no_text(llama_model: InterpretableModel, bad: Any) -> None:
    with pytest.raises(InputError, match=r"token.id"):
        llama_model.token_to_str(bad)
    with pytest.raises(InputError, match=r"token.id"):
        llama_model.decode([1, bad])


def test_several_rows_are_not_one_text(llama_model: InterpretableModel) -> None:
    for several in ([[1], [2]], mx.array([[1], [2]])):
        with pytest.raises(InputError):
            llama_model.decode(several)


def test_vocab_size(make: Any, llama_model: InterpretableModel) -> None:
    assert llama_model.vocab_size == VOCABULARY
    assert InterpretableModel(llama_model.model).vocab_size is None

    class Sized:
        def __len__(self) -> int:
            return 7

    assert InterpretableModel(llama_model.model, tokenizer=Sized()).vocab_size == 7
    unsized = SimpleNamespace(encode=list, decode=str)
    assert InterpretableModel(llama_model.model, tokenizer=unsized).vocab_size is None


def test_arrays_are_checked_as_a_whole_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(None, 50, context=3)

    def one_by_one(values: Any) -> list[int]:
        raise AssertionError(f"looked at {values} one by one")

    monkeypatch.setattr(tokens, "_ids", one_by_one)
    for table in (np.array([[3, 5], [7, 49]]), np.array([[3, 7], [5, 49]], dtype=np.uint64).T):
        for array in (mx.array(table), table):
            batch = tokens.batch(array)
            array[0, 0] = 9
            assert batch.rows() == [[3, 5], [7, 49]]
            assert batch.ids.dtype == mx.int32
    with pytest.raises(InputError, match="4 tokens; this model's context is 3"):
        tokens.batch(mx.zeros((1, 4), dtype=mx.int32))
