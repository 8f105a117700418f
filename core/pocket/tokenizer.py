"""The pocket tokenizer: byte-level BPE in which every word of the generators is one token.

The vocabulary is, in this order: the special tokens, the 256 bytes, the two-digit numbers, the
words of the lists and of the sentence templates, and a few hundred pieces that byte-pair encoding
finds in those words, for any other text. `ignore_merges` makes a word that the vocabulary has one
token at once. Numbers are cut into pairs of digits (`1732` → `17`, `32`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from ..storage.files import replace_file, write_text
from .tasks import TASKS, chat, lists, prose, words

BOS, PAD = "<|bos|>", "<|pad|>"
SPECIAL: tuple[str, ...] = (PAD, BOS, chat.SYSTEM, chat.USER, chat.ASSISTANT, chat.END)
VOCABULARY_SIZE = 1536
"""Words and bytes take about five sixths; sub-word pieces for other text fill the rest."""
CONTEXT_LENGTH = 256

_SPLIT = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _sample_text(documents: int = 1000) -> Iterable[str]:
    """Text that shows every word of every template, at the start of a text and after a space."""
    rng = Random("tokenizer")
    for task in TASKS.values():
        for _ in range(documents):
            yield "".join(text for text, _ in task.training_document(rng))
            yield task.draw(rng, "held_out").prompt
    for _ in range(documents):
        yield prose.story(rng)
        yield "".join(text for text, _ in lists.document(rng))
    yield from (prompt for prompt in chat.SYSTEM_PROMPTS)


def _vocabulary_words(pre_tokenizer: pre_tokenizers.PreTokenizer) -> list[str]:
    """Numbers, listed words, then the words of the templates with and without a space."""
    numbers = [f"{n:02d}" for n in range(100)] + [f" {n}" for n in range(100)]
    listed = [f" {word}" for word in words.spaced_words()] + words.initial_words()
    fixed = [pre_tokenizer.pre_tokenize_str(text)[0][0] for text in numbers + listed]
    seen: set[str] = set()
    for text in _sample_text():
        for part in re.split(r"<\|\w+\|>", text):
            seen.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(part))
    seen |= {f"Ġ{piece}" for piece in seen if piece[0] in ascii_uppercase}
    return list(dict.fromkeys([*fixed, *sorted(seen)]))


def _merges(known: list[str], count: int) -> list[tuple[str, str]]:
    """The first ``count`` merges that byte-pair encoding learns from the words themselves."""
    learner = Tokenizer(BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + count, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(known, trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def build_tokenizer() -> Tokenizer:
    """The tokenizer, the same each time.

    >>> build_tokenizer().encode("The war lasted from 1732").tokens
    ['<|bos|>', 'The', 'Ġwar', 'Ġlasted', 'Ġfrom', 'Ġ17', '32']
    """
    pre_tokenizer = _pre_tokenizer()
    known = _vocabulary_words(pre_tokenizer)
    entries = dict.fromkeys([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *known])
    merges: list[tuple[str, str]] = []
    for left, right in _merges(known, VOCABULARY_SIZE):
        if len(entries) == VOCABULARY_SIZE and left + right not in entries:
            break
        entries[left + right] = None
        merges.append((left, right))
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    bos = vocabulary[BOS]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and the ``tokenizer_config.json`` with the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / "tokenizer.json") as part:
        tokenizer.save(str(part))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": chat.END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_LENGTH,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    write_text(folder / "tokenizer_config.json", text + "\n")
