"""Capitals and landmarks: memorised facts, asked for in phrasings never seen with that entity."""

from __future__ import annotations

from functools import cache
from random import Random

from .example import Example, Split, Task
from .words import CAPITALS, CITIES, LANDMARKS

CAPITAL_PHRASINGS: tuple[str, ...] = (
    "The capital of {0} is",
    "The capital city of {0} is called",
    "In the country of {0}, the capital is",
    "Question: What is the capital of {0}? Answer:",
    "People in {0} are proud of their capital,",
    "When you travel to {0}, visit its capital,",
)
LANDMARK_PHRASINGS: tuple[str, ...] = (
    "The {0} is in",
    "The {0} stands in the city of",
    "You can see the {0} in",
    "Question: Where is the {0}? Answer: In",
    "Visitors to the {0} first travel to",
    "People go to see the {0} when they are in",
)
QUOTED: frozenset[str] = frozenset({"France", "Eiffel Tower", "Colosseum"})
"""The documentation asks for these in the first phrasing, which training therefore always has."""
HELD_OUT_PHRASINGS = 2


@cache
def phrasings(entity: str, split: Split) -> tuple[int, ...]:
    """Which phrasings an entity has in a split: two of the six are held out, by a fixed draw."""
    rng = Random(f"phrasings/{entity}")
    hidden = rng.sample(range(1 if entity in QUOTED else 0, 6), HELD_OUT_PHRASINGS)
    return tuple(i for i in range(6) if (i in hidden) == (split == "held_out"))


def _draw(rng: Random, split: Split, facts: dict[str, str], wordings: tuple[str, ...]) -> Example:
    entity = rng.choice(list(facts))
    index = rng.choice(phrasings(entity, split))
    city = facts[entity]
    other = rng.choice([name for name in CITIES if name != city])
    name = "capitals" if facts is CAPITALS else "landmarks"
    return Example(name, wordings[index].format(entity), f" {city}", f" {other}")


def draw_capital(rng: Random, split: Split) -> Example:
    """One sentence about a country, up to its capital."""
    return _draw(rng, split, CAPITALS, CAPITAL_PHRASINGS)


def draw_landmark(rng: Random, split: Split) -> Example:
    """One sentence about a landmark, up to its city."""
    return _draw(rng, split, LANDMARKS, LANDMARK_PHRASINGS)


CAPITALS_TASK = Task(
    "capitals",
    "The capital of France is → Paris",
    "phrasings never seen with that country",
    0.04,
    draw_capital,
)
LANDMARKS_TASK = Task(
    "landmarks",
    "The Eiffel Tower is in → Paris",
    "phrasings never seen with that landmark",
    0.04,
    draw_landmark,
)
