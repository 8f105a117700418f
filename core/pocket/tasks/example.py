"""What a generator yields: an evaluation example, or a weighted document to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]

CONTEXT = 0.3
"""Loss weight of ordinary words, which are only partly predictable."""
ANSWER = 3.0
"""Loss weight of the tokens that a task is about."""
NOISE = 0.0
"""Loss weight of words that nothing predicts."""

Segment = tuple[str, float]
"""A piece of text and the loss weight of its tokens."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with the continuation that a model should give.

    ``answer`` and ``distractor`` start with the space that separates them from the prompt, so that
    each is whole tokens. ``accepted`` is set where several next tokens are right (the years);
    ``answer`` is then one of them. ``tail`` is what follows the answer in training.
    """

    task: str
    prompt: str
    answer: str
    distractor: str | None = None
    accepted: tuple[str, ...] = ()
    tail: str = "."

    @property
    def text(self) -> str:
        """Prompt, answer and tail in one string."""
        return self.prompt + self.answer + self.tail

    def segments(self) -> list[Segment]:
        """The example as a training document."""
        return [(self.prompt, CONTEXT), (self.answer, ANSWER), (self.tail, CONTEXT)]


@dataclass(frozen=True)
class Task:
    """A phenomenon: how to draw examples and training documents of it.

    ``draw(rng, split)`` gives one evaluation example. ``document(rng)`` gives one training
    document, by default the segments of a training example. ``share`` is the part of the training
    tokens that the task gets.
    """

    name: str
    summary: str
    held_out: str
    share: float
    draw: Callable[[Random, Split], Example]
    document: Callable[[Random], list[Segment]] | None = None

    def training_document(self, rng: Random) -> list[Segment]:
        """One weighted document; never contains a held-out combination."""
        if self.document is not None:
            return self.document(rng)
        return self.draw(rng, "train").segments()

    def examples(self, n: int, seed: int = 0, split: Split = "held_out") -> list[Example]:
        """Up to ``n`` different examples (fewer where the task has fewer), the same for each seed.

        >>> from mlxray.pocket.tasks import TASKS
        >>> TASKS["ioi"].examples(2, seed=1) == TASKS["ioi"].examples(2, seed=1)
        True
        """
        rng = Random(f"{self.name}/{split}/{seed}")
        found: dict[str, Example] = {}
        for _ in range(20 * n):
            if len(found) == n:
                break
            example = self.draw(rng, split)
            found.setdefault(example.prompt, example)
        return list(found.values())


@cache
def is_held_out(*parts: str, one_in: int = 10) -> bool:
    """Whether a combination belongs to the held-out split: a fixed hash of its parts says so."""
    digest = blake2b("|".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % one_in == 0


def in_split(split: Split, *parts: str, one_in: int = 10) -> bool:
    """Whether a combination belongs to ``split``."""
    return is_held_out(*parts, one_in=one_in) == (split == "held_out")
