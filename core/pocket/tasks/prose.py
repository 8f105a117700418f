"""Little stories: connected sentences about one character, with its pronouns kept straight."""

from __future__ import annotations

from random import Random

from .example import CONTEXT, Segment
from .words import ADJECTIVES, ANIMALS, COLORS, GIFTS, MEN, NAMES, OBJECTS, PLACES, ROOMS, WOMEN

SHARE = 0.06

# {n} name, {f} friend, {s}/{o}/{p}/{S} pronouns (she, her, her, She), {k} girl or boy, {a} animal,
# {x} object, {c} color, {j} adjective, {l} place, {r} room, {g} gift.
OPENINGS: tuple[str, ...] = (
    "Once upon a time, there was a {j} {k} named {n}.",
    "Once there was a {j} {k}. {S} was called {n}.",
    "{n} was a {j} {k}. {S} lived in a small house near the {l}.",
    "There once lived a {j} {k} named {n}, who had a {c} {a}.",
)
MIDDLES: tuple[tuple[str, ...], ...] = (
    (
        "One day, {s} went to the {l} and found a {c} {x}.",
        "{S} took the {x} home and put it in the {r}.",
        "Then {p} friend {f} came to see the {x}.",
        "{f} liked the {c} {x} very much.",
    ),
    (
        "{S} had a {a}, and the {a} was very {j}.",
        "Every morning {s} played with the {a} in the {r}.",
        "One day the {a} ran away, and {n} cried.",
        "{f} found the {a} near the {l} and brought it back to {o}.",
    ),
    (
        "One morning {n} wanted to go to the {l} with {p} friend {f}.",
        "It began to rain, so they went back into the house.",
        "They sat in the {r} and told each other stories about a {j} {a}.",
        "When the sun came out again, they walked to the {l}.",
    ),
    (
        "It was the birthday of {f}, and {n} looked for a {g}.",
        "{S} went to the {l}, but {s} did not find a {g} there.",
        "So {s} made a {g} out of a {c} {x}.",
        "{f} opened the {g} and smiled at {o}.",
    ),
)
ENDINGS: tuple[str, ...] = (
    "{n} was very happy.",
    "At night {s} slept well in {p} bed.",
    "{S} thanked {f}, and they were friends for ever.",
    "The end.",
    "And so {n} and {f} went home together.",
)


def story(rng: Random) -> str:
    """Six or so sentences about one character.

    >>> story(Random(3)) == story(Random(3))
    True
    """
    name, friend = rng.sample(NAMES, 2)
    she = name in WOMEN
    sentences = [rng.choice(OPENINGS), *rng.choice(MIDDLES), rng.choice(ENDINGS)]
    return " ".join(sentences).format(
        n=name,
        f=friend,
        s="she" if she else "he",
        S="She" if she else "He",
        o="her" if she else "him",
        p="her" if she else "his",
        k="girl" if she else "boy",
        a=rng.choice(ANIMALS),
        x=rng.choice(OBJECTS),
        c=rng.choice(COLORS),
        j=rng.choice(ADJECTIVES),
        l=rng.choice(PLACES),
        r=rng.choice(ROOMS),
        g=rng.choice(GIFTS),
    )


def document(rng: Random) -> list[Segment]:
    """A story as a training document."""
    return [(story(rng), CONTEXT)]


assert not set(WOMEN) & set(MEN)  # a name tells its pronoun
