"""Repeated random sequences (Olsson et al. 2022): the second copy can be read off the first."""

from __future__ import annotations

from random import Random

from .example import Example, Split, Task, in_split
from .words import spaced_words

HELD_OUT_LENGTHS: tuple[int, ...] = (13, 21, 34)
"""Lengths of the repeated block that training never shows."""
MAX_LENGTH = 44


def word_pool(split: Split) -> list[str]:
    """The words of a split: one word in eight is never part of a random sequence in training."""
    return [w for w in spaced_words() if in_split(split, "induction", w, one_in=8)]


_POOLS: dict[Split, list[str]] = {"train": word_pool("train"), "held_out": word_pool("held_out")}


def draw(rng: Random, split: Split, *, length: int | None = None) -> Example:
    """Random words twice, cut at a random place of the second copy.

    Held-out examples have held-out words and held-out lengths.
    """
    if length is None:
        seen = [n for n in range(4, MAX_LENGTH) if n not in HELD_OUT_LENGTHS]
        length = rng.choice(HELD_OUT_LENGTHS if split == "held_out" else seen)
    words = rng.sample(_POOLS[split], length)
    cut = rng.randrange(2, length)
    prompt = "".join(f" {word}" for word in words + words[:cut])
    return Example("induction", prompt, f" {words[cut]}", f" {words[cut - 2]}", tail="")


TASK = Task(
    "induction",
    "B C D E … B C D → E, on random words",
    "the words of the sequence, and its length",
    0.13,
    draw,
)
