"""Steering and swapping on a prompt, always beside random changes of the same size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import evaluate, nested
from mlxray.checks.arguments import count
from mlxray.errors import AnalysisError, EditChangedNothing
from mlxray.generation import Where
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Edit

from ...datasets.targets import Token, token_id
from ...prompts import one_prompt, token_texts
from .apply import opened
from .concept_edit_result import ConceptEditResult
from .edits import Pair, steering, swapping
from .jacobian_lens_result import JacobianLens


@analysis(result=ConceptEditResult)
def jacobian_steer(
    model: InterpretableModel,
    text: Any,
    lens: JacobianLens | str | Path,
    concept: Token,
    strength: float = 0.5,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    answer: Token | None = None,
    controls: int = 16,
    seed: int = 0,
) -> ConceptEditResult:
    """Push a prompt's stream towards a token, in the Jacobian lens' direction for it.

    The score is the log-probability of the answer as the next token.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        lens: A Jacobian lens, or its file.
        concept: The token that the stream is pushed towards; see `steering`.
        strength: In units of each token's own norm.
        layers: Where; None for the lens' layers in the middle of the model.
        positions: At which tokens; None for all, negative ones count from the end.
        answer: The token that is scored; None for the concept itself.
        controls: Runs with random directions of the same size.
        seed: Of these.

    Raises:
        InputError: if an argument is out of range, or the lens does not fit the model.
        AddressError: if the lens was not fitted at one of the layers.
        PointAbsent: if the model has no single residual stream.
    """
    lens = opened(model, lens)
    edits = steering(model, lens, concept, strength, layers=layers, where=_where(positions))
    scored = token_id(model, concept if answer is None else answer)

    def score(logits: mx.array) -> mx.array:
        return logits[:, scored] - mx.logsumexp(logits, axis=-1)

    name = f"log p({token_texts(model, [scored])[0]!r})"
    result = _measured(model, text, "steer", edits, [scored], score, name, controls, seed)
    # A summary of the lens in place of its matrices.
    result.metadata["parameters"] = {
        "text": text,
        "lens": lens.summary(),
        "concept": concept,
        "strength": strength,
        "positions": positions,
        "answer": answer,
        "controls": controls,
        "seed": seed,
    }
    return result


@analysis(result=ConceptEditResult)
def jacobian_swap(
    model: InterpretableModel,
    text: Any,
    lens: JacobianLens | str | Path,
    source: Token,
    target: Token,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    source_answer: Token | None = None,
    target_answer: Token | None = None,
    both_ways: bool = False,
    controls: int = 16,
    seed: int = 0,
) -> ConceptEditResult:
    """Exchange two tokens' coordinates in a prompt's stream, as the Jacobian lens finds them.

    The score is the logit of the target's answer less that of the source's.

    Args:
        model, text, lens, layers, positions, controls, seed: As in `jacobian_steer`.
        source: The token whose place is taken where it leads; see `swapping`.
        target: The token that takes it.
        source_answer, target_answer: The tokens that are scored, such as the capitals of two
            countries that are swapped; None for `source` and `target` themselves.
        both_ways: Exchange whichever leads, at one layer only; see `swapping`.

    Raises:
        InputError: if an argument is out of range, or the lens does not fit the model.
        AddressError: if the lens was not fitted at one of the layers.
        EditChangedNothing: if the target leads everywhere already.
        PointAbsent: if the model has no single residual stream.
    """
    lens = opened(model, lens)
    edits = swapping(
        model, lens, source, target, layers=layers, where=_where(positions), both_ways=both_ways
    )
    first = token_id(model, source if source_answer is None else source_answer)
    second = token_id(model, target if target_answer is None else target_answer)

    def score(logits: mx.array) -> mx.array:
        return logits[:, second] - logits[:, first]

    names = token_texts(model, [first, second])
    name = f"logit({names[1]!r}) − logit({names[0]!r})"
    result = _measured(model, text, "swap", edits, [first, second], score, name, controls, seed)
    result.metadata["parameters"] = {
        "text": text,
        "lens": lens.summary(),
        "source": source,
        "target": target,
        "positions": positions,
        "source_answer": source_answer,
        "target_answer": target_answer,
        "both_ways": both_ways,
        "controls": controls,
        "seed": seed,
    }
    return result


def _where(positions: Sequence[int] | None) -> Where | None:
    return None if positions is None else Where(positions=positions)


class _Recorded:
    """An edit that notes the length of the change and of the stream, token by token."""

    def __init__(self, edit: Callable[..., Any]) -> None:
        self.edit = edit
        self.change = self.stream = mx.array(0.0)

    def __call__(self, activation: mx.array) -> mx.array:
        edited: mx.array = self.edit(activation)
        before = activation.astype(mx.float32)
        after = edited.astype(mx.float32)
        self.change = mx.linalg.norm(after - before, axis=-1, keepdims=True)
        self.stream = mx.linalg.norm(before, axis=-1, keepdims=True)
        return edited


class _Random:
    """Adds to each row a direction of its own, each token's as long as the edit's change was."""

    def __init__(self, change: mx.array, rows: int, width: int, key: mx.array) -> None:
        drawn = mx.random.normal((rows, 1, width), key=key)
        self.added = change * drawn / mx.linalg.norm(drawn, axis=-1, keepdims=True)
        evaluate(self.added)

    def __call__(self, activation: mx.array) -> mx.array:
        return (activation.astype(mx.float32) + self.added).astype(activation.dtype)


def _measured(
    model: InterpretableModel,
    text: Any,
    kind: str,
    edits: Sequence[Pair],
    watched: Sequence[int],
    score: Callable[[mx.array], mx.array],
    score_name: str,
    controls: int,
    seed: int,
) -> ConceptEditResult:
    """The clean run, the edited one and the controls, at the prompt's last token."""
    controls = count(controls, "controls")
    batch, _ = one_prompt(model, text)
    clean = _last_logits(model, batch.ids, [])
    recorded = {place: _Recorded(_inner(edit)) for place, edit in edits}
    edited = _last_logits(model, batch.ids, _as(edits, recorded))
    evaluate([(r.change, r.stream) for r in recorded.values()])
    changes = {place: r.change for place, r in recorded.items()}
    if not any(nested(change.max()) > 0 for change in changes.values()):
        raise EditChangedNothing(
            f"the {kind} changed nothing: at layers {[_layer(p) for p in changes]} the target "
            "leads the source at every position. Swap the other way round, or at other layers."
        )
    keys = mx.random.split(mx.random.key(seed), len(edits))
    width = model.watch([0], "resid_post", [0])[0].shape[-1]
    random = {
        place: _Random(change, controls, width, key)
        for (place, change), key in zip(changes.items(), keys, strict=True)
    }
    ids = mx.broadcast_to(batch.ids, (controls, batch.ids.shape[1]))
    others = _last_logits(model, ids, _as(edits, random))
    runs = (clean, edited, others)
    scores = [nested(score(logits)) for logits in runs]
    if not all(abs(value) < float("inf") for values in scores for value in values):
        raise AnalysisError(f"the model's logits are not finite in one of the runs: {scores}.")
    some = mx.array(list(watched))
    found = [mx.softmax(logits, axis=-1)[:, some].mean(axis=0) for logits in runs]
    tops = token_texts(model, [int(nested(logits[0].argmax())) for logits in (clean, edited)])
    return ConceptEditResult(
        edit=kind,
        score_name=score_name,
        clean_score=scores[0][0],
        edited_score=scores[1][0],
        control_scores=scores[2],
        watched=token_texts(model, watched),
        clean_probabilities=nested(found[0]),
        edited_probabilities=nested(found[1]),
        control_probabilities=nested(found[2]),
        clean_answer=tops[0],
        edited_answer=tops[1],
        layers=[_layer(place) for place in changes],
        sizes={_layer(p): nested((r.change / r.stream).mean()) for p, r in recorded.items()},
        reach={_layer(p): nested((c > 0).astype(mx.float32).mean()) for p, c in changes.items()},
    )


def _last_logits(model: InterpretableModel, ids: mx.array, edits: Sequence[Pair]) -> mx.array:
    """Logits (B, V) of the last position, float32, evaluated."""
    layout = model.layout
    run = Run(layout, edits=[Edit(place, edit) for place, edit in edits])
    logits = execute_at(run, ids, [ids.shape[1] - 1])[:, 0].astype(mx.float32)
    run.settle(logits)
    return logits


def _inner(edit: Any) -> Callable[..., Any]:
    """The edit within a `Where`, which a run looks at from outside."""
    inner: Callable[..., Any] = getattr(edit, "fn", edit)
    return inner


def _as(edits: Sequence[Pair], others: dict[str, Any]) -> list[Pair]:
    """Other edits at the same places and positions; they are judged by what they did together."""
    pairs: list[Pair] = []
    for place, edit in edits:
        other = others[place]
        other.may_change_nothing = True
        pairs.append((place, edit.where.edit(other) if hasattr(edit, "where") else other))
    return pairs


def _layer(place: str) -> int:
    return int(place.split(".")[1])


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Edits in the coordinates of a Jacobian lens."""
    return [jacobian_steer, jacobian_swap]
