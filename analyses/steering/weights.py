"""Ablating a direction in the weights: every matrix that writes to the stream is projected."""

from __future__ import annotations

from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.checks.arguments import checked
from mlxray.errors import EditError
from mlxray.points.layout import Layout
from mlxray.run.run import Run
from mlxray.seams.instrument import own_class

from ..patching.compare import relative_error
from .ablation import ablate_stream, unit
from .weight_edit import CALLED, WeightEdit

#: Names of the projection that a state space, a convolution or the like ends with.
_MIXER_OUT = ("out_proj", "o_proj", "dense", "linear_out")
#: Names of the experts' last projection, where it is called otherwise than a dense MLP's.
_EXPERTS_OUT = ("w2", "fc2")
#: Tokens that the edited model is tried on.
_TRIED = 8
#: What rounding may leave of the stream along the direction, and of a difference between the edit
#: and the projection, as shares of stream and logits.
_LEFT = {mx.float32: 1e-4, mx.float16: 1e-2, mx.bfloat16: 5e-2}


@checked("direction")
def orthogonalize_weights(model: InterpretableModel, direction: mx.array) -> WeightEdit:
    """Change the weights so that nothing writes a direction to the residual stream.

    ``W - r rᵀ W`` for each matrix that writes to it, its bias and the tables of embeddings
    included (Arditi et al. 2024, arXiv:2406.11717). The model then computes what
    `ablate_stream` makes of the unchanged one. A table that is the output head as well (tied
    embeddings) keeps its numbers as head, and embeds with the projected ones.

    The edited model is tried on a few tokens; if its stream still has the direction, or its logits
    are not those of the projection, the weights are put back and the reason is raised.

    Args:
        model: The model; it is changed until the handle's `undo`.
        direction: (D,), of any length.

    Raises:
        InputError: if the direction cannot be one.
        EditError: if weights are quantised (project at inference with `ablate_stream`, or
            dequantise first), a norm stands between a sub-layer and the stream, or something
            else writes to it.
        AddressError: if the model has no single stream, or no table of embeddings.
    """
    r, layout = unit(direction), model.layout
    writers = _writers(layout)
    for path, module, _ in writers:
        _check(path, module, r)
    expected = model.run_with_hooks(_tokens(model), ablate_stream(model, direction))
    edit = WeightEdit()
    try:
        for path, module, tied in writers:
            if tied:
                table: Any = copy(getattr(own_class(module), CALLED, module))
                table.weight = _without(r, table.weight, -1).astype(table.weight.dtype)
                evaluate(table.weight)
                edit.call_instead(path, module, table)
                continue
            axis = -1 if _is_embedding(module) else -2
            edit.replace(path, module, "weight", _without(r, module.weight, axis))
            if "bias" in module:
                edit.replace(path, module, "bias", _without(r, module.bias, -1))
        _try(model, r, expected)
    except BaseException:
        edit.undo()
        raise
    return edit


def _writers(layout: Layout) -> list[tuple[str, nn.Module, bool]]:
    """Path, module, and whether it is a tied table of embeddings."""
    adapter = layout.adapter
    found = {adapter.embed: _is_head(layout)}
    if adapter.positions:
        found[adapter.positions] = False
    for layer in range(layout.n_layers):
        roles, block = layout.roles(layer), layout.block(layer)
        for norm in (roles.post_attn_norm, roles.post_mlp_norm):
            if norm is not None:
                raise EditError(
                    f"layer {layer} has a norm between a sub-layer and the stream ({norm!r}): no "
                    "weights before it keep its output off a direction. Use ablate_stream()."
                )
        for part, ends in (
            (roles.attn, (roles.out_proj,)),
            (roles.mlp, (roles.down_proj.rpartition(".")[2],)),
            (roles.mixer, _MIXER_OUT),
        ):
            if part is None:
                continue
            inside = f"{block}.{part}" if part else block
            found |= dict.fromkeys(_ending(layout, inside, ends), False)
            if part == roles.mlp:
                found |= dict.fromkeys(_experts(layout, inside, ends[0]), False)
    for path in found:
        layout.need(path)
    return [(path, layout.modules[path], tied) for path, tied in found.items()]


