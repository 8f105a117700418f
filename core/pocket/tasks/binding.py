"""Entity–attribute binding: several facts are stated, one is asked for, from either side."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..words import ANIMALS, CITIES, COLORS, NAMES, OBJECTS, ROOMS
from .example import ANSWER, CONTEXT, Example, Segment, Split, Task, in_split


@dataclass(frozen=True)
class Schema:
    """One relation: how it is stated, and how each side of it is asked for.

    A question ends where its one-word answer begins.
    """

    name: str
    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    fact: str
    ask_entity: str
    ask_attribute: str


_THINGS = tuple(sorted(set(OBJECTS)))
SCHEMAS: tuple[Schema, ...] = (
    Schema("has", NAMES, _THINGS, "{0} has the {1}.", "Who has the {1}?", "What does {0} have? The"),
    Schema("room", NAMES, ROOMS, "{0} is in the {1}.", "Who is in the {1}?", "Where is {0}? In the"),
    Schema("city", NAMES, CITIES, "{0} lives in {1}.", "Who lives in {1}?", "Where does {0} live? In"),
    Schema(
        "likes", NAMES, ANIMALS, "{0} likes the {1}.", "Who likes the {1}?",
        "What does {0} like? The",
    ),
    Schema(
        "color", _THINGS, COLORS, "The {0} is {1}.", "Which thing is {1}? The",
        "What color is the {0}? It is",
    ),
)  # fmt: skip
COUNTS: tuple[int, ...] = (2, 3, 4, 5, 6)


def _pairs(rng: Random, split: Split, schema: Schema, count: int) -> list[tuple[str, str]]:
    """``count`` entities with different attributes, every pair of them in ``split``."""
    while True:
        entities = rng.sample(schema.entities, count)
        free = list(schema.attributes)
        rng.shuffle(free)
        pairs: list[tuple[str, str]] = []
        for entity in entities:
            match = next((a for a in free if in_split(split, schema.name, entity, a)), None)
            if match is None:
                break
            free.remove(match)
            pairs.append((entity, match))
        if len(pairs) == count:
            return pairs


def draw(
    rng: Random,
    split: Split,
    *,
    schema: Schema | None = None,
    count: int | None = None,
    ask_entity: bool | None = None,
) -> Example:
    """Some facts and one question; what is not given is drawn.

    The distractor is the answer to the same question about another of the stated facts.
    """
    schema = schema or rng.choice(SCHEMAS)
    count = count or rng.choice(COUNTS)
    if ask_entity is None:
        ask_entity = rng.random() < 0.5
    pairs = _pairs(rng, split, schema, count)
    facts = " ".join(schema.fact.format(*pair) for pair in pairs)
    asked, other = rng.sample(pairs, 2)
    question = (schema.ask_entity if ask_entity else schema.ask_attribute).format(*asked)
    side = 0 if ask_entity else 1
    return Example("binding", f"{facts} {question}", f" {asked[side]}", f" {other[side]}")


def document(rng: Random) -> list[Segment]:
    """Facts, then a question about each of them; who has something is asked more often.

    (Finding what was said *before* the word that one looks for is the harder direction.)
    """
    schema = rng.choice(SCHEMAS)
    pairs = _pairs(rng, "train", schema, rng.choice(COUNTS))
    segments: list[Segment] = [(" ".join(schema.fact.format(*pair) for pair in pairs), CONTEXT)]
    for asked in rng.sample(pairs, len(pairs)):
        side = 0 if rng.random() < 0.65 else 1
        question = (schema.ask_entity, schema.ask_attribute)[side].format(*asked)
        segments += [(f" {question}", CONTEXT), (f" {asked[side]}", ANSWER), (".", CONTEXT)]
    return segments


TASK = Task(
    "binding",
    "Ann has the apple. Bob has the pear. Who has the pear? → Bob",
    "pairs of entity and attribute",
    0.34,
    draw,
    document,
)
