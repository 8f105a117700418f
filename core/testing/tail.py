"""The model's tail: final norm and logits, and the lens that reuses them."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from ..errors import PointAbsent
from ..points.sites import ModuleSite
from ..run.run import Run
from .numbers import Tally, numpy64
from .report import Row
from .subject import Subject

#: The lens runs the same tail on the same numbers.
LENS = 1e-6


def check_lens(subject: Subject) -> Iterator[Row]:
    """``finish_from(resid_post[-1]) = logits``, at chosen positions too."""
    tally = Tally("lens", "logits")
    last = subject.layout.n_layers - 1
    post = subject.value("resid_post", last)
    if "lens" in subject.layout.roles(last).departures:
        yield _lens_departs(subject)
        return
    if post is None:
        return
    residual = mx.array(post.astype(np.float32))
    got = numpy64(subject.model.finish_from(residual))
    pre = subject.value("resid_pre", last)
    without = [subject.logits[:, ::-1]]
    if pre is not None:
        without.append(numpy64(subject.model.finish_from(mx.array(pre.astype(np.float32)))))
    tally.equal(None, got, subject.logits, without=without, tolerance=LENS)
    some = numpy64(subject.model.finish_from(residual[:1, -2:-1]))
    tally.equal(None, some, subject.logits[:1, -2:-1], tolerance=LENS)
    yield from tally.rows()


def _lens_departs(subject: Subject) -> Row:
    """A model whose tail reads more than the stream must refuse to finish from it alone."""
    try:
        subject.model.finish_from(mx.zeros((1, 2, 8)))
    except PointAbsent:
        return Row("lens", "logits", (), "failed", None, "refused, as declared")
    return Row("lens refusal", "logits", (), "failed", None, "finish_from does not refuse")


def check_logits(subject: Subject) -> Iterator[Row]:
    """``logits`` is what the model returns, and ``final_norm`` normalizes the last stream."""
    tally = Tally("logits", "logits")
    logits = subject.value("logits")
    if logits is not None:
        tally.equal(None, logits, subject.logits, without=[subject.logits[:, ::-1]], tolerance=0)
    yield from tally.rows()
    if subject.value("final_norm") is None:
        return
    norm = Tally("final_norm", "final_norm")
    site = ModuleSite("final_norm.input", subject.model.adapter.final_norm, "input")
    run = Run(subject.layout)
    site.plan_watch(run)
    run.execute(subject.tokens)
    last = subject.layout.n_layers - 1
    post, pre = subject.value("resid_post", last), subject.value("resid_pre", last)
    if post is not None and pre is not None:
        norm.equal(None, numpy64(site.read(run)), post, without=[pre], tolerance=1e-7)
    yield from norm.rows()
