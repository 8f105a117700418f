"""Streaming gives whole characters, and stop strings end the text wherever tokens end."""

from __future__ import annotations

from typing import Any

import pytest

from mlxray import InterpretableModel
from mlxray.errors import InputError, TokenizerMissing
from mlxray.generation.text import TextStream
from mlxray.testing.zoo import small_model
from mlxray.tokens import Tokens

TEXT = "a 👩🏽‍🚀 日本語 ends\nhere — “so” 🎉"


class Bytes:
    """One token for each byte of UTF-8."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(i % 256 for i in ids).decode("utf-8", "replace")


def pieces(
    tokenizer: Any, ids: list[int], stops: tuple[str, ...] = (), prompt: int = 1
) -> tuple[list[str], bool]:
    """What a stream hands out of `ids`, of which the first ones are the prompt."""
    stream = TextStream(Tokens(tokenizer, None), stops, ids[:prompt])
    found = []
    for token in ids[prompt:]:
        text, stopped = stream.add(token)
        found.append(text)
        if stopped:
            return found, True
    text, stopped = stream.finish()
    return [*found, text], stopped


@pytest.mark.parametrize("kind", ["bytes", "pocket"])
def test_pieces_are_whole_and_make_the_text(kind: str, pocket: InterpretableModel):
    tokenizer = Bytes() if kind == "bytes" else pocket.tokenizer
    ids = Tokens(tokenizer, None).encode("x" + TEXT)
    found, _ = pieces(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:1])) :]
    assert "".join(found).endswith(TEXT)
    assert not any("\ufffd" in piece for piece in found)
    assert len([piece for piece in found if piece]) > 10  # it comes while it is made


def test_a_cut_character_is_what_decode_makes_of_it():
    ids = list("x日本".encode())[:-1]
    found, _ = pieces(Bytes(), ids)
    assert found == ["", "", "日", "", "", "\ufffd"]
    assert "x" + "".join(found) == Bytes().decode(ids)


@pytest.mark.parametrize("kind", ["bytes", "pocket"])
def test_a_character_that_the_prompt_ends_with_is_not_cut(kind: str, pocket: InterpretableModel):
    tokenizer = Bytes() if kind == "bytes" else pocket.tokenizer
    for before, after in (("so 🎉", " it goes"), ("日本日本日本日本日本🎉", "語")):
        ids = Tokens(tokenizer, None).encode(before)
        more = Tokens(tokenizer, None).continuation(after)
        found, _ = pieces(tokenizer, [*ids, *more], prompt=len(ids))
        assert "".join(found) == after


def test_the_first_space_stays(pocket: InterpretableModel):
    result = pocket.generate("The capital of France is", 2)
    assert result.text == " Paris."
    assert result.pieces == [" Paris", "."]


@pytest.mark.parametrize("cut", range(1, 12))
def test_stop_strings_span_tokens(cut: int):
    text = "once STOP never"
    ids = [0, *text.encode()]
    stop = "e STOP never"[:cut]
    found, stopped = pieces(Bytes(), ids, (stop,))
    assert stopped
    assert "".join(found) == text[: text.index(stop)]


def test_what_only_begins_like_a_stop_string_is_written():
    found, stopped = pieces(Bytes(), list(b"xaab aaab aac"), ("aaaa", "aacc", "zz"))
    assert not stopped
    assert "".join(found) == "aab aaab aac"


def test_the_earliest_stop_string_counts():
    found, stopped = pieces(Bytes(), list(b"xone two three"), ("two", "ne", "three"))
    assert (stopped, "".join(found)) == (True, "o")

    class Whole(Bytes):
        def decode(self, ids: list[int]) -> str:
            return "".join("one two three" if i == 1 else "x" for i in ids)

    assert pieces(Whole(), [0, 1], ("three", "two")) == (["one "], True)


def test_stop_strings_in_a_generation(pocket: InterpretableModel):
    prompt = "The capital of France is"
    whole = pocket.generate(prompt, 20)
    stop = whole.text[8:14]  # in the middle of words
    cut = pocket.generate(prompt, 20, stop_strings=stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert len(cut.tokens) < 20
    streamed = list(pocket.stream_generate(prompt, 20, stop_strings=[stop]))
    assert "".join(step.text for step in streamed) == cut.text
    assert [step.finish_reason for step in streamed[-2:]] == [None, "stop"]


def test_stop_strings_are_texts(pocket: InterpretableModel):
    for wrong in ([""], [3]):
        with pytest.raises(InputError, match=r"stop.strings (are|is|.*list of) text"):
            pocket.generate("The", 2, stop_strings=wrong)
    with pytest.raises(TokenizerMissing):
        InterpretableModel(small_model("llama")).generate([1, 2], 2, stop_strings="x")


def test_stop_tokens(pocket: InterpretableModel):
    prompt = "The capital of France is"
    whole = pocket.generate(prompt, 10)
    found = pocket.generate(prompt, 10, stop_tokens=[whole.tokens[2]])
    assert found.tokens == whole.tokens[:3]
    assert found.text == " Paris."
    assert found.finish_reason == "stop"
    chat = [{"role": "user", "content": "My name is Alice."}]
    end = pocket.generate(chat, 40)
    assert end.finish_reason == "stop"
    assert end.tokens[-1] in pocket.tokenizer.eos_token_ids
    assert "<" not in end.text
    assert pocket.generate(chat, 40, stop_tokens=[]).tokens[: len(end.tokens)] == end.tokens
    assert len(pocket.generate(chat, 40, stop_tokens=[]).tokens) == 40
