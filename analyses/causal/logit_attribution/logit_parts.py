"""The linear parts of a logit: what components write at a position, read by the model's end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.errors import AnalysisError
from mlxray.points.layout import Layout
from mlxray.run.parts.frozen import FORM, Functional, soft_cap, through_affine, through_norm
from mlxray.run.parts.stream import added_points
from mlxray.run.run import Run

Split = tuple[mx.array, float]


@dataclass
class Written:
    """What a run wrote at one position: vectors (D,) but for the logits (V,).

    Attributes:
        logits: The model's output.
        embed: What enters the first block.
        adds: (point, layer) → what it added to the residual stream.
        last: The last residual stream.
        more: Address → inputs of projections and outputs of sub-layers, where they were asked for.
    """

    logits: mx.array
    embed: mx.array
    adds: dict[tuple[str, int], mx.array]
    last: mx.array
    more: dict[str, mx.array]


def see(
    model: InterpretableModel,
    ids: mx.array,
    at: int,
    head_layers: Sequence[int],
    neuron_layers: Sequence[int],
) -> Written:
    """Run once and keep one position of what is needed.

    Args:
        model: The model.
        ids: (1, S).
        at: The position.
        head_layers, neuron_layers: Layers whose heads and neurons will be told apart.
    """
    layout = model.layout
    ends: list[Any] = ["embed", ("resid_post", layout.n_layers - 1)]
    adds = added_points(layout)
    more: list[Any] = [f"{_out_proj(layout, i)}.input" for i in head_layers]
    more += [f"layers.{i}.mlp_act" for i in neuron_layers]
    more += [f"layers.{i}.attn_out" for i in head_layers if layout.roles(i).post_attn_norm]
    more += [f"layers.{i}.mlp_out" for i in neuron_layers if layout.roles(i).post_mlp_norm]
    run = Run(layout, watch=[*ends, *adds, *more])
    logits = run.execute(ids)[0, at]
    embed, last, *rest = [run.read(a)[0, at] for a in (*ends, *adds, *more)]
    run.forget()
    evaluate(logits, embed, last, rest)
    added = dict(zip(adds, rest, strict=False))
    return Written(logits, embed, added, last, dict(zip(more, rest[len(adds) :], strict=True)))


def _out_proj(layout: Layout, layer: int) -> str:
    roles = layout.roles(layer)
    return layout.role(layer, roles.attn, roles.out_proj)


@dataclass(frozen=True)
class Readout:
    """The model's end as a linear functional of the last residual stream.

    Attributes:
        end: The functional; its constant is the bias of the final norm and of the head.
        logit: What it gives in this run: the logit, before the cap where there is one.
        capped: The logit behind the cap; None without one.
        cap: The cap; None without one.
    """

    end: Functional
    logit: float
    capped: float | None
    cap: float | None


def read_out(
    model: InterpretableModel, written: Written, chosen: int, against: int | None
) -> Readout:
    """The functional that gives a logit, or its difference to another one.

    Raises:
        AnalysisError: if the model's end has no such form.
    """
    head = partial(model.finish_from, skip_norm=True)
    stream = written.last.astype(mx.float32).reshape(1, 1, -1)
    norm = model.layout.modules.get(model.adapter.final_norm)
    normed = stream if norm is None else norm(stream).astype(mx.float32)
    before, cap = soft_cap(head, normed)
    answers: Any = mx.arange(before.shape[0])
    which = (answers == chosen).astype(mx.float32)
    if against is not None:
        which = which - (answers == against).astype(mx.float32)
    end = through_affine(head, Functional(which), normed.shape[-1])
    if norm is not None:
        end = through_norm(norm, end, stream.reshape(-1), model.adapter.final_norm)
    terms = end.weight * stream.reshape(-1)
    ours, wanted = number(mx.sum(terms)) + end.constant, number(mx.sum(which * before))
    if not (math.isfinite(ours) and math.isfinite(wanted)):
        raise AnalysisError("the logit, or the residual stream, is not a finite number.")
    if not abs(ours - wanted) <= FORM * (number(mx.sum(mx.abs(terms))) + abs(end.constant)):
        raise AnalysisError(
            f"the linear readout gives {ours:.6g} where the model's own tail gives {wanted:.6g}, "
            "so the logit is no sum of what the layers add in this model."
        )
    shown = number(mx.sum(which * written.logits.astype(mx.float32)))
    return Readout(end, shown, None, None) if cap is None else Readout(end, wanted, shown, cap)


def split_heads(model: InterpretableModel, end: Functional, written: Written, layer: int) -> Split:
    """Each head's part of what attention adds to the logit, (H,), and the bias's.

    Raises:
        AnalysisError: if they do not sum to it.
    """
    layout, roles = model.layout, model.layout.roles(layer)
    path = _out_proj(layout, layer)
    after = Functional(end.weight * layout.factor(layer, roles.attn_scale))
    if roles.post_attn_norm:
        name = layout.role(layer, roles.post_attn_norm)
        at = written.more[f"layers.{layer}.attn_out"]
        after = through_norm(layout.modules[name], after, at, name)
    mixed = written.more[f"{path}.input"]
    before = through_affine(layout.modules[path], after, mixed.shape[-1])
    by_head = (before.weight * mixed.astype(mx.float32)).reshape(layout.heads(layer), -1)
    parts = mx.sum(by_head, axis=1), before.constant
    return _closed(parts, end.weight, written.adds["attn_add", layer], f"heads of layer {layer}")


def split_neurons(
    model: InterpretableModel, end: Functional, written: Written, layer: int
) -> Split:
    """Each neuron's part of what the MLP adds to the logit, (F,), and the bias's.

    Raises:
        AnalysisError: if they do not sum to it.
    """
    layout, roles = model.layout, model.layout.roles(layer)
    path = layout.role(layer, roles.mlp, roles.down_proj)
    after = Functional(end.weight * layout.factor(layer, roles.mlp_scale))
    if roles.post_mlp_norm:
        name = layout.role(layer, roles.post_mlp_norm)
        at = written.more[f"layers.{layer}.mlp_out"]
        after = through_norm(layout.modules[name], after, at, name)
    active = written.more[f"layers.{layer}.mlp_act"]
    before = through_affine(layout.modules[path], after, active.shape[-1])
    parts = before.weight * active.astype(mx.float32), before.constant
    return _closed(parts, end.weight, written.adds["mlp_add", layer], f"neurons of layer {layer}")


def _closed(split: Split, weight: mx.array, whole: mx.array, what: str) -> Split:
    """The parts and the bias, after a check that they sum to what the vector `whole` adds."""
    parts, bias = split
    terms = weight * whole.astype(mx.float32)
    found, wanted = number(mx.sum(parts)) + bias, number(mx.sum(terms))
    if not (math.isfinite(found) and math.isfinite(wanted)):
        raise AnalysisError(f"the {what} are not finite numbers.")
    size = number(mx.sum(mx.abs(terms)) + mx.sum(mx.abs(parts))) + abs(bias)
    if not abs(found - wanted) <= max(FORM, 4 * mx.finfo(whole.dtype).eps) * size:
        raise AnalysisError(
            f"the {what} sum to {found:.6g} and what the layer adds is {wanted:.6g}, so they are "
            "not all of it in this model. Leave them together with heads=False or neurons=False."
        )
    return split
