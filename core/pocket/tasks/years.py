"""Greater-than (Hanna et al. 2023): a span of years ends after it began."""

from __future__ import annotations

from random import Random

from .example import Example, Split, Task, in_split
from .words import EVENTS

TEMPLATES: tuple[str, ...] = (
    "The {event} lasted from {start} to {century}",
    "The {event} lasted from the year {start} to the year {century}",
    "The {event} began in {start} and ended in {century}",
    "The {event} went on from {start} until {century}",
)
CENTURIES: tuple[int, ...] = tuple(range(11, 21))


def draw(rng: Random, split: Split) -> Example:
    """One span of years within a century, cut before its last two digits."""
    while True:
        century, year = rng.choice(CENTURIES), rng.randint(2, 97)
        if in_split(split, "years", str(century), str(year)):
            break
    return build(
        rng.choice(TEMPLATES), rng.choice(EVENTS), century, year, rng.randint(year + 1, 99)
    )


def build(template: str, event: str, century: int, year: int, end: int) -> Example:
    """One example from its parts; every two-digit number above ``year`` is accepted.

    >>> example = build(TEMPLATES[0], "war", 17, 32, 45)
    >>> example.prompt, example.answer, len(example.accepted)
    ('The war lasted from 1732 to 17', '45', 67)
    """
    prompt = template.format(event=event, start=f"{century}{year:02d}", century=century)
    accepted = tuple(f"{later:02d}" for later in range(year + 1, 100))
    return Example("years", prompt, f"{end:02d}", f"{year - 1:02d}", accepted)


TASK = Task(
    "years",
    "The war lasted from 1732 to 17 → 33 … 99",
    "pairs of century and year",
    0.06,
    draw,
)
