"""Pairs of prompts on which the three mechanisms disagree.

Number the groups of the base prompt from 0: one fact each. The base asks about group *b*. The
counterfactual is made of the same words, in the same places but for two exchanges, and asks about
another group *p*:

- the words that the question names (the *query entities*) of group *p* change places with those
  of group *l*;
- the word that is asked for (the *target entity*) of group *p* changes places with that of
  group *r*.

So what the counterfactual's last token holds is the position *p*, the query entity of the base's
group *l*, and the target entity of the base's group *r*. Put into the base run, the positional
mechanism answers with the target of *p*, the lexical one with that of *l*, the reflexive one with
that of *r*, and a patch without effect leaves that of *b*: four different words.

In the control the target entity of *p* is a word that the base prompt does not have. A pointer to
it leads nowhere there; what answers with it nevertheless carries the answer itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from mlxray.errors import InputError

from .schemas import BindingSchema

#: Base, positional, lexical and reflexive group are four different ones.
FEWEST = 4


@dataclass(frozen=True)
class Pair:
    """A base prompt, its counterfactual and its control.

    Attributes:
        base, counterfactual, control: Prompts; the answer comes next.
        candidates: Target entities of the base's groups, in their order: the possible answers.
        asked: Group *b* that the base asks about.
        positional, lexical, reflexive: Groups *p*, *l*, *r* that the mechanisms point to.
        absent: The control's own answer, which the base does not have.
    """

    base: str
    counterfactual: str
    control: str
    candidates: tuple[str, ...]
    asked: int
    positional: int
    lexical: int
    reflexive: int
    absent: str

    @property
    def pointed(self) -> tuple[int, int, int]:
        """(positional, lexical, reflexive)."""
        return self.positional, self.lexical, self.reflexive


def room(known: Sequence[str], role: str, target: str) -> int:
    """How many groups the words of a role are enough for."""
    return len(set(known)) - (role == target)


def draw_pairs(
    schema: BindingSchema,
    target: str,
    words: Mapping[str, Sequence[str]],
    *,
    entities: int,
    samples: int,
    seed: int,
    queried: Sequence[int] | None = None,
) -> list[Pair]:
    """Pairs of prompts, the same for the same seed.

    Args:
        schema, target: The task and the role asked for.
        words: Role → words to draw from.
        entities: Groups in a prompt.
        samples: How many pairs.
        seed: Of the drawing.
        queried: Groups *p* that the counterfactual asks about, equally often; None for all. The
            other three groups are drawn.

    Raises:
        InputError: if numbers are too small or the words are not enough.
    """
    if entities < FEWEST:
        raise InputError(
            f"the mechanisms need {FEWEST} groups to point to different ones; got "
            f"entities={entities}."
        )
    if samples < 1:
        raise InputError(f"samples is at least 1; got {samples}.")
    for role, known in words.items():
        needed = entities + (role == target)
        if len(set(known)) < needed:
            spare = ", one of them for the control" if role == target else ""
            most = room(known, role, target)
            fewer = f"entities={most} or fewer, or " if most >= FEWEST else ""
            raise InputError(
                f"{entities} groups need {needed} different words for {role!r}{spare}; "
                f"{len(set(known))} remain without those that are several tokens. Pass {fewer}"
                "a schema with words that the model has as tokens."
            )
    places = list(range(entities)) if queried is None else list(queried)
    if not places or any(not 0 <= p < entities for p in places):
        raise InputError(f"queried groups are from 0 to {entities - 1}; got {places}.")
    rng = Random(f"binding/{schema.name}/{target}/{entities}/{seed}")
    return [
        _draw(rng, schema, target, words, entities, places[i % len(places)]) for i in range(samples)
    ]


def _draw(
    rng: Random,
    schema: BindingSchema,
    target: str,
    words: Mapping[str, Sequence[str]],
    entities: int,
    positional: int,
) -> Pair:
    drawn: dict[str, list[str]] = {}
    for role, known in words.items():
        # No word stands in two roles of one prompt: it would answer for both.
        taken = {word for row in drawn.values() for word in row}
        free = sorted(set(known) - taken)
        needed = entities + (role == target)
        if len(free) < needed:
            raise InputError(
                f"words for {role!r} that no other role has are too few for {entities} groups."
            )
        drawn[role] = rng.sample(free, needed)
    absent = drawn[target].pop()
    base = {role: tuple(row) for role, row in drawn.items()}
    others = [group for group in range(entities) if group != positional]
    asked, lexical, reflexive = rng.sample(others, 3)
    changed = dict(base)
    for role in schema.asked_by(target):
        changed[role] = _exchanged(base[role], positional, lexical)
    changed[target] = _exchanged(base[target], positional, reflexive)
    control = dict(changed)
    row = list(base[target])
    row[positional] = absent
    control[target] = tuple(row)
    return Pair(
        _prompt(schema, base, target, asked),
        _prompt(schema, changed, target, positional),
        _prompt(schema, control, target, positional),
        base[target],
        asked,
        positional,
        lexical,
        reflexive,
        absent,
    )


def _exchanged(row: tuple[str, ...], one: int, other: int) -> tuple[str, ...]:
    made = list(row)
    made[one], made[other] = row[other], row[one]
    return tuple(made)


def _prompt(
    schema: BindingSchema, table: Mapping[str, tuple[str, ...]], target: str, group: int
) -> str:
    count = len(table[target])
    rows = [{role: words[i] for role, words in table.items()} for i in range(count)]
    return schema.prompt(list(rows), target, rows[group])
