"""The residual stream: what blocks hand on, and what the sub-layers add to it."""

from __future__ import annotations

from collections.abc import Iterator

from .numbers import Array, Tally
from .report import Row
from .subject import Subject

#: Why an identity with a part that is zero is not counted as proven.
DEAD = "a sub-layer of this model adds nothing but zeros"


def check_embed(subject: Subject) -> Iterator[Row]:
    """``embed`` is what block 0 receives."""
    tally = Tally("embed", "embed")
    embed, first = subject.value("embed"), subject.value("resid_pre", 0)
    if embed is not None and first is not None:
        tally.equal(None, embed, first, without=[embed[:, ::-1]], tolerance=0)
    yield from tally.rows()


def check_stream(subject: Subject) -> Iterator[Row]:
    """``resid_post[l] = resid_pre[l+1]``."""
    tally = Tally("stream", "resid_post")
    last = subject.layout.n_layers - 1
    for layer in subject.layers_with("resid_pre", "resid_post"):
        if layer == last:
            continue
        after = subject.value("resid_pre", layer + 1)
        if after is None:
            continue
        post, pre = subject.values["resid_post", layer], subject.values["resid_pre", layer]
        tally.equal(layer, post, after, without=[pre], tolerance=1e-7)
    yield from tally.rows()


def check_sum(subject: Subject) -> Iterator[Row]:
    """``resid_pre + (what the sub-layers add) = resid_post``."""
    tally = Tally("sum", "resid_post")
    for layer in subject.layers_with("resid_pre", "resid_post"):
        parts = _added(subject, layer, "attn_add", "mixer_add", "mlp_add")
        if not parts:
            continue
        if not all(part.any() for part in parts):
            tally.note("skipped", layer, DEAD)
            continue
        pre, post = subject.values["resid_pre", layer], subject.values["resid_post", layer]
        total = pre + sum(parts)
        tally.equal(layer, post, total, without=[total - part for part in (pre, *parts)])
    yield from tally.rows()


def check_mid(subject: Subject) -> Iterator[Row]:
    """``resid_mid = resid_pre + attn_add``, and ``resid_mid + mlp_add = resid_post``."""
    before, after = Tally("mid", "resid_mid"), Tally("post", "mlp_add")
    for layer in subject.layers_with("resid_pre", "resid_mid"):
        pre, mid = subject.values["resid_pre", layer], subject.values["resid_mid", layer]
        parts = _added(subject, layer, "attn_add", "mixer_add")
        total = pre + sum(parts)
        if not all(part.any() for part in parts):
            before.note("skipped", layer, DEAD)
        elif parts:
            before.equal(layer, mid, total, without=[total - part for part in (pre, *parts)])
        mlp, post = subject.value("mlp_add", layer), subject.value("resid_post", layer)
        if mlp is not None and not mlp.any():
            after.note("skipped", layer, DEAD)
        elif mlp is not None and post is not None:
            after.equal(layer, post, mid + mlp, without=[mid, mlp])
    yield from before.rows()
    yield from after.rows()


def _added(subject: Subject, layer: int, *points: str) -> list[Array]:
    found = [subject.value(point, layer) for point in points]
    return [value for value in found if value is not None]
