"""Subject–verb agreement past an attractor: the verb agrees with the head noun, not the nearest."""

from __future__ import annotations

from random import Random

from .example import ANSWER, CONTEXT, Example, Segment, Split, Task, in_split
from .words import ATTRACTORS, HEADS, PREPOSITIONS, STATES

VERBS: tuple[tuple[str, str], ...] = ((" is", " are"), (" was", " were"))


def _phrase(rng: Random, split: Split) -> tuple[str, int]:
    """``"keys to the cabinet"`` and the number of its head (0 singular, 1 plural)."""
    while True:
        head, attractor = rng.choice(HEADS), rng.choice(ATTRACTORS)
        if in_split(split, "agreement", head[0], attractor[0]):
            break
    number = rng.randrange(2)
    # Evaluation asks for the hard case; training also shows nouns that agree.
    other = 1 - number if split == "held_out" or rng.random() < 0.6 else number
    return f"{head[number]} {rng.choice(PREPOSITIONS)} the {attractor[other]}", number


def draw(rng: Random, split: Split) -> Example:
    """One sentence up to its verb: ``The keys to the cabinet`` → ``are``, not ``is``."""
    phrase, number = _phrase(rng, split)
    verbs = VERBS[0] if split == "held_out" or rng.random() < 0.75 else VERBS[1]
    tail = f" {rng.choice(STATES)}."
    return Example("agreement", f"The {phrase}", verbs[number], verbs[1 - number], tail=tail)


def document(rng: Random) -> list[Segment]:
    """A sentence to train on; one in eight has a second phrase between head and verb."""
    example = draw(rng, "train")
    if rng.random() < 0.125:
        noun = rng.choice(rng.choice(ATTRACTORS))
        prompt = f"{example.prompt} {rng.choice(PREPOSITIONS)} the {noun}"
        return [(prompt, CONTEXT), (example.answer, ANSWER), (example.tail, CONTEXT)]
    return example.segments()


TASK = Task(
    "agreement",
    "The keys to the cabinet → are",
    "pairs of head noun and attractor",
    0.04,
    draw,
    document,
)
