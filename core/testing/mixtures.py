"""Mixtures of experts: the MLP is the weighted sum of what its experts answer."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from .grafts import grafted
from .numbers import Array, Tally, numpy64
from .report import Row
from .subject import Subject


def check_experts(subject: Subject) -> Iterator[Row]:
    """``mlp_out`` less what it is with silent experts is ``router @ expert_out``."""
    tally, answers = Tally("mixture", "router"), Tally("answers", "expert_out")
    layout = subject.layout
    for layer in subject.layers_with("router", "expert_out", "mlp_out"):
        roles = layout.roles(layer)
        path = layout.role(layer, roles.mlp, roles.experts)
        router, each = subject.values["router", layer], subject.values["expert_out", layer]
        silent = _silent(subject, path, layer)
        want = subject.values["mlp_out", layer] - silent
        got = mixed(router, each)
        shifted = mixed(np.roll(router, 1, axis=-1), each)
        tally.equal(layer, got, want, without=[shifted])
        chosen, given = _chosen(subject, path)
        support = np.zeros(router.shape, bool)
        np.put_along_axis(support, chosen.reshape(*router.shape[:2], -1), True, axis=-1)
        if not np.array_equal(router != 0, support):
            tally.note("failed", layer, "the weights are not those of the chosen experts")
        picked = np.take_along_axis(each, chosen.reshape(*router.shape[:2], -1)[..., None], axis=2)
        answers.equal(layer, picked.reshape(given.shape), given, without=[np.roll(given, 1, -1)])
    yield from tally.rows()
    yield from answers.rows()


def mixed(router: Array, each: Array) -> Array:
    """(B, S, E), (B, S, E, D) → (B, S, D)."""
    result: Array = np.einsum("bse,bsed->bsd", router, each)
    return result


def _silent(subject: Subject, path: str, layer: int) -> Array:
    """What the MLP returns if its experts answer zero, by a graft."""
    roles, layout = subject.layout.roles(layer), subject.layout
    mlp = layout.role(layer, roles.mlp)
    entering = mx.array(subject.entering(mlp).astype(np.float32))
    with grafted(subject.root, path, "output", mx.zeros_like):
        answer: mx.array = layout.modules[mlp](entering)
        return numpy64(answer)


def _chosen(subject: Subject, path: str) -> tuple[Array, Array]:
    """The choice of experts and what they answered, seen by grafts."""
    seen: list[mx.array] = []

    def look(value: mx.array) -> mx.array:
        seen.append(value)
        return value

    with (
        grafted(subject.root, path, "input", look, argument=1),
        grafted(subject.root, path, "output", look),
    ):
        subject.bare(subject.tokens)
    choice, answers = seen
    return np.asarray(choice), numpy64(answers)
