"""The cells of an ablation: what is replaced by what, and the effect of each as it is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import nested, number
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ...patching.compare import alike
from ...patching.grid import make_grid
from ...patching.measure import read_positions
from ...patching.patches import Cell, axes
from ...patching.sources import token_means
from ...patching.sweep import Sweep
from ...prompts import token_texts
from .measure import bound_measure, check_logits
from .settings import Settings

#: Address → mean.
Means = Mapping[str, mx.array]


@dataclass(frozen=True)
class AblatedCell:
    """One finished cell.

    Attributes:
        layer: The block.
        position: The position ablated; None where a head was, at several of them.
        head: The head ablated, or None.
        score: The metric with this place ablated.
        effect: The metric with nothing ablated, less `score`.
        prompt: Number of the prompt.
        number: Of the cell in the grid's order.
    """

    layer: int
    position: int | None
    head: int | None
    score: float
    effect: float
    prompt: int = 0
    number: int = 0


class Ablation:
    """The ablation of one prompt, cell by cell: iterate over it to get each as it is found.

    Args:
        model: The model.
        prompt: One prompt.
        settings: What is ablated, and how.
        index: Number of the prompt, for its cells.
        means: What `reference_means` gives, where it is known.

    Attributes:
        batch: The prompt's ids.
        tokens: Its tokens, as text.
        grid: The cells, and the shape of their effects.
        target: The likeliest next token with nothing ablated.
        measure: The metric.
        base_score: The metric with nothing ablated.

    Raises:
        InputError: for a prompt, layers, positions or a metric that cannot be used.
        PointAbsent: if the model does not have the component.
        AnalysisError: if the model's own logits are not numbers.
    """

    def __init__(
        self,
        model: InterpretableModel,
        prompt: Any,
        settings: Settings,
        *,
        index: int = 0,
        means: Means | None = None,
    ) -> None:
        self.settings, self.index = settings, index
        self.batch = one_prompt(model, prompt)
        self._refuse_single_position()
        self.tokens = token_texts(model, self.batch.rows()[0])
        self.grid = make_grid(
            model,
            self.batch,
            settings.point,
            by=settings.by,
            layers=settings.layers,
            positions=settings.positions,
        )
        if len(set(self.grid.cells)) < len(self.grid.cells):
            raise InputError("a layer or a position is named twice.")
        end = self.batch.lengths[0] - 1
        read = [end] if settings.metric is None else read_positions(settings.metric, self.batch)
        logits = model.run_with_hooks(self.batch)[0, mx.array(read)]
        check_logits(logits[-1:], ["with nothing ablated"])
        self.target = int(number(mx.argmax(logits[-1])))
        self.measure = bound_measure(model, settings, logits)
        self.base_score = self.measure.ends[0]
        self._own = dict(model.activations(self.batch, self.grid.addresses).items())
        if means is None and settings.source != "zero":
            means = reference_means(model, settings, self.batch)
        self._values = {
            address: _spread(means[address] if means else None, own)
            for address, own in self._own.items()
        }
        self._sweep = Sweep(model, self.batch, positions=read, budget=settings.budget)

    def _refuse_single_position(self) -> None:
        if self.settings.source == "mean" and self.batch.lengths[0] == 1:
            raise InputError(
                "the prompt has one token, and the mean over one position is that position "
                "itself: nothing would be ablated. Give a longer prompt, or source='zero' or "
                "'dataset'."
            )

    @cached_property
    def idle(self) -> list[int]:
        """Indices of cells that cannot have an effect, found out by running the model.

        Either what is put in equals what is there, up to rounding. Or it stands in the last layer
        at another position than the last, and the last position's logits stay the same, up to
        rounding, when all of these places are ablated at once.
        """
        cells = self.grid.cells
        found = [i for i, cell in enumerate(cells) if not self._changes(cell)]
        last, end = self._sweep.layout.n_layers - 1, self.batch.lengths[0] - 1
        hidden = [
            i
            for i, cell in enumerate(cells)
            if all(p.layer == last and p.position not in (None, end) for p in cell)
        ]
        together = tuple(dict.fromkeys(p for i in hidden for p in cells[i]))
        if together:
            # Both with an edit, since inside of attention an edited run rounds in its own way.
            kept, replaced = (self._sweep.naive(together, v) for v in (self._own, self._values))
            if alike(kept, replaced):
                found += hidden
        return sorted(set(found))

    def _changes(self, cell: Cell) -> bool:
        def at(index: int | None) -> Any:
            return slice(None) if index is None else index

        moved = self._moved
        # An activation without heads has positions alone.
        return any(
            moved[p.address][(at(p.head), at(p.position))[-moved[p.address].ndim :]].any()
            for p in cell
        )

    @cached_property
    def _moved(self) -> dict[str, Any]:
        """Address → NumPy array (positions) or (heads, positions): whether anything differs."""
        import numpy as np

        return {
            address: np.array(_differs(own, self._values[address])[0])
            for address, own in self._own.items()
        }

    @property
    def _todo(self) -> list[int]:
        idle = set() if self.settings.exact == "naive" else set(self.idle)
        return [i for i in range(len(self.grid.cells)) if i not in idle]

    def estimate(self) -> str:
        """What running it takes, in words."""
        cells = [self.grid.cells[i] for i in self._todo]
        if self.settings.exact == "naive":
            return f"{len(cells)} full forward passes"
        return str(self._sweep.plan(cells))

    def __len__(self) -> int:
        return len(self.grid.cells)

    def __iter__(self) -> Iterator[AblatedCell]:
        """Cells as they are found, not in the order of the grid.

        Raises:
            AnalysisError: if an ablation makes the logits something else than numbers.
        """
        todo, naive = self._todo, self.settings.exact == "naive"
        for index in sorted(set(range(len(self))) - set(todo)):
            yield self._cell(index, self.base_score)
        cells = [self.grid.cells[i] for i in todo]
        for indices, logits in self._sweep.logits(cells, self._values, naive=naive):
            places = [f"with {_place(cells[i])} ablated" for i in indices]
            check_logits(logits[:, -1], places)
            scores: list[float] = nested(self.measure.rows(logits))
            for i, score in zip(indices, scores, strict=True):
                yield self._cell(todo[i], score)

    def _cell(self, index: int, score: float) -> AblatedCell:
        patch = self.grid.cells[index][0]
        position = patch.position if self.settings.by == "position" else None
        effect = self.base_score - score
        return AblatedCell(patch.layer, position, patch.head, score, effect, self.index, index)


def one_prompt(model: InterpretableModel, prompt: Any, what: str = "the prompt") -> Batch:
    """The ids of one prompt that the model has room for.

    Raises:
        InputError: if it is empty, several, or longer than the context.
    """
    batch = model.tokens.batch(prompt)
    if len(batch.lengths) != 1:
        raise InputError(f"{what} is one prompt; got {len(batch.lengths)}.")
    limit = model.context
    if limit is not None and batch.lengths[0] > limit:
        raise InputError(
            f"{what} has {batch.lengths[0]} tokens; this model's context is {limit}. Shorten it."
        )
    return batch


def reference_means(model: InterpretableModel, settings: Settings, prompt: Batch) -> Means:
    """The mean to put in at each layer: over the reference, or over the prompt without one.

    Returns:
        Address → float32, 1 at the position axis.
    """
    texts = settings.reference or ()
    prompts = [one_prompt(model, text, "a text of the reference") for text in texts]
    addresses = [f"layers.{i}.{settings.point}" for i in model.layer_indices(settings.layers)]
    axis, first = axes(settings.point)[1], int(settings.without_first)
    return token_means(model, prompts or [prompt], addresses, axis, first=first)


def _differs(own: mx.array, other: mx.array) -> mx.array:
    """Where vectors along the last axis differ by more than rounding; NaN differs."""
    first, second = own.astype(mx.float32), other.astype(mx.float32)
    size = mx.max(mx.maximum(mx.abs(first), mx.abs(second)), axis=-1)
    near: Any = mx.max(mx.abs(first - second), axis=-1) <= 4 * mx.finfo(own.dtype).eps * size
    differs: mx.array = mx.logical_not(near)
    return differs


def _spread(mean: mx.array | None, own: mx.array) -> mx.array:
    """A mean (None for zero) in the shape and dtype of an activation, without a copy of it."""
    value = mx.zeros(1) if mean is None else mean
    return mx.broadcast_to(value.astype(own.dtype), own.shape)


def _place(cell: Cell) -> str:
    patch = cell[0]
    if patch.head is not None:
        return f"head {patch.head} of layer {patch.layer}"
    return f"layer {patch.layer}, position {patch.position}"
