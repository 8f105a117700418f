"""Binding mechanisms: how a model finds the entity that belongs to another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError, nearest

from ...patching.sweep import DEFAULT_BUDGET
from .library import SCHEMAS
from .measure import measure
from .prepare import Exact, Settings, prepare
from .result import BindingResult
from .schemas import BindingSchema, find_schema


@analysis(result=BindingResult)
def binding_mechanisms(
    model: InterpretableModel,
    schema: str | BindingSchema = "has",
    target: str | None = None,
    entities: int = 5,
    samples: int = 120,
    *,
    compare: Sequence[str | BindingSchema | InterpretableModel] = (),
    causal: bool = False,
    mixture: bool = True,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = (-1,),
    queried: Sequence[int] | None = None,
    seed: int = 0,
    exact: Exact = "batched",
    budget: int = DEFAULT_BUDGET,
    verbose: bool = False,
) -> BindingResult:
    """Which mechanism retrieves a bound entity: positional, lexical or reflexive.

    After Gur-Arieh, Geva and Geiger 2025 (arXiv:2510.06182). Facts are stated ("Ann has the apple.
    Bob has the pear. …") and one is asked for. The last token's residual stream of a
    counterfactual prompt is put into the base run, layer by layer. The two prompts are made so
    that the position of the group asked for, the word that asks and the word that answers point
    to three different groups of the base prompt, none of them the one that the base asks about:
    what the patched run answers says which of them it goes by. See
    `mlxray.analyses.experiments.binding.pairs` for the construction.

    At late layers the stream holds the answer itself, which looks like the reflexive mechanism.
    Control runs, whose answer the base prompt does not have, tell the two apart: a pointer to a
    word that is not there finds nothing.

    Args:
        model: The model.
        schema: Name of a built-in task, path of a ``.json`` file, or a `BindingSchema`.
        target: Role that is asked for; the schema's first question if left out.
        entities: Facts in a prompt, at least 4.
        samples: Pairs of prompts to draw. Those that the unpatched model answers wrongly, base or
            counterfactual, are left out and counted.
        compare: More models or tasks, each run beside the first: a task's name or schema runs on
            `model`, a model (or its name) does the task `schema`. A task that does not ask for
            `target` asks its first question.
        causal: Patch each head's ``z`` at the last position too, and see which heads move the
            answer towards each mechanism's.
        mixture: Fit the mixture model of the paper to the patched distributions.
        layers: Layers to patch; None for all.
        positions: Positions to patch, one at a time, counted from the end; None for all. The
            mixture, the control and the heads are about the last one.
        queried: Groups that the counterfactual asks about, equally often; None for all.
        seed: Of the drawing, and of the distributions that the mixture is tested on.
        exact: "batched", or "naive" for one full forward pass per patched run, to check.
        budget: Bytes that the activations of one pass may take.
        verbose: Say what the run takes, and show its progress.

    Raises:
        InputError: for an unknown schema or role, a single thing to compare with that is not in
            a list, too many entities for the words or the context, or answers of several tokens.
        AnalysisError: if the model answers no pair of prompts rightly.
    """
    if exact not in get_args(Exact):
        raise InputError(f"exact={exact!r}: {nearest(str(exact), get_args(Exact))}")
    if isinstance(compare, (str, BindingSchema, InterpretableModel)):
        shown = repr(compare) if isinstance(compare, str) else "…"
        raise InputError(f"compare is a list: write compare=[{shown}].")
    for name, value in (("entities", entities), ("samples", samples)):
        if not hasattr(value, "__index__"):
            raise InputError(f"{name} is a whole number; got {value!r}.")
    settings = Settings(
        target=target,
        entities=entities,
        samples=samples,
        layers=layers,
        positions=positions,
        queried=queried,
        causal=causal,
        mixture=mixture,
        seed=seed,
        naive=exact == "naive",
        budget=budget,
        verbose=verbose,
    )
    first = find_schema(schema, SCHEMAS)
    others = [_compared(model, first, other) for other in compare]
    tasks = [prepare(model, first, settings)]
    for who, what in others:
        asks = target if target in what.questions else None
        tasks.append(prepare(who, what, replace(settings, target=asks)))
    return BindingResult([measure(task) for task in tasks])


def _compared(
    model: InterpretableModel,
    schema: BindingSchema,
    other: str | BindingSchema | InterpretableModel,
) -> tuple[InterpretableModel, BindingSchema]:
    if isinstance(other, InterpretableModel):
        return other, schema
    if isinstance(other, BindingSchema):
        return model, other
    if not isinstance(other, str):
        raise InputError(f"compare takes models and tasks; got {type(other).__name__}.")
    if other in SCHEMAS or other.endswith(".json"):
        return model, find_schema(other, SCHEMAS)
    return InterpretableModel(other), schema


@hookimpl
def mlxray_analyses() -> list[Analysis[..., BindingResult]]:
    """Binding mechanisms."""
    return [binding_mechanisms]
