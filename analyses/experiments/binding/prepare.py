"""Everything that is known before the first patch: pairs that the model answers rightly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import AnalysisError, InputError

from .encoding import EncodedPair, encode_pairs, usable_words
from .interchange import last_tokens
from .pairs import draw_pairs
from .run_result import BindingRun
from .schemas import BindingSchema

Exact = Literal["batched", "naive"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the experiment is asked for; see `binding_mechanisms`."""

    target: str | None
    entities: int
    samples: int
    layers: Sequence[int] | None
    positions: Sequence[int] | None
    queried: Sequence[int] | None
    causal: bool
    mixture: bool
    seed: int
    naive: bool
    budget: int
    verbose: bool


@dataclass(frozen=True)
class Task:
    """One model and task, ready to be patched.

    Attributes:
        model, settings: As given.
        run: The result, with nothing patched yet.
        pairs: Those that the model answers rightly, base and counterfactual.
        controlled: Whether it answers their control rightly too.
        heads: Heads of each layer, if they are to be patched; else 0.
    """

    model: InterpretableModel
    settings: Settings
    run: BindingRun
    pairs: list[EncodedPair]
    controlled: list[bool]
    heads: int


def prepare(model: InterpretableModel, schema: BindingSchema, settings: Settings) -> Task:
    """Draw the pairs and leave out what the unpatched model answers wrongly.

    Raises:
        InputError: if the task does not fit the model; see `binding_mechanisms`.
        AnalysisError: if the model answers no pair rightly.
    """
    target = schema.target(settings.target)
    words = usable_words(model, schema)
    layers = model.layer_indices(settings.layers)
    heads = _heads(model, layers) if settings.causal else 0
    drawn = _draw(model, schema, target, words, settings)
    positions = _from_the_end(drawn, settings.positions)
    base = _right(model, [(e.base, e.candidates[e.pair.asked]) for e in drawn])
    changed = _right(model, [(e.counterfactual, e.candidates[e.pair.reflexive]) for e in drawn])
    control = _right(model, [(e.control, e.absent) for e in drawn])
    kept = [i for i in range(len(drawn)) if base[i] and changed[i]]
    accuracy, changed_accuracy = sum(base) / len(drawn), sum(changed) / len(drawn)
    if not kept:
        pair = drawn[0].pair
        raise AnalysisError(
            f"{model.name} answers {accuracy:.0%} of {len(drawn)} base prompts of {schema.name!r} "
            f"and {changed_accuracy:.0%} of the counterfactuals rightly, and both in no pair: "
            f"there is nothing to patch. The first prompt: {pair.base!r} → "
            f"{pair.candidates[pair.asked]!r}. Pass fewer entities, or a schema whose wording "
            "the model knows."
        )
    pairs = [drawn[i] for i in kept]
    run = BindingRun(
        model=model.name,
        schema=schema.name,
        target=target,
        entities=settings.entities,
        words={role: len(known) for role, known in words.items()},
        example=(pairs[0].pair.base, pairs[0].pair.counterfactual),
        drawn=len(drawn),
        accuracy=accuracy,
        counterfactual_accuracy=changed_accuracy,
        layers=layers,
        positions=positions,
        queried=[e.pair.positional for e in pairs],
        followed=mx.zeros((len(pairs), len(positions), len(layers)), dtype=mx.int32),
    )
    return Task(model, settings, run, pairs, [control[i] for i in kept], heads)


def _draw(
    model: InterpretableModel,
    schema: BindingSchema,
    target: str,
    words: dict[str, tuple[str, ...]],
    settings: Settings,
) -> list[EncodedPair]:
    try:
        pairs = draw_pairs(
            schema,
            target,
            words,
            entities=settings.entities,
            samples=settings.samples,
            seed=settings.seed,
            queried=settings.queried,
        )
        return encode_pairs(model, pairs)
    except InputError as error:
        raise InputError(f"{model.name}, task {schema.name!r}: {error}") from error


def _right(model: InterpretableModel, rows: list[tuple[list[int], int]]) -> list[bool]:
    """Whether the model's first choice behind each prompt is the answer."""
    tops = last_tokens(model, [ids for ids, _ in rows])
    return [top == answer for top, (_, answer) in zip(tops, rows, strict=True)]


def _heads(model: InterpretableModel, layers: list[int]) -> int:
    for layer in layers:
        model.layout.site(("z", layer))
    counts = {model.layout.heads(layer) for layer in layers}
    if len(counts) > 1:
        raise InputError(
            f"the layers differ in their number of heads ({sorted(counts)}); pass layers that "
            "have the same."
        )
    return counts.pop()


def _from_the_end(drawn: list[EncodedPair], positions: Sequence[int] | None) -> list[int]:
    """The positions as negative numbers, which mean the same in prompts of any length.

    Raises:
        InputError: if there are none, or one is past a prompt's beginning.
    """
    shortest = min(len(e.base) for e in drawn)
    found = list(range(-shortest, 0)) if positions is None else list(dict.fromkeys(positions))
    if not found or any(not -shortest <= p < 0 for p in found):
        raise InputError(
            f"positions count from the end, -1 (the last) to {-shortest}; got {found}."
        )
    return found
