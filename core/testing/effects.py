"""An edit at a point does to the logits what the point's meaning says.

The prediction is made without the kernel: numpy carries the change from the point to the nearest
module, and a graft on that module carries it to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from ..errors import MlxrayError
from .attention import repeated, scores_from, sink_of, softmax_with_sink, visible
from .grafts import grafted
from .mixtures import mixed
from .numbers import EFFECT, TOLERANCE, Array, Tally, distance, numpy64, random_like
from .projections import merged
from .report import Row
from .subject import Subject, address

#: Size of an edit, relative to the activation.
SIZE = 0.3

#: A module's path, its edge, and the change to make there.
Predicted = tuple[str, str, Array]


def check_effects(subject: Subject) -> Iterator[Row]:
    """Edit each point of the sampled layers, and compare with the prediction."""
    tallies: dict[str, Tally] = {}
    for point, layer in subject.sampled():
        tally = tallies.setdefault(point, Tally("edit", point))
        if not subject.values[point, layer].any():
            tally.note("skipped", layer, f"{point} is zero throughout")
            continue
        try:
            _check_effect(subject, point, layer, tally)
        except MlxrayError as error:
            tally.note("failed", layer, f"{type(error).__name__}: {error}")
    for tally in tallies.values():
        yield from tally.rows()


def _check_effect(subject: Subject, point: str, layer: int | None, tally: Tally) -> None:
    change = edit_of(subject, point, layer)
    got = subject.edited([(address((point, layer)), adding(change))])
    if point == "logits":
        tally.equal(layer, got, subject.logits + change, without=[subject.logits])
        return
    effect = distance(got, subject.logits)
    predicted = prediction(subject, point, layer, change)
    if predicted is not None:
        want = grafted_logits(subject, *predicted)
        if not effect and not distance(want, subject.logits):
            tally.note("skipped", layer, "the model itself gives it no effect on the logits")
        else:
            tally.equal(layer, got, want, without=[subject.logits])
    elif effect > EFFECT:
        tally.note("proven", layer, "has an effect; none is predicted")
    else:
        tally.note("failed", layer, "the edit has no visible effect on the logits", effect)


def edit_of(subject: Subject, point: str, layer: int | None) -> Array:
    """What the edit adds: noise, or for a pattern the way to another pattern."""
    value = subject.values[point, layer]
    noise: Array = random_like(value.shape, seed=len(point) + 17 * (layer or 0))
    if point == "pattern":
        weights = np.exp(noise) * (value > 0)
        other = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30)
        result: Array = (other - value) * (value > 0)
        return result
    if point == "scores":
        return noise * visible(value)
    return SIZE * float(np.sqrt((value[visible(value)] ** 2).mean())) * noise


def adding(change: Array) -> Callable[[mx.array], mx.array]:
    """An edit that adds `change`."""
    add = mx.array(change.astype(np.float32))
    return lambda activation: activation + add


def has_no_effect(subject: Subject, point: str, layer: int | None) -> bool:
    """Whether the model itself keeps a point from its logits, as a graft tells."""
    predicted = prediction(subject, point, layer, edit_of(subject, point, layer))
    return predicted is not None and not distance(
        grafted_logits(subject, *predicted), subject.logits
    )


def grafted_logits(subject: Subject, path: str, edge: str, change: Array) -> Array:
    """Logits of the bare model with `change` added at an edge of one of its modules."""
    layer = subject.layout.layer_of(path)
    argument = 0 if layer is None else subject.layout.roles(layer).stream
    with grafted(subject.root, path, edge, adding(change), argument):
        return numpy64(subject.bare(subject.tokens))


def prediction(subject: Subject, point: str, layer: int | None, change: Array) -> Predicted | None:
    """Where in the module tree the change arrives, and as what; None if that is not known."""
    layout = subject.layout
    if layer is None:
        if point == "embed":
            return layout.block(0), "input", change
        return subject.model.adapter.final_norm, "output", change
    roles, block = layout.roles(layer), layout.block(layer)
    if point == "resid_pre" and layer > 0:
        return layout.block(layer - 1), "output", change
    if point == "resid_pre":
        return block, "input", change
    whole = subject.value("resid_post", layer) is not None and "sum" not in roles.departures
    if point == "resid_post" or (point == "mlp_add" and whole):
        return block, "output", change

    def inside(*names: str | None) -> str:
        return ".".join([block, *(name for name in names if name)])

    attn_out = inside(roles.attn) if roles.attn else inside(roles.out_proj)
    if point == "mixer_out":
        return inside(roles.mixer), "output", change
    if point in ("attn_add", "mixer_add", "resid_mid"):
        path = inside(roles.post_attn_norm) if roles.post_attn_norm else attn_out
        if roles.attn is None or point == "mixer_add":
            post = roles.post_attn_norm if roles.attn is None else None
            path = inside(post or roles.mixer)
        return path, "output", change / layout.factor(layer, roles.attn_scale)
    if point == "attn_out":
        return attn_out, "output", change
    mlp_out = inside(roles.mlp) if roles.mlp else inside(roles.down_proj)
    if point == "mlp_out":
        return mlp_out, "output", change
    if point == "mlp_add":
        path = inside(roles.post_mlp_norm) if roles.post_mlp_norm else mlp_out
        return path, "output", change / layout.factor(layer, roles.mlp_scale)
    if point == "mlp_act":
        return inside(roles.mlp, roles.down_proj), "input", change
    if point in ("router", "expert_out"):
        router, each = subject.values["router", layer], subject.values["expert_out", layer]
        new = (router + change, each) if point == "router" else (router, each + change)
        return mlp_out, "output", mixed(*new) - mixed(router, each)
    if subject.value("head_out", layer) is None:
        return None
    out_proj = inside(roles.attn, roles.out_proj)
    if point == "head_out":
        return out_proj, "output", change.sum(1)
    if "out_proj" in roles.departures:
        return None
    moved = mixed_change(subject, point, layer, change)
    return None if moved is None else (out_proj, "input", merged(moved))


def mixed_change(subject: Subject, point: str, layer: int, change: Array) -> Array | None:
    """How ``z`` changes with a point before it, by numpy; None where that is not known."""
    if point == "z":
        return change
    values = {p: subject.value(p, layer) for p in ("q", "k", "v", "scores", "pattern", "z")}
    pattern, v, z, scores = (values[p] for p in ("pattern", "v", "z", "scores"))
    if pattern is None or v is None or z is None:
        return None
    heads = pattern.shape[1]
    if point == "v":
        return pattern @ repeated(v + change, heads) - z
    if point == "pattern":
        return (pattern + change) @ repeated(v, heads) - z
    if scores is None:
        return None
    if point in ("q", "k"):
        change_of_scores = _scores_change(subject, point, layer, change, scores)
        if change_of_scores is None:
            return None
        change = change_of_scores
    new = softmax_with_sink(scores + change, sink_of(scores, pattern))
    return new @ repeated(v, heads) - z


def _scores_change(
    subject: Subject, point: str, layer: int, change: Array, scores: Array
) -> Array | None:
    dots = scores_from(subject, layer)
    if dots is None:
        return None
    seen = visible(scores)
    if not dots[seen].any():
        return None
    scale = float(scores[seen] @ dots[seen] / (dots[seen] @ dots[seen]))
    if distance(scores[seen], scale * dots[seen]) > TOLERANCE:
        return None
    q, k = subject.values["q", layer], subject.values["k", layer]
    keys = repeated(change if point == "k" else k, q.shape[1]).swapaxes(-1, -2)
    queries = change if point == "q" else q
    return np.where(seen, scale * (queries @ keys), 0.0)


def check_pattern_moves_z(subject: Subject) -> Iterator[Row]:
    """With an edited pattern, ``z`` of the same run is the edited pattern @ v."""
    tally = Tally("edited pattern @ v", "z")
    for layer in subject.layers_with("pattern", "v", "z"):
        if layer not in subject.sample:
            continue
        change = edit_of(subject, "pattern", layer)
        _, cache = subject.model.run_with_cache(
            subject.tokens,
            [("z", layer)],
            interventions={f"layers.{layer}.pattern": adding(change)},
        )
        pattern, v = subject.values["pattern", layer], subject.values["v", layer]
        want = (pattern + change) @ repeated(v, pattern.shape[1])
        tally.equal(layer, numpy64(cache["z", layer]), want, without=[subject.values["z", layer]])
    yield from tally.rows()
