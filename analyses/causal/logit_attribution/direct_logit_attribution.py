"""Direct logit attribution: what each component writes towards a token's logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import InputError
from mlxray.run.parts.stream import added_points, check_sum

from ...datasets.targets import Token, token_id
from ...prompts import one_prompt, token_texts
from .logit_parts import read_out, see, split_heads, split_neurons
from .result import DLAResult


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
    with_heads = _with_point(model, "head_out", "attn_add", wanted) if heads else []
    with_neurons = _with_point(model, "mlp_act", "mlp_add", wanted) if neurons else []
    written = see(model, batch.ids, at, with_heads, with_neurons)
    if chosen is None:
        chosen = int(number(mx.argmax(written.logits)))
    if chosen == against:
        raise InputError(f"the target and the incorrect token are the same ({chosen}).")
    check_sum([written.embed, *written.adds.values()], written.last)

    found = read_out(model, written, chosen, against)
    end = found.end
    parts = {key: number(end.of(vector)) for key, vector in written.adds.items()}
    by_head = {x: split_heads(model, end, written, x) for x in with_heads}
    by_neuron = {x: split_neurons(model, end, written, x) for x in with_neurons}
    names = token_texts(model, [chosen] if against is None else [chosen, against])
    return DLAResult(
        head_contributions=mx.array([parts.get(("attn_add", x), 0.0) for x in wanted]),
        mlp_contributions=mx.array([parts.get(("mlp_add", x), 0.0) for x in wanted]),
        target_token=chosen,
        target_token_str=names[0],
        layers=wanted,
        tokens=texts,
        position=at,
        embedding=number(end.of(written.embed)),
        other_layers=sum(value for (_, layer), value in parts.items() if layer not in wanted),
        constant=end.constant,
        logit=found.logit,
        heads={layer: split for layer, (split, _) in by_head.items()},
        attention_bias=mx.array([by_head[x][1] if x in by_head else 0.0 for x in wanted]),
        neurons={layer: split for layer, (split, _) in by_neuron.items()},
        mlp_bias=mx.array([by_neuron[x][1] if x in by_neuron else 0.0 for x in wanted]),
        mixers={x: parts["mixer_add", x] for x in wanted if ("mixer_add", x) in parts},
        capped_logit=found.capped,
        cap=found.cap,
        incorrect_token=against,
        incorrect_token_str=names[-1] if against is not None else None,
    )


def _with_point(
    model: InterpretableModel, point: str, added: str, layers: Sequence[int]
) -> list[int]:
    """Layers that have the sub-layer; each of them must have the point inside it."""
    present = [x for x in layers if (added, x) in added_points(model.layout)]
    for layer in present:
        model.layout.site((point, layer))
    return present


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Direct logit attribution."""
    return [direct_logit_attribution]
