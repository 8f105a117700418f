"""Mixtures of experts: the weights of the experts in the mix, and what each of them answers.

No module returns the weights: routers differ in how they score, choose and normalise. But the MLP
is a weighted sum of what its experts answer, so its own code tells them: it is run again with
answers that mark the experts. No expert is computed for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import AddressError
from ..seams.edits import Call, Edit
from ..seams.instrument import under
from .sites import Plan, first_argument


@dataclass(frozen=True)
class ExpertsSite:
    """``router`` (B, S, E) or ``expert_out`` (B, S, E, D) of one layer's MLP.

    Attributes:
        path: Path of the MLP.
        experts: Path of the module that is called with the tokens and the chosen experts.
        field: Which of the two points.
    """

    key: str
    path: str
    experts: str
    field: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Paths of the modules whose input must be kept."""
        return self.path, self.experts

    def plan_watch(self, run: Plan) -> None:
        for path in self.inputs:
            run.handler(path).keep_input = True

    def read(self, run: Plan) -> mx.array:
        calls = run.handler(self.path).calls
        if len(calls) != 1:
            raise AddressError(f"{self.key!r}: {self.path!r} was called {len(calls)} times.")
        return self._value(run, self.field, calls[0])

    def plan_edit(self, run: Plan, edit: Edit) -> None:
        self.plan_watch(run)
        mixed = run.handler(self.path).changes.mixed

        def after(call: Call, output: mx.array) -> mx.array:
            value, before = self._value(run, self.field, call), self._mix(run, call)
            new = mixed[self.field, call.index] = edit.apply(value, call)
            if new is value:
                return output
            # A difference, since the output may have been edited as well.
            change = self._with_mix(run, call, self._mix(run, call))
            return output + (change - self._with_mix(run, call, before))

        run.handler(self.path).changes.after.append(after)

    def _value(self, run: Plan, field: str, call: Call) -> mx.array:
        edited = run.handler(self.path).changes.mixed.get((field, call.index))
        if edited is not None:
            return edited
        weights = self._weights(run, call)
        return weights if field == "router" else self._answers(run, call, weights.shape[:2])

    def _mix(self, run: Plan, call: Call) -> mx.array:
        """The weighted sum of the experts, (B, S, D), with the edits so far."""
        weights = self._value(run, "router", call)
        return (weights[..., None] * self._value(run, "expert_out", call)).sum(axis=-2)

    def _chosen(self, run: Plan, call: Call) -> tuple[nn.Module, mx.array, mx.array]:
        """The experts, the tokens that they got, and the choice (…, k)."""
        calls = run.handler(self.experts).calls
        if call.index >= len(calls):
            raise AddressError(f"{self.key!r}: {self.experts!r} was not called in this run.")
        made = calls[call.index]
        return made.module, first_argument(made), first_argument(made, 1)

    def _mlp(self, run: Plan, call: Call, answers: mx.array) -> mx.array:
        """What the MLP returns if its experts answer so."""
        output: mx.array = run.call_answered(
            self.experts, answers, call.module, *call.args, **call.kwargs
        )
        return output

    def _scores(self, run: Plan, call: Call) -> tuple[mx.array, mx.array, int]:
        """Weights (B, S, k) of the chosen experts, the choice (B, S, k), and E."""
        experts, tokens, chosen = self._chosen(run, call)
        width, k = tokens.shape[-1], chosen.shape[-1]
        marks = mx.broadcast_to(mx.eye(k, width, dtype=tokens.dtype), (*chosen.shape, width))
        marked = self._mlp(run, call, marks) - self._mlp(run, call, mx.zeros_like(marks))
        choice = chosen.reshape(*marked.shape[:2], k)
        return marked[..., :k].astype(mx.float32), choice, _count(experts)

    def _weights(self, run: Plan, call: Call) -> mx.array:
        scores, choice, count = self._scores(run, call)
        empty = mx.zeros((*choice.shape[:2], count))
        return mx.put_along_axis(empty, mx.stop_gradient(choice), scores, axis=-1)

    def _answers(self, run: Plan, call: Call, rows: tuple[int, ...]) -> mx.array:
        experts, tokens, chosen = self._chosen(run, call)
        count = _count(experts)
        every = mx.broadcast_to(mx.arange(count), (*chosen.shape[:-1], count))
        answers: mx.array = under(None, experts, tokens, every)
        return answers.reshape(*rows, count, -1)

    def _with_mix(self, run: Plan, call: Call, mix: mx.array) -> mx.array:
        """What the MLP returns if the weighted sum of its experts is `mix` (B, S, D)."""
        _, tokens, chosen = self._chosen(run, call)
        scores, _, _ = self._scores(run, call)
        # The model multiplies these by its own scores and adds them up: that gives `mix`.
        shares = scores / (scores * scores).sum(axis=-1, keepdims=True)
        answers = shares[..., None] * mix[..., None, :].astype(mx.float32)
        return self._mlp(run, call, answers.reshape(*chosen.shape, -1).astype(tokens.dtype))


def _count(experts: nn.Module) -> int:
    """How many experts a module holds: the first axis of their stacked weights."""
    arrays: Any = tree_flatten(experts.parameters())
    for _, array in arrays:
        if array.ndim == 3:
            return int(array.shape[0])
    raise AddressError(f"{type(experts).__name__} holds no stacked experts.")
