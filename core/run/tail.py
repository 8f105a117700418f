"""The model's own tail: from a residual stream to logits, with the blocks' calls skipped.

Skipping every block and returning a chosen residual stream from the last one runs the model's
own norm, head, scale and cap, whatever they are. That is the logit lens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx

from ..errors import InputError, PointAbsent
from ..points.layout import Layout
from ..points.sites import first_argument, set_first_argument
from ..seams.edits import Call
from ..seams.instrument import under
from ..seams.positions import Rows, take
from .run import Run

Norm = Callable[[mx.array], mx.array]


class Tail:
    """The model's own tail, planned once: called with a residual stream it gives the logits.

    Args:
        layout: The model.
        final_norm: Called in place of the final norm.
        skip_norm: Leave the final norm out, where the model has one.

    Raises:
        PointAbsent: if the norm is to be replaced and the model has none, or if the model's tail
            reads more than the last block's residual stream.
    """

    def __init__(
        self, layout: Layout, *, final_norm: Norm | None = None, skip_norm: bool = False
    ) -> None:
        departures = layout.roles(layout.n_layers - 1).departures
        if "lens" in departures:
            raise PointAbsent("lens", departures["lens"])
        # A list that the last block's answer is taken from: a function of `self` would be a cycle,
        # which keeps the model's weights until the collector runs.
        self._residual: list[mx.array] = []
        residual = self._residual
        self._run = run = Run(layout)
        last = layout.n_layers - 1
        for layer in range(last):
            position = layout.roles(layer).stream
            run.skip(layout.block(layer), partial(first_argument, position=position))
        run.skip(layout.block(last), lambda call: residual[0])
        has_norm = layout.adapter.final_norm in layout.modules
        if final_norm is not None or (skip_norm and has_norm):
            layout.site("final_norm")

            def replaced(call: Call) -> Any:
                value = first_argument(call)
                # Outside of this run, in which the model's own norm would be replaced by itself.
                return value if final_norm is None else under(None, final_norm, value)

            run.skip(layout.adapter.final_norm, replaced)

    def __call__(self, residual: mx.array) -> mx.array:
        """Logits (B, S, V), lazy, of a residual stream (B, S, D), of any rows and positions.

        Raises:
            InputError: if `residual` has another number of axes.
        """
        if residual.ndim != 3:
            raise InputError(
                f"a residual stream has shape (batch, tokens, width); got {residual.shape}."
            )
        self._run.restart()
        self._residual[:] = [residual]
        try:
            return _logits(self._run.execute(mx.zeros(residual.shape[:2], dtype=mx.int32)))
        finally:
            self._residual.clear()


def finish_from(
    layout: Layout,
    residual: mx.array,
    *,
    final_norm: Norm | None = None,
    skip_norm: bool = False,
) -> mx.array:
    """Logits that the model gives if `residual` is what its last block returns.

    Args:
        layout: The model.
        residual: (B, S, D); any number of rows and positions, since no block looks at them.
        final_norm: Called in place of the final norm.
        skip_norm: Leave the final norm out, where the model has one.

    Returns:
        (B, S, V), lazy.

    Raises:
        InputError: if `residual` has another number of axes.
        PointAbsent: if the norm is to be replaced and the model has none, or if the model's tail
            reads more than the last block's residual stream.
    """
    return Tail(layout, final_norm=final_norm, skip_norm=skip_norm)(residual)


def _logits(output: Any) -> mx.array:
    logits: mx.array = output[0] if isinstance(output, (tuple, list)) else output
    return logits


def only_positions(run: Run, positions: Sequence[int] | Rows) -> bool:
    """Let the final norm, and so the head, of the run to come see only these positions.

    They are the same in each row, or each row's own (as many in all of them).

    Both work on each position by itself, so the logits (B, P, V) are those of the whole run at
    `positions`, at a fraction of the head's cost.

    Returns:
        False, and nothing is planned, if the model has no final norm to do it at.
    """
    norm = run.layout.adapter.final_norm
    if norm not in run.layout.modules:
        return False

    def trim(call: Call) -> None:
        set_first_argument(call, _at(first_argument(call), positions))

    run.handler(norm).changes.before.append(trim)
    return True


def execute_at(
    run: Run,
    tokens: mx.array,
    positions: Sequence[int] | Rows,
    cache: Any = None,
    lengths: Sequence[int] | None = None,
) -> mx.array:
    """Execute a run and give its logits at `positions` only: (B, P, V), lazy."""
    trimmed = only_positions(run, positions)
    logits = _logits(run.execute(tokens, cache=cache, lengths=lengths))
    return logits if trimmed else _at(logits, positions)


def _at(value: mx.array, positions: Sequence[int] | Rows) -> mx.array:
    rows: Any = [positions] if isinstance(positions[0], int) else positions
    return take(value, 1, rows)
