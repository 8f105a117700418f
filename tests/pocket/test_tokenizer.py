"""The tokenizer: any text round-trips, listed words are one token, years are two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mlxray.pocket import PATH
from mlxray.pocket.tasks import TASKS, words
from mlxray.pocket.tokenizer import BOS, VOCABULARY_SIZE, build_tokenizer, save_tokenizer


def bare(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_round_trips(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(PATH / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_listed_words_are_single_tokens(built: Tokenizer) -> None:
    for word in words.spaced_words():
        assert bare(built, f" {word}") == [f"Ġ{word}"]
    for word in words.initial_words():
        assert bare(built, word) == [word]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_prompts_are_whole_words(built: Tokenizer, name: str) -> None:
    for example in TASKS[name].examples(60):
        tokens = bare(built, example.prompt)
        words_and_marks = re.findall(
            r"<\|\w+\|>|'s| ?\d\d| ?[A-Za-z]+| ?[^\sA-Za-z]", example.prompt
        )
        assert tokens == [word.replace(" ", "Ġ") for word in words_and_marks]
        joined = tokens + bare(built, example.answer + example.tail)
        assert bare(built, example.text) == joined


def test_years_are_two_tokens(built: Tokenizer) -> None:
    assert bare(built, " from 1732 to 1745") == ["Ġfrom", "Ġ17", "32", "Ġto", "Ġ17", "45"]
    for number in range(100):
        assert bare(built, f" 17{number:02d}") == ["Ġ17", f"{number:02d}"]


def test_it_is_built_the_same_each_time_and_shipped(built: Tokenizer) -> None:
    assert built.get_vocab_size() == VOCABULARY_SIZE
    assert built.to_str() == build_tokenizer().to_str()
    assert built.to_str() == Tokenizer.from_file(str(PATH / "tokenizer.json")).to_str()


def test_bos_is_added_once(built: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(built, tmp_path)
    for folder in (tmp_path, PATH):
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        ids = loaded.encode("The capital of France is")
        assert ids[0] == loaded.bos_token_id and ids.count(loaded.bos_token_id) == 1
        assert loaded.convert_ids_to_tokens(ids[0]) == BOS
        assert ids == built.encode("The capital of France is").ids
        assert loaded.decode(ids[1:]) == "The capital of France is"


def test_chat_template() -> None:
    loaded = AutoTokenizer.from_pretrained(str(PATH), local_files_only=True)
    messages = [
        {"role": "system", "content": "You are a kind assistant."},
        {"role": "user", "content": "What's my name?"},
    ]
    text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|system|>You are a kind assistant.<|end|>"
        "<|user|>What's my name?<|end|><|assistant|>"
    )
    ids = loaded.encode(text, add_special_tokens=False)
    assert [loaded.decode([i]) for i in ids[:2]] == ["<|bos|>", "<|system|>"]
    assert loaded.eos_token == "<|end|>"
