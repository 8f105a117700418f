"""Steered runs as rows of few passes: one row for each strength and prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate
from mlxray.errors import InputError
from mlxray.points.sites import first_argument, set_first_argument
from mlxray.points.vocabulary import tokens_axis
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Edit
from mlxray.tokens import Batch

from ..patching.reuse import resumable
from ..patching.sweep import ENOUGH_TOKENS


class SteeredRows:
    """Runs of some prompts, each steered with several strengths at one layer.

    Layers before the steered one are those of the unsteered run, which is made once; the numbers
    are those of one full run for each row, up to the rounding of differently shaped products.

    Args:
        model: The model.
        batch: The prompts.
        positions: Positions whose logits are wanted, the same for all prompts.
        layers: The layers that will be steered.
        budget: Bytes that the logits of one pass may take.

    Raises:
        InputError: for prompts of unequal length, if this model's tokens see what stands behind.
    """

    def __init__(
        self,
        model: InterpretableModel,
        batch: Batch,
        positions: Sequence[int],
        layers: Sequence[int],
        budget: int,
    ) -> None:
        self.layout = model.layout
        for layer in range(model.layout.n_layers if batch.padded else 0):
            if reason := model.layout.roles(layer).departures.get("right padding"):
                raise InputError(
                    f"prompts of unequal length cannot share a pass of this model ({reason}): "
                    "give prompts, and neutral texts, of one length each."
                )
        self.batch = batch
        self.positions = list(positions)
        self._streams: dict[int, mx.array] = {}
        alone = all(
            model.layout.roles(layer).returns == 1 for layer in range(model.layout.n_layers)
        )
        if alone and resumable(model.layout):
            self._streams = model.watch(batch, "resid_pre", layers)
        width = model.tokens.vocabulary or ENOUGH_TOKENS
        row = 4 * 3 * len(self.positions) * width
        tokens = batch.ids.shape[1]
        self._most = int(max(1, min(budget // row, ENOUGH_TOKENS // tokens)))

    def plain(self) -> Iterator[tuple[list[int], mx.array]]:
        """Prompts and their logits (n, P, V) without steering, evaluated."""
        for prompts in self._parts(len(self.batch.lengths)):
            ids = self.batch.ids[mx.array(prompts)]
            logits = execute_at(Run(self.layout), ids, self.positions)
            evaluate(logits)
            yield prompts, logits

    def passes(self, strengths: int) -> int:
        """How many passes one layer takes."""
        return sum(1 for _ in self._parts(strengths * len(self.batch.lengths)))

    def steered(
        self, address: str, layer: int, shifts: mx.array
    ) -> Iterator[tuple[list[tuple[int, int]], mx.array]]:
        """All rows of one layer.

        Args:
            address: Where to add.
            layer: The layer of the address.
            shifts: (T, …) what to add, for each strength.

        Yields:
            Pairs (index of strength, index of prompt), and their logits (n, P, V), evaluated.
        """
        count = len(self.batch.lengths)
        for part in self._parts(shifts.shape[0] * count):
            pairs = [divmod(row, count) for row in part]
            logits = self._pass(address, layer, shifts, pairs)
            evaluate(logits)
            yield pairs, logits

    def _parts(self, rows: int) -> Iterator[list[int]]:
        for start in range(0, rows, self._most):
            yield list(range(start, min(start + self._most, rows)))

    def _pass(
        self, address: str, layer: int, shifts: mx.array, pairs: Sequence[tuple[int, int]]
    ) -> mx.array:
        prompts = mx.array([prompt for _, prompt in pairs])
        added = mx.expand_dims(shifts[mx.array([t for t, _ in pairs])], tokens_axis(address))
        run, ids = Run(self.layout), self.batch.ids[prompts]
        if self._streams:
            for before in range(layer):
                run.skip(self.layout.block(before), first_argument)
            joining = self._streams[layer][prompts]
            changes = run.handler(self.layout.block(layer)).changes
            changes.before.append(lambda call: set_first_argument(call, joining))
            ids = ids[:1]

        def add(activation: mx.array) -> mx.array:
            return (activation + added).astype(activation.dtype)

        run.plan_edits([Edit(address, add, allow_unchanged=True)])
        return execute_at(run, ids, self.positions)
