"""Held-out examples sorted by kind: where a task has easier and harder cases."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

from .tasks import TASKS, Example, Split, binding, induction, ioi

_HIDDEN: Split = "held_out"


def detail_sets(n: int, seed: int) -> dict[str, list[Example]]:
    """``n`` examples of each kind, by a name for the model card."""
    draws: dict[str, partial[Example]] = {}
    for task in ("capitals", "landmarks"):
        draws[f"{task}, after another sentence"] = partial(_after_another, task=task)
    for first, order in ((False, "ABBA"), (True, "BABA")):
        draws[f"ioi, {order}"] = partial(ioi.draw, split=_HIDDEN, giver_first=first)
    for count in binding.COUNTS:
        draws[f"binding, {count} entities"] = partial(binding.draw, split=_HIDDEN, count=count)
    for first, order in ((False, "entity"), (True, "attribute")):
        for side, asked in ((True, "entity"), (False, "attribute")):
            draws[f"binding, {order} stated first, {asked} asked for"] = partial(
                binding.draw, split=_HIDDEN, ask_entity=side, attribute_first=first
            )
    for length in induction.HELD_OUT_LENGTHS:
        draws[f"induction, blocks of {length}"] = partial(
            induction.draw, split=_HIDDEN, length=length
        )
        draws[f"induction, blocks of {length}, words that training repeats"] = partial(
            induction.draw, split="train", length=length
        )
    return {name: _drawn(draw, Random(f"{name}/{seed}"), n) for name, draw in draws.items()}


def _drawn(draw: partial[Example], rng: Random, n: int) -> list[Example]:
    return [draw(rng) for _ in range(n)]


def _after_another(rng: Random, task: str) -> Example:
    """A fact in a held-out phrasing, after a sentence of some task."""
    other = rng.choice(("ioi", "agreement", "years", "capitals", "landmarks"))
    before = TASKS[other].draw(rng, "train").text
    example = TASKS[task].draw(rng, _HIDDEN)
    return replace(example, prompt=f"{before}\n{example.prompt}")
