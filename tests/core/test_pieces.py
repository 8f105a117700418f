"""Ids as text: padded vocabularies, parts of characters, and pairs that do not fit together."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from mlxray.generation.text import TextStream
from mlxray.tokens import Tokens

TEXT = "Hello , world ! 日本の首都は 🗼 isn't it?\n  two  spaces é "
CORPUS = ["the capital of France is Paris", "日本 hello world , isn't it", "the two  spaces"]


def byte_level(decoder: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made.decoder = decoder or decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<|end|>", special=True)])
    return made


def byte_fallback(*, strip: bool = True, decoder: Any = None) -> Tokenizer:
    words = ["<unk>", "<s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", "日"]
    words += [chr(i) for i in range(ord("a"), ord("z") + 1)] + ["\u2581t", "he", "\u2581the"]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    parts: list[Any] = [normalizers.Replace(" ", "\u2581")]
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), *parts][not strip :])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoder or decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if strip else steps
    )
    return made


def word_pieces() -> Tokenizer:
    words = ["[UNK]", "the", "capital", "##s", "of", ",", "##ing", "i", "##t", "'", "s"]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    return made


def fast(made: Tokenizer, **options: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=made, **options)


_MISFIT = decoders.Sequence(
    [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
)

KINDS: dict[str, Callable[[], Any]] = {
    "byte level": lambda: fast(byte_level()),
    "byte level, cleaned up": lambda: fast(byte_level(), clean_up_tokenization_spaces=True),
    "byte level, bare": byte_level,
    "byte level, decoder of another": lambda: fast(byte_level(_MISFIT)),
    "byte fallback": lambda: fast(byte_fallback()),
    "byte fallback, no strip": lambda: fast(byte_fallback(strip=False)),
    "byte fallback, decoder of another": lambda: fast(
        byte_fallback(strip=False, decoder=decoders.Sequence([decoders.Fuse()]))
    ),
    "word pieces": lambda: fast(word_pieces()),
}
LOSSLESS = [kind for kind in KINDS if kind != "word pieces"]
#: Bytes stay names where the decoder does not know them.
WHOLE = [kind for kind in LOSSLESS if kind != "byte fallback, decoder of another"]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {kind: make() for kind, make in KINDS.items()}


@pytest.mark.parametrize("kind", WHOLE)
def test_decode_gives_the_text_back(tokenizers: dict[str, Any], kind: str):
    tokens = Tokens(tokenizers[kind], None)
    for text in (TEXT, TEXT.strip(), "the", " the", "x 日", "Hello , world"):
        assert tokens.decode(tokens.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_are_spaces(tokenizers: dict[str, Any], kind: str):
    tokens = Tokens(tokenizers[kind], None)
    pieces = [tokens.piece(i) for i in tokens.encode("the capital of")]
    assert not any("\u0120" in piece or "\u2581" in piece for piece in pieces)
    if kind in WHOLE:
        assert "".join(pieces).strip() == "the capital of"


@pytest.mark.parametrize("kind", [k for k in WHOLE if k.startswith("byte level")])
def test_parts_of_a_character_are_bytes(tokenizers: dict[str, Any], kind: str):
    tokens = Tokens(tokenizers[kind], None)
    pieces = [tokens.piece(i) for i in tokens.encode("é 🗼x")]
    assert "".join(pieces) == "<0xC3><0xA9> <0xF0><0x9F><0x97><0xBC>x"
    assert tokens.decode(tokens.encode("é 🗼x")) == "é 🗼x"


@pytest.mark.parametrize("kind", ["byte fallback", "byte fallback, no strip"])
def test_byte_tokens_are_bytes(tokenizers: dict[str, Any], kind: str):
    tokens = Tokens(tokenizers[kind], None)
    pieces = [tokens.piece(i) for i in tokens.encode("the 🗼")]
    assert pieces[-4:] == ["<0xF0>", "<0x9F>", "<0x97>", "<0xBC>"]


def test_entries_that_are_bytes():
    class Ranks:
        """As tokenizers over tiktoken answer."""

        def encode(self, text: str) -> list[int]:
            return [0, 1]

        def decode(self, ids: list[int]) -> str:
            return b"".join([b" \xe6\x97", b"\xa5"][i] for i in ids).decode("utf-8", "replace")

        def convert_ids_to_tokens(self, token: int) -> bytes:
            return [b" \xe6\x97", b"\xa5"][token]

    tokens = Tokens(Ranks(), 5)
    assert [tokens.piece(i) for i in (0, 1, 2)] == [" <0xE6><0x97>", "<0xA5>", ""]
    assert tokens.decode([0, 4, 1, 3]) == " 日"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_without_a_token_have_no_text(tokenizers: dict[str, Any], kind: str):
    size = tokenizers[kind].get_vocab_size() if kind.endswith("bare") else len(tokenizers[kind])
    tokens = Tokens(tokenizers[kind], size + 8)
    ids = tokens.encode("the capital")
    spare = [size, size + 7]
    assert tokens.decode([spare[0], *ids[:1], spare[1], *ids[1:]]) == tokens.decode(ids)
    assert tokens.decode(spare) == ""
    assert tokens.piece(size + 7) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_what_decode_says(tokenizers: dict[str, Any], kind: str):
    """Any ids at all: bytes that are no text, special tokens, ids without a token."""
    tokenizer = tokenizers[kind]
    size = tokenizer.get_vocab_size() if kind.endswith("bare") else len(tokenizer)
    tokens = Tokens(tokenizer, size + 8)
    draw = random.Random(0)
    texts = [tokens.encode("the 日本 🗼🗼 capital isn't , it " * 4)]
    anything = [[draw.randrange(size + 8) for _ in range(60)] for _ in range(30)]
    before = tokens.encode("the ca")
    for ids in [*texts, *anything]:
        stream = TextStream(tokens, (), before)
        parts = [stream.add(token)[0] for token in ids]
        found = "".join(parts) + stream.finish()[0]
        assert found == tokens.decode([*before, *ids])[len(tokens.decode(before)) :]
    assert len([part for part in parts if part]) > 3


def test_a_stop_string_that_is_a_byte_ends_the_text_at_once():
    tokens = Tokens(fast(byte_fallback()), None)
    the, newline = tokens.encode("the")[-1], 2 + 0x0A
    assert tokens.decode([the, newline]) == "the\n"
    stream = TextStream(tokens, ["\n"], [the])
    assert [stream.add(token) for token in (the, newline)] == [(" the", False), ("", True)]
