"""Runs with an interchange in them: what they answer, and the loss that a subspace is learnt by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxray import InterpretableModel
from mlxray.arrays import evaluate
from mlxray.errors import AnalysisError
from mlxray.generation import Where
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Edit
from mlxray.tokens import Batch

from ...steering.contrast import read
from ..examples.labels import Floats
from .interchange import Encoded
from .subspace import replace, swap

#: Prompts of one pass where nothing is learnt.
_ROWS = 64


@dataclass(frozen=True)
class Place:
    """Where coordinates are interchanged, and what the sources have there.

    Attributes:
        address, position: Where.
        shape: Of one token's activation.
        values: (N, F) float32: of each example's source.
    """

    address: str
    position: int
    shape: tuple[int, ...]
    values: mx.array

    @property
    def features(self) -> int:
        """F."""
        return int(self.values.shape[1])


def places(
    model: InterpretableModel, examples: Encoded, addresses: Sequence[str], position: int
) -> dict[str, Place]:
    """The sources' activations at several addresses.

    Raises:
        InputError: if a source does not have the position.
        AnalysisError: if an activation is not finite.
    """
    found = {}
    for address, reading in read(model, examples.sources, addresses, position).items():
        values = reading.values
        flat = values.reshape(values.shape[0], -1)
        if not np.isfinite(np.array(flat)).all():
            raise AnalysisError(f"the sources' activations at {address!r} are not finite numbers.")
        evaluate(flat)
        found[address] = Place(address, position, tuple(values.shape[1:]), flat)
    return found


class Interchanges:
    """Runs of base prompts with the sources' values at one place.

    Args:
        model: The model.
        examples: Base prompts, and the counterfactual answers.
        place: What the sources have; None for runs without an edit.
    """

    def __init__(self, model: InterpretableModel, examples: Encoded, place: Place | None) -> None:
        self._model, self._examples, self._place = model, examples, place

    def loss(self, columns: mx.array, which: Sequence[int]) -> mx.array:
        """Mean cross-entropy (nats) of the counterfactual answers; lazy, with a gradient.

        Args:
            columns: (F, k), orthonormal.
            which: Examples.
        """
        logits = self._logits(self._swap(columns), which)
        answers = mx.array([self._examples.answers[i] for i in which])
        chosen = mx.take_along_axis(logits, answers[:, None], axis=-1)[:, 0]
        return mx.mean(mx.logsumexp(logits, axis=-1) - chosen)

    def hits(self, columns: mx.array | None, which: Sequence[int]) -> Floats:
        """For each example 1 where the run answers as the counterfactual says, else 0.

        Args:
            columns: (F, k) orthonormal; None for whole activations, if there is a place.
            which: Examples.

        Raises:
            AnalysisError: if logits are not finite.
        """
        found: list[float] = []
        edit = self._replace if columns is None else self._swap(columns)
        for start in range(0, len(which), _ROWS):
            part = which[start : start + _ROWS]
            logits = self._logits(edit, part)
            top = mx.argmax(logits, axis=-1)
            finite = mx.all(mx.isfinite(mx.logsumexp(logits, axis=-1)))
            evaluate(top, finite)
            if not finite.item():
                raise AnalysisError("the model's logits are not finite: there is no answer.")
            answers = [self._examples.answers[i] for i in part]
            found += [float(a == b) for a, b in zip(np.array(top).tolist(), answers, strict=True)]
        return np.array(found)

    def _swap(self, columns: mx.array) -> Callable[[Sequence[int]], Callable[..., mx.array]]:
        place = self._place
        assert place is not None

        def edit(which: Sequence[int]) -> Callable[..., mx.array]:
            values = place.values[mx.array(list(which))]
            return swap(place.address, columns, place.shape, values @ columns)

        return edit

    def _replace(self, which: Sequence[int]) -> Callable[..., mx.array] | None:
        if self._place is None:
            return None
        values = self._place.values[mx.array(list(which))]
        return replace(self._place.address, self._place.shape, values)

    def _logits(
        self,
        edit: Callable[[Sequence[int]], Callable[..., mx.array] | None],
        which: Sequence[int],
    ) -> mx.array:
        """Of the last token of each base prompt: (n, V) float32, lazy."""
        batch: Batch = self._model.tokens.batch([self._examples.bases[i] for i in which])
        edits, made = [], edit(which)
        if made is not None and self._place is not None:
            where = Where(positions=[self._place.position]).edit(made)
            edits.append(Edit(self._place.address, where, allow_unchanged=True))
        run = Run(self._model.layout, edits=edits)
        ends = [[length - 1] for length in batch.lengths]
        logits = execute_at(run, batch.ids, ends, lengths=batch.lengths)[:, 0]
        for each in run.edits:
            each.settle()
        return logits.astype(mx.float32)
