"""Lists of words that are said twice.

Every word is copied here now and then, also those that the random sequences of `induction.py`
hold out.
"""

from __future__ import annotations

from random import Random

from .example import NOISE, Segment
from .words import spaced_words

SHARE = 0.06
COPIED = 1.0

FRAMES: tuple[tuple[str, str], ...] = (
    ("Remember these words:", ". The words were:"),
    ("Say after me:", ". I said:"),
    ("My list:", ". Your list:"),
)
_WORDS: tuple[str, ...] = tuple(spaced_words())


def document(rng: Random) -> list[Segment]:
    """``Remember these words: key, fox, Rome. The words were: key, fox, Rome.``"""
    before, between = rng.choice(FRAMES)
    words = rng.sample(_WORDS, rng.randint(2, 8))
    listed = ",".join(f" {word}" for word in words)
    return [(before, COPIED / 2), (listed, NOISE), (between, COPIED / 2), (f"{listed}.", COPIED)]
