"""Pairs of prompts made for the embedded model, and from templates of one's own.

Each generator gives the same pairs for the same seed. The prompts come from the generators that
`pocket` was trained with, by default from their held-out part; other models read them too where
their tokens align (see `PairSet.aligned`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Literal

from mlxray.errors import InputError, nearest
from mlxray.pocket.tasks import TASKS, Example, Split
from mlxray.pocket.tasks.facts import CAPITAL_PHRASINGS, phrasings
from mlxray.pocket.tasks.induction import word_pool
from mlxray.pocket.tasks.words import CAPITALS, HEADS, NAMES

from .pairs import PairSet, PromptPair

IOICorruption = Literal["swap", "third"]
InductionCorruption = Literal["value", "query", "key"]


def ioi(
    n: int = 100, *, seed: int = 0, split: Split = "held_out", corruption: IOICorruption = "swap"
) -> PairSet:
    """Indirect-object identification (Wang et al. 2022).

    Clean: ``When Mary and John went to the store, John gave a drink to`` → Mary, not John.

    Args:
        n: How many pairs.
        seed: The same seed gives the same pairs.
        split: The part of the names' pairs that training held out, or the other.
        corruption: Who acts in the corrupted prompt: ``"swap"``, the other of the two names, so
            that the answers change places; ``"third"``, a third name, so that both names are
            mentioned once and neither is the answer.

    Raises:
        InputError: if there are not so many, or an argument is unknown.
    """
    if corruption not in ("swap", "third"):
        raise InputError(f"corruption={corruption!r}: {nearest(corruption, ('swap', 'third'))}")

    def make(example: Example, rng: Random) -> PromptPair:
        receiver, giver = example.answer, str(example.distractor)
        actor = receiver
        if corruption == "third":
            others = [name for name in NAMES if name not in (receiver.strip(), giver.strip())]
            actor = f" {rng.choice(others)}"
        corrupted = with_last(example.prompt, giver.strip(), actor.strip())
        return PromptPair(example.prompt, corrupted, (receiver,), (giver,))

    return _collect("ioi", "ioi", make, n, seed, split)


def greater_than(n: int = 100, *, seed: int = 0, split: Split = "held_out") -> PairSet:
    """Greater-than (Hanna et al. 2023): a span of years ends after it began.

    Clean: ``The war lasted from 1732 to 17`` → any of 33 … 99, none of 00 … 32. In the corrupted
    prompt the span begins in the year 01 of its century.
    """

    def make(example: Example, rng: Random) -> PromptPair:
        year = int(example.accepted[0]) - 1
        corrupted = re.sub(r"\b(\d\d)\d\d\b", r"\g<1>01", example.prompt, count=1)
        too_early = tuple(f"{early:02d}" for early in range(year + 1))
        return PromptPair(example.prompt, corrupted, example.accepted, too_early, {"year": year})

    return _collect("greater_than", "years", make, n, seed, split)


def agreement(n: int = 100, *, seed: int = 0, split: Split = "held_out") -> PairSet:
    """Subject–verb agreement past an attractor.

    Clean: ``The keys to the cabinet`` → are, not is. Corrupted: ``The key to the cabinet``.
    """
    other = {a: b for pair in HEADS for a, b in (pair, pair[::-1])}

    def make(example: Example, rng: Random) -> PromptPair:
        article, head, rest = example.prompt.split(" ", 2)
        corrupted = f"{article} {other[head]} {rest}"
        return PromptPair(example.prompt, corrupted, (example.answer,), (str(example.distractor),))

    return _collect("agreement", "agreement", make, n, seed, split)


def capitals(n: int = 50, *, seed: int = 0, split: Split = "held_out") -> PairSet:
    """Capitals: ``The capital of France is`` → Paris; corrupted, another country → its capital."""

    def make(example: Example, rng: Random) -> PromptPair:
        wording, country = _wording(example)
        others = [c for c in CAPITALS if c != country and wording in phrasings(c, split)]
        other = rng.choice(others)
        return PromptPair(
            example.prompt,
            CAPITAL_PHRASINGS[wording].format(other),
            (example.answer,),
            (f" {CAPITALS[other]}",),
            {"country": country, "other": other},
        )

    return _collect("capitals", "capitals", make, n, seed, split)


def induction(
    n: int = 100,
    *,
    seed: int = 0,
    split: Split = "held_out",
    corruption: InductionCorruption = "value",
    length: int = 12,
) -> PairSet:
    """Induction (Elhage et al. 2021; Olsson et al. 2022): random words, then one of them again.

    Clean: ``A B C D E F … C`` → D. The clean prompts are the same for every corruption.

    Args:
        n: How many pairs.
        seed: The same seed gives the same pairs.
        split: Words that training left out of random sequences, or the others.
        corruption: What misleads a head that looks for the word before: ``"value"``, the
            word to copy (D becomes another word, the answer to the corrupted prompt);
            ``"query"``, the word to look for (the last C becomes F); ``"key"``, where it stands
            (the first C and F change places, so that what followed F follows C).
        length: Words before the repeated one.

    Raises:
        InputError: if an argument is unknown, or the words are not enough.
    """
    _check_split(split)
    pool = word_pool(split)
    if corruption not in ("value", "query", "key"):
        known = ("value", "query", "key")
        raise InputError(f"corruption={corruption!r}: {nearest(str(corruption), known)}")
    if n < 1 or not 5 <= length < len(pool):
        raise InputError(
            f"n is at least 1 and length from 5 to {len(pool) - 1}; got {n} and {length}."
        )
    rng = Random(f"induction/{split}/{seed}")
    pairs = []
    for _ in range(n):
        *words, stranger = rng.sample(pool, length + 1)
        low, high = rng.choice([(a, b) for a in range(1, length) for b in range(a + 2, length - 1)])
        here, there = rng.sample([low, high], 2)
        changed, last, wrong = list(words), words[here], words[there + 1]
        if corruption == "value":
            changed[here + 1] = wrong = stranger
        elif corruption == "query":
            last = words[there]
        else:
            changed[here], changed[there] = words[there], words[here]
        clean, corrupted = (
            "".join(f" {w}" for w in x) for x in ([*words, words[here]], [*changed, last])
        )
        pairs.append(PromptPair(clean, corrupted, (f" {words[here + 1]}",), (f" {wrong}",)))
    return PairSet(pairs, "induction")


#: Generators by name: ``GENERATORS["ioi"](n, seed=…, split=…)``.
GENERATORS: dict[str, Callable[..., PairSet]] = {
    "agreement": agreement,
    "capitals": capitals,
    "greater_than": greater_than,
    "induction": induction,
    "ioi": ioi,
}


def with_last(text: str, word: str, new: str) -> str:
    """`text` with the last whole `word` in it replaced.

    >>> with_last("Ann and Anna. Ann left", "Ann", "Anna")
    'Ann and Anna. Anna left'

    Raises:
        InputError: if it does not have that word.
    """
    found = [m.start() for m in re.finditer(rf"\b{re.escape(word)}\b", text)]
    if not found:
        raise InputError(f"{word!r} is not in {text!r:.80}.")
    return text[: found[-1]] + new + text[found[-1] + len(word) :]


def _wording(example: Example) -> tuple[int, str]:
    for country, capital in CAPITALS.items():
        if example.answer == f" {capital}":
            for index, wording in enumerate(CAPITAL_PHRASINGS):
                if wording.format(country) == example.prompt:
                    return index, country
    raise InputError(f"no known wording: {example.prompt!r}")


def _check_split(split: str) -> None:
    if split not in ("train", "held_out"):
        raise InputError(f"split={split!r}: {nearest(str(split), ('train', 'held_out'))}")


def _collect(
    name: str,
    task: str,
    make: Callable[[Example, Random], PromptPair],
    n: int,
    seed: int,
    split: Split,
) -> PairSet:
    if n < 1:
        raise InputError(f"n is at least 1; got {n}.")
    _check_split(split)
    examples = TASKS[task].examples(n, seed, split)
    if len(examples) < n:
        raise InputError(f"{name} has {len(examples)} different prompts of {n} asked for.")
    rng = Random(f"{name}/{split}/{seed}/pairs")
    return PairSet([make(example, rng) for example in examples], name)
