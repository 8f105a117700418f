"""Direct logit attribution: what each component writes towards a token's logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import AnalysisError, InputError
from mlxray.results import DLAResult
from mlxray.run import Run

from ..prompts import one_prompt, token_texts
from .frozen import FORM, Functional, soft_cap, through_affine, through_norm
from .residual_stream import check_sum
from .targets import Token, token_id


@analysis(result=DLAResult)
def direct_logit_attribution(
    model: InterpretableModel,
    text: Any,
    target_token: Token | None = None,
    position: int = -1,
    layers: Sequence[int] | None = None,
    incorrect_token: Token | None = None,
    *,
    heads: bool = True,
    neurons: bool = False,
) -> DLAResult:
    """Split a logit into what embedding, heads, MLPs and biases add to it (Elhage et al. 2021).

    The logits are a linear function of the last residual stream once the final norm's scale is
    held at its value in this run, and the residual stream is the sum of what components wrote.
    So the parts sum to the logit exactly, up to rounding, which the result reports. Behind a norm
    that a family puts between attention and the stream (Gemma 2), that norm's scale is held as
    well. Where the model caps its logits with a tanh, the logit before the cap is split; the
    result says so. Everything is obtained by running the model's own modules; what they do not
    keep to (a norm of another form, a stream with something else in it) is refused.

    Args:
        model: The model.
        text: One prompt: text, ids, or an array (S,) or (1, S).
        target_token: An id, or text of one token with its space; the model's own prediction if
            None.
        position: Whose prediction; negative ones count from the end.
        layers: Layers to tell apart; None for all. The others are summed.
        incorrect_token: Split the difference to this token's logit.
        heads: Tell heads apart.
        neurons: Tell the MLPs' neurons apart.

    Raises:
        InputError: for several prompts, no such position, or a target of several tokens.
        PointAbsent: if heads or neurons are asked for and the model does not have them.
        AnalysisError: if the parts do not sum to the logit.
    """
    batch, texts = one_prompt(model, text)
    at = batch.index(0, position)
    wanted = model.layer_indices(layers)
    chosen = None if target_token is None else token_id(model, target_token)
    against = None if incorrect_token is None else token_id(model, incorrect_token)
    _refuse_absent(model, wanted, heads=heads, neurons=neurons)
    seen = _see(model, batch.ids, at, wanted if heads else [], wanted if neurons else [])
    if chosen is None:
        chosen = int(number(mx.argmax(seen.logits)))
    if chosen == against:
        raise InputError(f"the target and the incorrect token are the same ({chosen}).")

    end, logit, capped, cap = _readout(model, seen, chosen, against)
    attention = [_part(end, part) for part in seen.attention]
    mlp = [_part(end, part) for part in seen.mlp]
    check_sum([seen.embed, *seen.attention, *seen.mlp], seen.last)
    split_heads = {x: _heads(model, end, seen, x) for x in wanted if heads}
    split_neurons = {x: _neurons(model, end, seen, x) for x in wanted if neurons}
    others = [i for i in range(len(mlp)) if i not in wanted]
    names = token_texts(model, [chosen] if against is None else [chosen, against])
    return DLAResult(
        head_contributions=mx.array([attention[layer] for layer in wanted]),
        mlp_contributions=mx.array([mlp[layer] for layer in wanted]),
        target_token=chosen,
        target_token_str=names[0],
        layers=wanted,
        tokens=texts,
        position=at,
        embedding=_part(end, seen.embed),
        other_layers=sum(attention[i] + mlp[i] for i in others),
        constant=end.constant,
        logit=logit,
        heads={layer: parts for layer, (parts, _) in split_heads.items()},
        attention_bias=mx.array([split_heads[x][1] if heads else 0.0 for x in wanted]),
        neurons={layer: parts for layer, (parts, _) in split_neurons.items()},
        mlp_bias=mx.array([split_neurons[x][1] if neurons else 0.0 for x in wanted]),
        capped_logit=capped,
        cap=cap,
        incorrect_token=against,
        incorrect_token_str=names[-1] if against is not None else None,
    )


@dataclass
class _Seen:
    """What a run wrote at one position: vectors (D,), by layer where there are several."""

    logits: mx.array
    embed: mx.array
    attention: list[mx.array]
    mlp: list[mx.array]
    last: mx.array
    more: dict[str, mx.array]


def _refuse_absent(
    model: InterpretableModel, layers: Sequence[int], *, heads: bool, neurons: bool
) -> None:
    for layer in layers:
        if heads:
            model.layout.site(("head_out", layer))
        if neurons:
            model.layout.site(("mlp_act", layer))


def _see(
    model: InterpretableModel,
    ids: mx.array,
    at: int,
    head_layers: Sequence[int],
    neuron_layers: Sequence[int],
) -> _Seen:
    adapter, count = model.adapter, model.layout.n_layers
    fixed: list[Any] = ["embed", ("resid_post", count - 1)]
    adds: list[Any] = [(name, i) for name in ("attn_add", "mlp_add") for i in range(count)]
    more = [f"{_out_proj(model, i)}.input" for i in head_layers]
    more += [f"layers.{i}.mlp_act" for i in neuron_layers]
    if adapter.post_attn_norm:
        more += [f"layers.{i}.attn_out" for i in head_layers]
    if adapter.post_mlp_norm:
        more += [f"layers.{i}.mlp_out" for i in neuron_layers]
    run = Run(model.layout, watch=[*fixed, *adds, *more])
    logits = run.execute(ids)
    embed, last, *rest = [run.read(a)[0, at] for a in (*fixed, *adds, *more)]
    run.forget()
    mx.eval(logits[0, at], embed, last, rest)
    found = dict(zip(more, rest[2 * count :], strict=True))
    return _Seen(logits[0, at], embed, rest[:count], rest[count : 2 * count], last, found)


def _out_proj(model: InterpretableModel, layer: int) -> str:
    return model.layout.role(layer, model.adapter.attn, model.adapter.out_proj)


def _readout(
    model: InterpretableModel, seen: _Seen, chosen: int, against: int | None
) -> tuple[Functional, float, float | None, float | None]:
    """The functional of the last stream, the logit, the logit behind the cap, and the cap."""
    head = partial(model.finish_from, skip_norm=True)
    stream = seen.last.astype(mx.float32).reshape(1, 1, -1)
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
    shown = number(mx.sum(which * seen.logits.astype(mx.float32)))
    ours = number(end.of(stream.reshape(-1))) + end.constant
    size = number(mx.sum(mx.abs(end.weight * stream.reshape(-1)))) + abs(end.constant)
    wanted = number(mx.sum(which * before))
    if not abs(ours - wanted) <= FORM * size:
        raise AnalysisError(
            f"the linear readout gives {ours:.6g} where the model's own tail gives {wanted:.6g}: "
            "something stands between the last block and the final norm that is not linear."
        )
    return (end, shown, None, None) if cap is None else (end, wanted, shown, cap)


def _part(functional: Functional, vector: mx.array) -> float:
    return number(functional.of(vector))


def _heads(
    model: InterpretableModel, end: Functional, seen: _Seen, layer: int
) -> tuple[mx.array, float]:
    """Each head's part, and the bias's, of what attention adds."""
    after = Functional(end.weight)
    path = _out_proj(model, layer)
    if model.adapter.post_attn_norm:
        name = model.layout.role(layer, model.adapter.post_attn_norm)
        at = seen.more[f"layers.{layer}.attn_out"]
        after = through_norm(model.layout.modules[name], after, at, name)
    mixed = seen.more[f"{path}.input"]
    before = through_affine(model.layout.modules[path], after, mixed.shape[-1])
    by_head = (before.weight * mixed.astype(mx.float32)).reshape(model.layout.heads(layer), -1)
    parts = mx.sum(by_head, axis=1), before.constant
    return _closed(parts, end.weight, seen.attention[layer], f"heads of layer {layer}")


def _neurons(
    model: InterpretableModel, end: Functional, seen: _Seen, layer: int
) -> tuple[mx.array, float]:
    """Each neuron's part, and the bias's, of what the MLP adds."""
    after = Functional(end.weight)
    if model.adapter.post_mlp_norm:
        name = model.layout.role(layer, model.adapter.post_mlp_norm)
        at = seen.more[f"layers.{layer}.mlp_out"]
        after = through_norm(model.layout.modules[name], after, at, name)
    path = model.layout.role(layer, model.adapter.mlp, model.adapter.down_proj)
    active = seen.more[f"layers.{layer}.mlp_act"]
    before = through_affine(model.layout.modules[path], after, active.shape[-1])
    parts = before.weight * active.astype(mx.float32), before.constant
    return _closed(parts, end.weight, seen.mlp[layer], f"neurons of layer {layer}")


def _closed(
    split: tuple[mx.array, float], weight: mx.array, whole: mx.array, what: str
) -> tuple[mx.array, float]:
    """The parts and the bias, after a check that they sum to what the vector `whole` adds."""
    parts, bias = split
    terms = weight * whole.astype(mx.float32)
    found, wanted = number(mx.sum(parts)) + bias, number(mx.sum(terms))
    size = number(mx.sum(mx.abs(terms)) + mx.sum(mx.abs(parts))) + abs(bias)
    if not abs(found - wanted) <= max(FORM, 4 * mx.finfo(whole.dtype).eps) * size:
        raise AnalysisError(
            f"the {what} sum to {found:.6g} and what the layer adds is {wanted:.6g}: another "
            "operation stands between them and the residual stream. Leave them together with "
            "heads=False or neurons=False."
        )
    return split


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Direct logit attribution."""
    return [direct_logit_attribution]
