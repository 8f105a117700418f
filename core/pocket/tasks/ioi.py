"""Indirect-object identification (Wang et al. 2022): the name that was mentioned only once."""

from __future__ import annotations

from random import Random

from .example import Example, Split, Task, in_split
from .words import GIFTS, NAMES, PLACES

# {A}, {B}: the two names in order of mention; {S}: the one who acts.
TEMPLATES: tuple[str, ...] = (
    "When {A} and {B} went to the {place}, {S} gave a {gift} to",
    "After {A} and {B} went to the {place}, {S} gave a {gift} to",
    "While {A} and {B} were at the {place}, {S} handed a {gift} to",
    "One day {A} and {B} met at the {place}. {S} passed a {gift} to",
    "{A} and {B} went to the {place}. Later {S} offered a {gift} to",
    "Then {A} and {B} had a long talk at the {place}. Afterwards {S} said hello to",
    "Once {A} and {B} had found a {gift} at the {place}, {S} decided to give it to",
    "{A} and {B} worked at the {place}. At the end of the day {S} brought a {gift} to",
)


def draw(rng: Random, split: Split, *, giver_first: bool | None = None) -> Example:
    """One sentence; the acting name is the first (BABA) or the second (ABBA) with equal chance."""
    if giver_first is None:
        giver_first = rng.random() < 0.5
    while True:
        first, second = rng.sample(NAMES, 2)
        if in_split(split, "ioi", *sorted((first, second))):
            break
    return build(
        rng.choice(TEMPLATES),
        first,
        second,
        giver_first=giver_first,
        place=rng.choice(PLACES),
        gift=rng.choice(GIFTS),
    )


def build(
    template: str, first: str, second: str, *, giver_first: bool, place: str, gift: str
) -> Example:
    """One example from its parts, for those who make pairs of prompts.

    >>> build(TEMPLATES[0], "Mary", "John", giver_first=False, place="store", gift="drink").prompt
    'When Mary and John went to the store, John gave a drink to'
    """
    giver, receiver = (first, second) if giver_first else (second, first)
    prompt = template.format(A=first, B=second, S=giver, place=place, gift=gift)
    return Example("ioi", prompt, f" {receiver}", f" {giver}")


TASK = Task(
    "ioi",
    "When Mary and John went to the store, John gave a drink to → Mary",
    "pairs of names",
    0.11,
    draw,
)
