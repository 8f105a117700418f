"""Entity–attribute binding: several facts are stated, one is asked for, from either side."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .example import ANSWER, CONTEXT, Example, Segment, Split, Task, in_split
from .words import ANIMALS, CITIES, COLORS, NAMES, OBJECTS, ROOMS


@dataclass(frozen=True)
class Schema:
    """One relation: how it is stated, and how each side of it is asked for.

    ``{0}`` is the entity, ``{1}`` the attribute. ``facts`` are two ways to state it: the entity
    first, and the attribute first. A question ends where its one-word answer begins. ``show``
    is a sentence that names the entity right after the attribute, and how it ends; only training
    has it, as the easy step towards ``ask_entity``.
    """

    name: str
    entities: tuple[str, ...]
    attributes: tuple[str, ...]
    facts: tuple[str, str]
    ask_entity: str
    ask_attribute: str
    show: tuple[str, str]


_THINGS = tuple(sorted(set(OBJECTS)))
SCHEMAS: tuple[Schema, ...] = (
    Schema(
        "has", NAMES, _THINGS, ("{0} has the {1}.", "The {1} belongs to {0}."),
        "Who has the {1}?", "What does {0} have? The", ("Here is the {1}", " has."),
    ),
    Schema(
        "room", NAMES, ROOMS, ("{0} is in the {1}.", "In the {1} is {0}."),
        "Who is in the {1}?", "Where is {0}? In the", ("Here is the {1}", " is in."),
    ),
    Schema(
        "city", NAMES, CITIES, ("{0} lives in {1}.", "The city of {1} is home to {0}."),
        "Who lives in {1}?", "Where does {0} live? In", ("This is {1}", "'s home."),
    ),
    Schema(
        "likes", NAMES, ANIMALS, ("{0} likes the {1}.", "The {1} is liked by {0}."),
        "Who likes the {1}?", "What does {0} like? The", ("Here is the {1}", " likes."),
    ),
    Schema(
        "color", _THINGS, COLORS, ("The {0} is {1}.", "The {1} thing is the {0}."),
        "Which thing is {1}? The", "What color is the {0}? It is", ("Here is the {1}", "."),
    ),
)  # fmt: skip
COUNTS: tuple[int, ...] = (2, 3, 4, 5, 6)
COUNT_WEIGHTS: tuple[float, ...] = (0.3, 0.25, 0.2, 0.15, 0.1)
"""How often training has so many entities."""
REVERSED = 0.4
"""Part of the documents whose facts name the attribute first."""
WAYS: tuple[float, float, float] = (0.4, 0.25, 0.35)
"""Parts of the questions in training that ask for the entity, for the attribute, or show."""


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
    attribute_first: bool | None = None,
) -> Example:
    """Some facts and one question; what is not given is drawn.

    The distractor is the answer to the same question about another of the stated facts.
    """
    schema = schema or rng.choice(SCHEMAS)
    count = count or rng.choice(COUNTS)
    if ask_entity is None:
        ask_entity = rng.random() < 0.5
    if attribute_first is None:
        attribute_first = rng.random() < REVERSED
    pairs = _pairs(rng, split, schema, count)
    facts = " ".join(schema.facts[attribute_first].format(*pair) for pair in pairs)
    asked, other = rng.sample(pairs, 2)
    question = (schema.ask_entity if ask_entity else schema.ask_attribute).format(*asked)
    side = 0 if ask_entity else 1
    return Example("binding", f"{facts} {question}", f" {asked[side]}", f" {other[side]}")


def document(rng: Random) -> list[Segment]:
    """Facts, then each of them asked for once, in one of the three ways."""
    schema = rng.choice(SCHEMAS)
    pairs = _pairs(rng, "train", schema, rng.choices(COUNTS, weights=COUNT_WEIGHTS)[0])
    fact = schema.facts[rng.random() < REVERSED]
    segments: list[Segment] = [(" ".join(fact.format(*pair) for pair in pairs), CONTEXT)]
    for asked in rng.sample(pairs, len(pairs)):
        kind = rng.choices((0, 1, 2), weights=WAYS)[0]
        question = (schema.ask_entity, schema.ask_attribute, schema.show[0])[kind].format(*asked)
        segments += [(f" {question}", CONTEXT), (f" {asked[kind % 2]}", ANSWER)]
        segments.append((schema.show[1] if kind == 2 else ".", CONTEXT))
    return segments


TASK = Task(
    "binding",
    "Ann has the apple. Bob has the pear. Who has the pear? → Bob",
    "pairs of entity and attribute",
    0.34,
    draw,
    document,
)
