"""Interchanges: a base and a source prompt, and the answer if part of one came from the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxray import InterpretableModel
from mlxray.errors import InputError, nearest

from ...datasets.pair_files import at, read_rows
from ...datasets.pairs import PairSet
from ...datasets.targets import Token, token_id
from ..examples.labelled import ENDINGS

_FIELDS = ("base", "source", "answer")


@dataclass(frozen=True)
class Interchange:
    """One counterfactual.

    Attributes:
        base: The prompt that runs: text or token ids.
        source: The prompt that the variable's value is taken from.
        answer: What the model should say then, one token: an id, or text with its leading space.
    """

    base: str | Sequence[int]
    source: str | Sequence[int]
    answer: Token


@dataclass(frozen=True)
class Encoded:
    """Counterfactuals as token ids.

    Attributes:
        bases, sources: Ids of each prompt.
        answers: Id of each counterfactual answer.
    """

    bases: list[list[int]]
    sources: list[list[int]]
    answers: list[int]

    def __len__(self) -> int:
        return len(self.answers)

    def items(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Base and source of each, as what can be compared."""
        pairs = zip(self.bases, self.sources, strict=True)
        return [(tuple(base), tuple(source)) for base, source in pairs]

    def answered(self, answers: Sequence[int]) -> Encoded:
        """The same prompts with other answers, one for each."""
        return Encoded(self.bases, self.sources, list(answers))


def interchanges(examples: Any) -> list[Interchange]:
    """Counterfactuals from what a user gave.

    Args:
        examples: A list of `Interchange` or of mappings with base, source and answer; a ``.jsonl``
            or ``.csv`` file with these columns; or a `PairSet`, whose corrupted prompts are bases,
            whose clean ones are sources, and whose correct answers are the counterfactual ones.

    Raises:
        InputError: if there are none, or one is something else.
    """
    if isinstance(examples, PairSet):
        return [_of_pair(i, pair) for i, pair in enumerate(examples)]
    if isinstance(examples, (str, Path)):
        path = Path(examples).expanduser()
        if path.suffix.lower() not in ENDINGS:
            raise InputError(
                f"{str(examples)!r:.80} is no file of counterfactuals: they are read from "
                f"{', '.join(ENDINGS)}."
            )
        found = []
        for line, row in read_rows(path, _FIELDS, "rest"):
            if any(row[name] in (None, "") for name in _FIELDS):
                raise at(path, line, "base, source or answer is empty.")
            found.append(Interchange(*(row[name] for name in _FIELDS)))
        return _some(found, path.name)
    if isinstance(examples, Mapping) or not isinstance(examples, Iterable):
        kind = type(examples).__name__
        raise InputError(f"examples are a list of Interchange(base, source, answer); got {kind}.")
    return _some([_of_item(i, item) for i, item in enumerate(examples)], "examples")


def encoded(model: InterpretableModel, examples: Sequence[Interchange]) -> Encoded:
    """The same as token ids.

    Raises:
        InputError: if a prompt cannot be run, or an answer is not one token; names the example.
        TokenizerMissing: for text without a tokenizer.
    """
    bases: list[list[int]] = []
    sources: list[list[int]] = []
    answers: list[int] = []
    for i, example in enumerate(examples):
        try:
            for prompt, found in ((example.base, bases), (example.source, sources)):
                rows = model.tokens.batch(prompt).rows()
                if len(rows) != 1:
                    raise InputError(f"base and source are one prompt each; got {len(rows)}.")
                found.append(rows[0])
            answers.append(token_id(model, example.answer))
        except InputError as error:
            if type(error) is not InputError:
                raise
            raise InputError(f"example {i}: {error}") from error
    return Encoded(bases, sources, answers)


def _of_pair(index: int, pair: Any) -> Interchange:
    if len(pair.correct) != 1:
        raise InputError(
            f"pair {index} has {len(pair.correct)} correct answers; a counterfactual has one."
        )
    return Interchange(pair.corrupted, pair.clean, pair.correct[0])


def _of_item(index: int, item: Any) -> Interchange:
    if isinstance(item, Interchange):
        return item
    if isinstance(item, Mapping):
        for name in _FIELDS:
            if name not in item:
                raise InputError(
                    f"example {index} has no field {name!r}. {nearest(name, map(str, item))}"
                )
        return Interchange(*(item[name] for name in _FIELDS))
    raise InputError(
        f"example {index} is {type(item).__name__}: give Interchange(base, source, answer)."
    )


def _some(found: list[Interchange], name: str) -> list[Interchange]:
    if not found:
        raise InputError(f"{name} holds no counterfactuals: give at least four.")
    return found
