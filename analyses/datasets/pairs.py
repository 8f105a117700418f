"""Pairs of prompts: one on which the model behaves, one that takes the reason away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from mlxray import InterpretableModel
from mlxray.errors import InputError

from .alignment import AlignedPairs, Pieces, Unequal, align
from .targets import Token

Prompt = str | tuple[int, ...]


@dataclass(frozen=True)
class PromptPair:
    """A clean and a corrupted prompt, and the answers to compare.

    Attributes:
        clean, corrupted: Text, or token ids (any sequence; kept as a tuple).
        correct: The answer(s) to the clean prompt: ids, or text with its leading space.
        incorrect: The answer(s) to compare with, usually those to the corrupted prompt.
        metadata: Anything else, such as the template.

    Raises:
        InputError: if a prompt is empty or of an unknown kind, both are the same, or an answer
            is correct and incorrect.
    """

    clean: Prompt
    corrupted: Prompt
    correct: tuple[Token, ...] = ()
    incorrect: tuple[Token, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("clean", "corrupted"):
            object.__setattr__(self, name, _prompt(getattr(self, name), name))
        for name in ("correct", "incorrect"):
            object.__setattr__(self, name, _answers(getattr(self, name), name))
        if self.clean == self.corrupted:
            raise InputError(f"clean and corrupted are the same prompt: {self.clean!r:.80}.")
        both = set(self.correct) & set(self.incorrect)
        if both:
            raise InputError(f"answers are both correct and incorrect: {sorted(both, key=str)}.")


class PairSet(Sequence[PromptPair]):
    """Some pairs under a name.

    Args:
        pairs: At least one `PromptPair`.
        name: For tables and messages.

    Raises:
        InputError: if there are none, or something else is among them.
    """

    def __init__(self, pairs: Iterable[PromptPair], name: str = "pairs") -> None:
        self._pairs = tuple(pairs)
        self.name = name
        if not self._pairs:
            raise InputError(f"{name!r} holds no pairs of prompts.")
        for index, pair in enumerate(self._pairs):
            if not isinstance(pair, PromptPair):
                raise InputError(f"{name!r}[{index}] is {type(pair).__name__}, not a PromptPair.")

    @overload
    def __getitem__(self, index: int) -> PromptPair: ...

    @overload
    def __getitem__(self, index: slice) -> PairSet: ...

    def __getitem__(self, index: int | slice) -> PromptPair | PairSet:
        if isinstance(index, slice):
            return PairSet(self._pairs[index], self.name)
        return self._pairs[index]

    def __iter__(self) -> Iterator[PromptPair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<PairSet {self.name!r}: {len(self)} pairs>"

    def aligned(
        self,
        model: InterpretableModel,
        *,
        unequal: Unequal = "refuse",
        pieces: Pieces = "refuse",
    ) -> AlignedPairs:
        """The pairs as token ids, prompts of equal length, answers of one token.

        Args:
            model: Whose tokens they are.
            unequal: What to do with a pair whose prompts have different lengths: ``"refuse"``
                (raise), ``"drop"`` (leave it out), or ``"trim"`` (cut the beginning of the longer
                one, after its beginning-of-sequence token, so that the last tokens stand at the
                same positions; that takes text away from it).
            pieces: What to do with an answer of several tokens: ``"refuse"``, ``"drop"``, or
                ``"first"`` (compare first tokens).

        Raises:
            InputError: for a pair that does not fit, naming it; or if none is left.
            TokenizerMissing: for text without a tokenizer.
        """
        return align(model, self, unequal=unequal, pieces=pieces)


def _prompt(value: Any, name: str) -> Prompt:
    if isinstance(value, str):
        if not value:
            raise InputError(f"the {name} prompt is empty.")
        return value
    return _ids(value, f"the {name} prompt")


def _ids(value: Any, what: str) -> tuple[int, ...]:
    flat = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(flat, (list, tuple)) or not flat:
        raise InputError(f"{what} is {type(value).__name__}: give text, or at least one token id.")
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in flat):
        raise InputError(f"{what} holds something that is no token id.")
    return tuple(flat)


def _answers(value: Any, name: str) -> tuple[Token, ...]:
    answers = (value,) if isinstance(value, (str, int)) else value
    if not isinstance(answers, (list, tuple)):
        raise InputError(f"{name} is {type(value).__name__}: give ids, texts, or one of either.")
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, (str, int)) or answer == "":
            raise InputError(f"{name} holds {answer!r}: an answer is a token id or a text.")
    return tuple(answers)


__all__ = ["AlignedPairs", "PairSet", "PromptPair"]
