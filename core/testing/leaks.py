"""After a raise inside a run, the model and MLX are as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from ..run.run import Run
from ..seams.edits import Edit
from ..seams.instrument import own_class
from .numbers import Tally, numpy64
from .report import Row
from .subject import Subject


class _Stop(Exception):
    pass


def check_leaks(subject: Subject) -> Iterator[Row]:
    """An exception and an interrupt inside the last block leave nothing behind."""
    tally = Tally("leaks", "model")
    # The logits where the blocks are never called.
    last = subject.layout.n_layers - 1
    where = f"layers.{last}.resid_post" if ("resid_post", last) in subject.values else "logits"
    for stop in (_Stop, KeyboardInterrupt):
        before = _state(subject)

        def fail(value: mx.array, stop: type[BaseException] = stop) -> mx.array:
            raise stop

        edit = Edit(where, fail)
        run = Run(subject.layout, edits=[edit], everything=True)
        try:
            run.execute(subject.tokens)
        except (_Stop, KeyboardInterrupt):
            pass
        else:
            tally.note("failed", None, "what the edit raised did not arrive")
        differing = [name for name, value in _state(subject).items() if before.get(name) != value]
        if differing:
            tally.note("failed", None, f"changed by a raise: {', '.join(differing[:4])}")
        tally.equal(None, numpy64(subject.bare(subject.tokens)), subject.logits, tolerance=0)
    yield from tally.rows()


def _state(subject: Subject) -> dict[str, Any]:
    """Everything that a run might leave changed, by identity."""
    state: dict[str, Any] = {
        "mx.softmax": mx.softmax,
        "mx.fast.scaled_dot_product_attention": mx.fast.scaled_dot_product_attention,
    }
    for path, module in subject.root.named_modules():
        state[f"class of {path or 'the model'}"] = type(module)
        state[f"own class of {path or 'the model'}"] = own_class(module)
    for path, array in tree_flatten(subject.root.parameters()):
        state[path] = id(array)
    return state
