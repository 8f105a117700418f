"""First-order estimates of the effect of patching, by layer, head and position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, on_gpu, start_evaluating
from mlxray.run.gradients import lazy_gradients
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.tokens import Batch

from ...patching.compare import check_apart
from ...patching.grid import one_size
from ...patching.measure import Measure, MetricLike, bind, read_positions
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
        self.model, self.layers = model, layers
        self.ids = batches[1].ids
        site = model.layout.site
        self.addresses = {p: [site(f"layers.{n}.{p}").key for n in layers[p]] for p in layers}
        self.positions = read_positions(metric, batches[1], position)
        every = [address for addresses in self.addresses.values() for address in addresses]
        both = Batch(
            mx.concatenate([batch.ids for batch in batches]),
            (*batches[0].lengths, *batches[1].lengths),
        )
        # What is known of the clean run before the gradient's: on a GPU two rows take as long as
        # one, so both prompts run together. On a CPU the clean one alone needs no gradient.
        before = None if ahead and on_gpu() else batches[0] if ahead else both
        logits, kept = (None, {}) if before is None else self._run(before.ids, every)
        self._found: dict[str, mx.array] | None = None
        self._ways: dict[str, mx.array] = {}

        def bound(clean: mx.array, corrupted: mx.array) -> Measure:
            return bind(model, metric, clean, corrupted, metric_kwargs, later=True)

        def scalar(own: mx.array) -> mx.array:
            fixed = mx.stop_gradient(own)
            self.measure = bound(fixed[0] if logits is None else logits[0], fixed[-1])
            return self.measure.scalar(own[-1:])

        if ahead:
            last = both if before is None else batches[1]
            value, slopes, own = lazy_gradients(
                model.layout, last, scalar, every, positions=self.positions
            )
            self._note_ways(own if before is None else kept, own)
            self._found = self._cells({a: slopes[a][-1:] for a in every})
            # The checks wait for the logits: the device goes on with the backward pass meanwhile.
            start_evaluating(value, self._found, self.measure.pending())
            self._ways.clear()
        else:
            assert logits is not None
            self._note_ways(kept, kept)
            self.measure = bound(logits[0], logits[1])
        check_apart(
            batches, position, self.measure.clean[0], self.measure.corrupted[0], self.positions
        )
        _ = self.measure.ends
        if self.measure.is_share:
            self.measure.check_gap()

    def _run(self, ids: mx.array, every: Sequence[str]) -> tuple[mx.array, dict[str, mx.array]]:
        """Logits at the positions that are read, and activations; being evaluated."""
        run = Run(self.model.layout, watch=every)
        logits = execute_at(run, ids, self.positions)
        kept = run.values()
        run.forget()
        start_evaluating(logits, kept)
        return logits, kept

    def _note_ways(self, clean: Mapping[str, mx.array], corrupted: Mapping[str, mx.array]) -> None:
        """Keep the clean run's activations, in the first row, and the corrupted one's, in the last.

        Raises:
            InputError: if layers differ in their number of heads.
        """
        for point, addresses in self.addresses.items():
            values = [corrupted[address] for address in addresses]
            one_size(point, self.layers[point], values, axes(point)[0])
            for address, value in zip(addresses, values, strict=True):
                own = clean[address]
                pair = value if own is value else mx.concatenate([own[:1], value[-1:]])
                self._ways[address] = pair

    def scalar(self, logits: mx.array) -> mx.array:
        """The metric of (1, P, V) logits, lazy."""
        return self.measure.scalar(logits)

    def gradient(self, edits: Edits | None = None) -> dict[str, mx.array]:
        """Point → (layers, [heads,] S), all from one backward pass."""
        if self._found is not None and edits is None:
            return self._found
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
        for address, pair in self._ways.items():
            clean, corrupted = mx.split(pair, 2)
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
                clean, corrupted = mx.split(self._ways[address], 2)
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
            pairs = [self._ways[address] for address in addresses]
            slopes = [gradients[address] for address in addresses]
            # All layers at once where they are of one shape, which a GPU is faster at.
            if len({pair.shape for pair in pairs}) == 1:
                pairs, slopes = [mx.concatenate(pairs)], [mx.concatenate(slopes)]
            kept = {0, *axes(point)}
            effects = [_effects(kept, *each) for each in zip(pairs, slopes, strict=True)]
            found[point] = mx.concatenate(effects)
        return found


def _effects(kept: set[Any], pairs: mx.array, gradients: mx.array) -> mx.array:
    """The way from corrupted to clean, times the gradient, summed over all axes but the kept.

    Args:
        kept: Axes of a gradient.
        pairs: (2·layers, …) the clean and the corrupted activation of each layer in turn.
        gradients: (layers, …).
    """
    ways = (pairs[::2] - pairs[1::2]).astype(mx.float32)
    product = ways * gradients.astype(mx.float32)
    return mx.sum(product, axis=[axis for axis in range(product.ndim) if axis not in kept])


def _put(value: mx.array) -> Callable[[mx.array], mx.array]:
    return lambda activation: value.astype(activation.dtype)
