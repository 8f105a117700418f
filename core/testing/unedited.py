"""Looking changes nothing: an unedited run gives the bare model's logits, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from ..run.run import Run
from .numbers import Tally, numpy64
from .report import Row
from .subject import Subject, logits_of, precision


def check_unedited(subject: Subject) -> Iterator[Row]:
    """Watching everything leaves the logits as they are, in the model's own dtype and others."""
    yield from _identical(subject, "as loaded")
    for dtype in (mx.float32, mx.bfloat16):
        with precision(subject.root, dtype):
            yield from _identical(subject, str(dtype).removeprefix("mlx.core."))


def _identical(subject: Subject, name: str) -> Iterator[Row]:
    tally = Tally(f"unedited, {name}", "model")
    try:
        first, again = subject.bare(subject.tokens), subject.bare(subject.tokens)
    except RuntimeError as error:
        tally.note("skipped", None, f"the bare model cannot run so: {error}")
        yield from tally.rows()
        return
    if not mx.array_equal(first, again, equal_nan=True).item():
        tally.note("skipped", None, "the bare model does not give the same logits twice")
    elif mx.isnan(first).any().item():
        tally.note("skipped", None, "the bare model gives NaN")
    else:
        run = Run(subject.layout, everything=True)
        watched = logits_of(run.execute(subject.tokens))
        seen = run.values()
        mx.eval(watched)
        tally.equal(None, numpy64(watched), numpy64(first), tolerance=0)
        if not seen:
            tally.note("failed", None, "nothing is proven: the run kept nothing")
    yield from tally.rows()