def _is_head(layout: Layout) -> bool:
    """Whether the table of embeddings gives the logits, even where there is a head besides."""
    head, tied = layout.output_head()
    run = Run(layout)
    calls = run.handler(head)
    run.execute(mx.zeros((1, 1), dtype=mx.int32))
    return tied or calls.count == 0


def _ending(layout: Layout, inside: str, ends: tuple[str, ...]) -> list[str]:
    """Paths inside a module whose end is one of the names: every expert's, where there are some."""
    return [
        path
        for path in layout.modules
        if path.startswith(inside + ".") and any(f".{path}".endswith(f".{end}") for end in ends)
    ]


def _experts(layout: Layout, inside: str, last: str) -> list[str]:
    """Last projections of experts that call it otherwise than `last`.

    Beside a `last` such a name is another matrix: Qwen's ``w2`` goes up, to ``c_proj``.
    """
    paths = _ending(layout, inside, _EXPERTS_OUT)
    return [path for path in paths if f"{path.rpartition('.')[0]}.{last}" not in layout.modules]


def _is_embedding(module: nn.Module) -> bool:
    return issubclass(own_class(module), nn.Embedding)


def _check(path: str, module: nn.Module, r: mx.array) -> None:
    if "scales" in module:
        raise EditError(
            f"{path!r} is quantised: its weights cannot be projected exactly, and quantising the "
            "result again would bring the direction back. Use ablate_stream(), or dequantise "
            "first: InterpretableModel(mlx_lm.utils.dequantize_model(model.model), …)."
        )
    weight = module["weight"] if "weight" in module else None
    fits = isinstance(weight, mx.array) and weight.ndim > 1
    if weight is None or not fits or not mx.issubdtype(weight.dtype, mx.floating):
        raise EditError(
            f"{path!r} is {own_class(module).__name__}, without a matrix of its own: fuse or "
            "unwrap it first, or use ablate_stream()."
        )
    width = weight.shape[-1 if _is_embedding(module) else -2]
    if width != r.shape[0]:
        raise EditError(f"{path!r} writes {width} dimensions; the direction has {r.shape[0]}.")


def _without(r: mx.array, array: mx.array, axis: int) -> mx.array:
    """An array with the direction taken out of one axis, float32."""
    last = mx.moveaxis(array.astype(mx.float32), axis, -1)
    return mx.moveaxis(last - (last @ r)[..., None] * r, -1, axis)


def _tokens(model: InterpretableModel) -> list[int]:
    """A few tokens to try the edit on."""
    return list(range(min(_TRIED, model.tokens.vocabulary or _TRIED)))


def _try(model: InterpretableModel, r: mx.array, expected: mx.array) -> None:
    """See that the stream has no part along the direction, and that the logits are as expected.

    Raises:
        EditError: if it is otherwise.
    """
    if not mx.all(mx.isfinite(mx.logsumexp(expected, axis=-1))).item():
        raise EditError("the model's logits are not finite numbers with the direction ablated.")
    for layer, stream in model.watch(_tokens(model), "resid_post").items():
        exact = stream.astype(mx.float32)
        left = number(mx.max(mx.abs(exact @ r) / mx.linalg.norm(exact, axis=-1)))
        if not left <= _LEFT.get(stream.dtype, 1e-4):
            raise EditError(
                f"with all known matrices projected, layer {layer} still writes the direction "
                f"({left:.2g} of the stream): something else writes to it. Use ablate_stream()."
            )
    logits = model.run_with_hooks(_tokens(model))
    error = relative_error(logits, expected)
    if not error <= _LEFT.get(logits.dtype, 1e-4):
        raise EditError(
            "the projected weights do not give what the projection at inference gives (the logits "
            f"differ by {error:.2g} of the largest), as where a matrix has another use besides, "
            "or is followed by a norm. Use ablate_stream()."
        )
