"""Pairs of prompts against a model: token ids whose positions correspond."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from mlxray import InterpretableModel, Metric
from mlxray.errors import InputError, TokenizerMissing, nearest

from ..metrics.lookup import get_metric
from .targets import Token, token_id, token_pieces

if TYPE_CHECKING:
    from .pairs import PairSet, Prompt, PromptPair

Unequal = Literal["refuse", "drop", "trim"]
Pieces = Literal["refuse", "drop", "first"]

#: Tokens of a prompt that a message quotes.
_SHOWN = 24


@dataclass(frozen=True)
class AlignedPair:
    """A pair as token ids.

    Attributes:
        clean, corrupted: Ids, of equal length.
        correct, incorrect: Ids of the answers.
        pair: Where it comes from.
    """

    clean: list[int]
    corrupted: list[int]
    correct: tuple[int, ...]
    incorrect: tuple[int, ...]
    pair: PromptPair

    @property
    def differing(self) -> list[int]:
        """Positions at which the two prompts have different tokens."""
        both = zip(self.clean, self.corrupted, strict=True)
        return [i for i, (a, b) in enumerate(both) if a != b]

    @property
    def metric_kwargs(self) -> dict[str, int]:
        """Keywords of the metric ``logit_diff``.

        Raises:
            InputError: if there is not exactly one answer of each kind.
        """
        counts = len(self.correct), len(self.incorrect)
        if counts != (1, 1):
            raise InputError(
                "logit_diff compares one correct with one incorrect answer; this pair has "
                f"{counts[0]} and {counts[1]}. For sets of answers there is 'prob_diff'."
            )
        return {"correct_token": self.correct[0], "incorrect_token": self.incorrect[0]}

    def keywords_for(self, metric: str | Callable[..., Any]) -> dict[str, Any]:
        """The answers as keywords of a metric, by the names that it gives them.

        ``correct_token`` and ``incorrect_token`` are the one answer of each kind,
        ``correct_tokens`` and ``incorrect_tokens`` all of them; a metric with neither gets
        nothing.

        Raises:
            InputError: if the metric compares one answer with one, and there are more or none;
                or sets of answers, and one is empty.
            PluginError: if there is no metric of that name.
        """
        found = get_metric(metric)
        named = inspect.signature(found.fn if isinstance(found, Metric) else found).parameters
        if {"correct_tokens", "incorrect_tokens"} <= set(named):
            if not self.correct or not self.incorrect:
                raise InputError("this pair lacks correct or incorrect answers to compare.")
            return {"correct_tokens": self.correct, "incorrect_tokens": self.incorrect}
        if {"correct_token", "incorrect_token"} <= set(named):
            return dict(self.metric_kwargs)
        return {}


class AlignedPairs(Sequence[AlignedPair]):
    """What `PairSet.aligned` gives.

    Attributes:
        name: Of the set.
        dropped: (index in the set, reason) of the pairs that were left out.
    """

    def __init__(self, pairs: list[AlignedPair], name: str, dropped: list[tuple[int, str]]) -> None:
        self._pairs = pairs
        self.name = name
        self.dropped = dropped

    @overload
    def __getitem__(self, index: int) -> AlignedPair: ...

    @overload
    def __getitem__(self, index: slice) -> list[AlignedPair]: ...

    def __getitem__(self, index: int | slice) -> AlignedPair | list[AlignedPair]:
        return self._pairs[index]

    def __iter__(self) -> Iterator[AlignedPair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def by_length(self) -> dict[int, list[AlignedPair]]:
        """The pairs by the length of their prompts: each group can run as one batch."""
        groups: dict[int, list[AlignedPair]] = {}
        for pair in self._pairs:
            groups.setdefault(len(pair.clean), []).append(pair)
        return dict(sorted(groups.items()))

    def __repr__(self) -> str:
        lost = f", {len(self.dropped)} dropped" if self.dropped else ""
        return f"<AlignedPairs {self.name!r}: {len(self)} pairs{lost}>"


class _Misfit(Exception):
    """A pair that the caller may choose to drop."""


def align(
    model: InterpretableModel, pairs: PairSet, *, unequal: Unequal, pieces: Pieces
) -> AlignedPairs:
    """See `PairSet.aligned`."""
    _check("unequal", unequal, get_args(Unequal))
    _check("pieces", pieces, get_args(Pieces))
    find = _finder(model, pieces)
    found, dropped = [], []
    for index, pair in enumerate(pairs):
        try:
            found.append(_aligned(model, pair, find, unequal, pieces))
        except _Misfit as misfit:
            dropped.append((index, str(misfit)))
        except TokenizerMissing:
            raise
        except InputError as error:
            raise InputError(f"{pairs.name}[{index}]: {error}") from error
    if not found:
        raise InputError(
            f"{pairs.name}: none of {len(dropped)} pairs fits this model's tokens. "
            f"The first one: {dropped[0][1]}"
        )
    return AlignedPairs(found, pairs.name, dropped)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r}: {nearest(str(value), known)}")


def _aligned(
    model: InterpretableModel,
    pair: PromptPair,
    find: Callable[[Token], int],
    unequal: Unequal,
    pieces: Pieces,
) -> AlignedPair:
    clean, corrupted = (_encoded(model, prompt) for prompt in (pair.clean, pair.corrupted))
    if len(clean) != len(corrupted):
        if unequal != "trim":
            reason = lengths_differ(model, clean, corrupted)
            _refuse(f'{reason} Pass unequal="drop" or "trim" to go on without.', unequal)
        clean, corrupted = trimmed(model, clean, corrupted)
    if clean == corrupted:
        raise InputError("clean and corrupted are the same tokens: there is nothing to patch.")
    correct, incorrect = _ids(pair.correct, find), _ids(pair.incorrect, find)
    if both := set(correct) & set(incorrect):
        names = [f"{i} ({model.token_to_str(i)!r})" if model.tokenizer else str(i) for i in both]
        _refuse(f"correct and incorrect answers share the token {', '.join(names)}.", pieces)
    return AlignedPair(clean, corrupted, correct, incorrect, pair)


def _refuse(reason: str, choice: str) -> None:
    if choice == "drop":
        raise _Misfit(reason)
    raise InputError(reason)


def _encoded(model: InterpretableModel, prompt: Prompt) -> list[int]:
    given = prompt if isinstance(prompt, str) else list(prompt)
    return model.tokens.batch(given).rows()[0]


def _ids(answers: Sequence[Token], find: Callable[[Token], int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(map(find, answers)))


def _finder(model: InterpretableModel, pieces: Pieces) -> Callable[[Token], int]:
    """From an answer to its id; every answer is looked up once for all pairs."""

    @cache
    def find(answer: Token) -> int:
        if isinstance(answer, str) and pieces != "refuse":
            ids = token_pieces(model, answer)
            if len(ids) > 1 and pieces == "drop":
                raise _Misfit(f"{answer!r} is {len(ids)} tokens.")
            return ids[0]
        return token_id(model, answer)

    return find


def lengths_differ(model: InterpretableModel, clean: list[int], corrupted: list[int]) -> str:
    """What is wrong with prompts of different length, and where they part."""
    pairs = enumerate(zip(clean, corrupted, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(clean), len(corrupted)))
    shown = ""
    if model.tokenizer is not None:
        texts = [_around(model, ids, first) for ids in (clean, corrupted)]
        shown = f"\n  clean:     {texts[0]}\n  corrupted: {texts[1]}\n"
    return (
        f"clean has {len(clean)} tokens and corrupted {len(corrupted)}: from position {first} on "
        f"they do not correspond.{shown}"
    )


def _around(model: InterpretableModel, ids: list[int], place: int) -> str:
    """The tokens of a prompt; of a long one those on either side of `place`."""
    start = max(place - _SHOWN // 2, 0) if len(ids) > _SHOWN else 0
    texts = [model.token_to_str(i) for i in ids[start : start + _SHOWN]]
    return f"{'… ' * bool(start)}{texts}{' …' * (start + _SHOWN < len(ids))}"


def trimmed(
    model: InterpretableModel, clean: list[int], corrupted: list[int]
) -> tuple[list[int], list[int]]:
    """Both of the shorter one's length: the longer one loses tokens behind its first special one.

    Raises:
        InputError: if nothing would be left.
    """
    length = min(len(clean), len(corrupted))
    first = 1 if clean[0] == corrupted[0] == model.tokens.bos_id else 0
    if length <= first:
        raise InputError("one prompt has no tokens to align with the other's.")

    def cut(ids: list[int]) -> list[int]:
        return ids[:first] + ids[len(ids) - (length - first) :]

    return cut(clean), cut(corrupted)
