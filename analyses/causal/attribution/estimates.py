"""First-order estimates of the effect of patching, by layer, head and position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, start_evaluating
from mlxray.run.gradients import gradients_like
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.tokens import Batch

from ...patching.grid import one_size
from ...patching.measure import Measure, MetricLike, bind, check_apart, read_positions
from ...patching.patches import axes

Edits = Mapping[str, Callable[..., Any]]


class Estimates:
    """What patching a clean activation into the corrupted run changes, to first order.

    Args:
        model: The model.
        batches: Clean and corrupted prompt, of equal length.
        layers: By point of the vocabulary, the layers to look at.
        metric, metric_kwargs: The metric and its keywords.
        position: Where the logits are measured.
        ahead: Take the gradient from the corrupted run itself, not from one more run.

    Raises:
        InputError: if layers differ in their number of heads.
        AnalysisError: if the two runs are alike where they are measured.

    Attributes:
        measure: The metric, bound to the two runs.
        positions: The positions whose logits it gets.
    """

    def __init__(
        self,
        model: InterpretableModel,
        batches: tuple[Batch, Batch],
        layers: Mapping[str, Sequence[int]],
        metric: MetricLike,
        metric_kwargs: Mapping[str, Any] | None,
        position: int,
        *,
        ahead: bool = False,
    ) -> None:
        self.model = model
        self.ids = batches[1].ids
        site = model.layout.site
        self.addresses = {p: [site(f"layers.{n}.{p}").key for n in layers[p]] for p in layers}
        self.positions = read_positions(metric, batches[1], position)
        every = [address for addresses in self.addresses.values() for address in addresses]
        run = Run(model.layout, watch=every)
        # Without the gradient's run, both prompts are rows of one.
        rows = batches[:1] if ahead else batches
        ids = mx.concatenate([batch.ids for batch in rows])
        logits = execute_at(run, ids, self.positions)
        kept = run.values()
        for point, each in layers.items():
            values = [kept[address] for address in self.addresses[point]]
            one_size(point, each, values, axes(point)[0])
        run.forget()
        start_evaluating(logits, kept)
        self._ahead: dict[str, mx.array] | None = None

        def bound(corrupted: mx.array) -> Measure:
            check_apart(batches, position, logits[0], corrupted, self.positions)
            measure = bind(model, metric, logits[0], corrupted, metric_kwargs)
            if measure.is_share:
                measure.check_gap()
            return measure

        if not ahead:
            self.measure = bound(logits[1])
            self._ways = {a: (kept[a][:1], kept[a][1:]) for a in every}
            return

        def scalar(own: mx.array) -> mx.array:
            # Evaluates the logits, which the backward pass then goes on from.
            self.measure = bound(mx.stop_gradient(own[0]))
            return self.measure.scalar(own)

        _, self._ahead, own = gradients_like(
            model.layout, batches[1], scalar, kept, positions=self.positions, keep=True
        )
        self._ways = {a: (kept[a], own[a]) for a in every}

    def scalar(self, logits: mx.array) -> mx.array:
        """The metric of (1, P, V) logits, lazy."""
        return self.measure.scalar(logits)

    def gradient(self, edits: Edits | None = None) -> dict[str, mx.array]:
        """Point → (layers, [heads,] S), all from one backward pass."""
        if self._ahead is not None and edits is None:
            return self._cells(self._ahead)
        _, found = self.model.gradients(
            self.ids,
            self.scalar,
            list(self._ways),
            interventions=edits,
            positions=self.positions,
        )
        return self._cells(found)

    def integrated(self, steps: int) -> dict[str, mx.array]:
        """The same with each layer's gradient averaged on the way from corrupted to clean."""
        means = {}
        for address, (clean, corrupted) in self._ways.items():
            total = mx.zeros(corrupted.shape)
            for step in range(steps):
                between = corrupted + (step + 0.5) / steps * (clean - corrupted)
                _, found = self.model.gradients(
                    self.ids,
                    self.scalar,
                    [address],
                    interventions={address: _put(between)},
                    positions=self.positions,
                )
                total = total + found[address].astype(mx.float32)
                evaluate(total)
            means[address] = total / steps
        return self._cells(means)

    def finite_differences(self, eps: float, count: int) -> dict[str, mx.array]:
        """The same from the metric's central differences along clean − corrupted.

        Args:
            eps: Step, as a share of the way.
            count: Steps eps, 2·eps, … whose slopes are averaged.
        """
        found = {}
        for point, addresses in self.addresses.items():
            rows = []
            for address in addresses:
                clean, corrupted = self._ways[address]
                slopes = [
                    self._slopes(point, address, clean - corrupted, eps * (1 + i))
                    for i in range(count)
                ]
                rows.append(mx.mean(mx.stack(slopes), axis=0))
            found[point] = mx.stack(rows)
        return found

    def _slopes(self, point: str, address: str, way: mx.array, step: float) -> mx.array:
        """([heads,] S): one row for each cell, up and down, in one run."""
        head_axis, position_axis = axes(point)
        heads = 1 if head_axis is None else way.shape[head_axis]
        tokens = way.shape[position_axis]
        shape = [heads * tokens] + [1] * (way.ndim - 1)
        shape[position_axis] = tokens
        if head_axis is not None:
            shape[head_axis] = heads
        alone = way * mx.eye(heads * tokens).reshape(shape)
        shifts = mx.concatenate([step * alone, -step * alone]).astype(way.dtype)
        ids = mx.broadcast_to(self.ids, (shifts.shape[0], self.ids.shape[1]))
        logits = self.model.run_with_hooks(
            ids, [(address, lambda x: x + shifts)], allow_unchanged=True
        )
        up, down = mx.split(self.measure.rows(logits[:, mx.array(self.positions)]), 2)
        slopes = (up - down) / (2 * step)
        return slopes if head_axis is None else slopes.reshape(heads, tokens)

    def _cells(self, gradients: Mapping[str, mx.array]) -> dict[str, mx.array]:
        found = {}
        for point, addresses in self.addresses.items():
            keep = {0, *axes(point)}
            rows = []
            for address in addresses:
                clean, corrupted = self._ways[address]
                way = (clean - corrupted).astype(mx.float32)
                product = way * gradients[address].astype(mx.float32)
                others = [axis for axis in range(product.ndim) if axis not in keep]
                rows.append(mx.sum(product, axis=others)[0])
            found[point] = mx.stack(rows)
        return found


def _put(value: mx.array) -> Callable[[mx.array], mx.array]:
    return lambda activation: value.astype(activation.dtype)
