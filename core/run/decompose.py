"""What a cache's residual stream is the sum of, and what the parts add to a logit.

Methods of `ActivationCache` under TransformerLens's names. Everything is taken from what the run
kept and from the model's own norm and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import mlx.core as mx

from ..arrays import evaluate
from ..checks.arguments import checked, whole_number
from ..errors import AddressError, InputError, PointAbsent
from ..points.layout import Layout
from ..points.vocabulary import AddressLike
from .parts.frozen import Functional, held_scales, soft_cap, through_affine, through_norm
from .parts.stream import added_points, check_sum
from .tail import finish_from


class Kept(Protocol):
    """What is needed of a cache."""

    layout: Layout
    metadata: dict[str, Any] | None

    def __getitem__(self, address: AddressLike) -> Any: ...

    def __contains__(self, address: object) -> bool: ...


Labelled = tuple[mx.array, list[str]]
Position = int | slice | None


@checked("cache", "pos_slice")
def decompose_resid(
    cache: Kept,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    mode: Literal["all", "attn", "mlp"] = "all",
    incl_embeds: bool = True,
    pos_slice: Position = None,
    return_labels: bool = False,
) -> mx.array | Labelled:
    """The parts of the stream that enters a layer: they sum to it.

    Args:
        cache: The cache, of everything or of the parts.
        layer: Which layer's input; None (or -1) for the stream that leaves the last one.
        mlp_input: Also what this layer's attention added, so the sum is its `resid_mid`.
        mode: ``"attn"`` and ``"mlp"`` leave the other sub-layers out.
        incl_embeds: Begin with `embed`, which has learned positions in it.
        pos_slice: A position or a slice of them.
        return_labels: Give their addresses as well.

    Returns:
        (parts, B, S, D), without S for one position.

    Raises:
        AddressError: if the run did not keep one of them, or there is no such layer.
        AnalysisError: if they do not sum to the stream, where the run kept that.
    """
    end = _end(cache, layer)
    wanted = {"all": ("attn_add", "mixer_add", "mlp_add"), "mlp": ("mlp_add",)}
    chosen = wanted.get(mode, ("attn_add", "mixer_add"))
    own = [(p, x) for p, x in added_points(cache.layout) if x < end]
    if mlp_input:
        cache.layout.site(("resid_mid", _inside(cache, end)))
        own += [(p, x) for p, x in added_points(cache.layout) if x == end and p != "mlp_add"]
    points: list[AddressLike] = ["embed"] if incl_embeds else []
    points += [(p, x) for p, x in own if p in chosen]
    if not points:
        raise InputError(f"nothing of mode {mode!r} is added before layer {end}.")
    parts = [cache[point] for point in points]
    whole = _stream(cache, end, mlp_input)
    if mode == "all" and incl_embeds and whole in cache:
        check_sum(parts, cache[whole])
    return _stacked(cache, parts, points, pos_slice, return_labels)


@checked("cache", "pos_slice")
def accumulated_resid(
    cache: Kept,
    layer: int | None = None,
    *,
    incl_mid: bool = False,
    mlp_input: bool = False,
    pos_slice: Position = None,
    return_labels: bool = False,
) -> mx.array | Labelled:
    """The stream as each layer up to `layer` receives it, the last one as it leaves.

    Args:
        cache: The cache, of everything or of the streams.
        layer: The last one; None (or -1) ends with the stream that leaves the model's last layer.
        incl_mid: Also between attention and MLP.
        mlp_input: End with this layer's `resid_mid`.
        pos_slice: A position or a slice of them.
        return_labels: Give the addresses as well.

    Returns:
        (streams, B, S, D), without S for one position.

    Raises:
        AddressError: if the run did not keep one of them, or there is no such layer.
    """
    end = _end(cache, layer)
    names = ("resid_pre", "resid_mid") if incl_mid else ("resid_pre",)
    points: list[AddressLike] = [(name, x) for x in range(end) for name in names]
    points.append(_stream(cache, end, False))
    if mlp_input:
        points.append(("resid_mid", _inside(cache, end)))
    return _stacked(cache, [cache[point] for point in points], points, pos_slice, return_labels)


@checked("cache", "pos_slice")
def stack_head_results(
    cache: Kept,
    layer: int | None = None,
    *,
    incl_remainder: bool = False,
    pos_slice: Position = None,
    return_labels: bool = False,
) -> mx.array | Labelled:
    """What each head of the layers before `layer` added to the stream.

    Args:
        cache: With `head_out` of these layers, which is kept only when asked for.
        layer: The first layer that is left out; None (or -1) for all layers.
        incl_remainder: End with the rest of the stream that enters `layer`: MLPs, biases, `embed`.
        pos_slice: A position or a slice of them.
        return_labels: Give their names, ``"L0H1"``, as well.

    Returns:
        (heads, B, S, D), without S for one position.

    Raises:
        AddressError: if the run did not keep one of them, or there is no such layer.
        PointAbsent: if a norm stands between the heads and the stream (Gemma 2).
    """
    end, layout = _end(cache, layer), cache.layout
    layers = [x for p, x in added_points(layout) if p == "attn_add" and x < end]
    missing = [("head_out", x) for x in layers if ("head_out", x) not in cache]
    parts, labels = [], []
    for x in layers:
        roles = layout.roles(x)
        layout.site(("head_out", x))
        if roles.post_attn_norm:
            raise PointAbsent(
                "share of a head in the stream",
                f"{roles.post_attn_norm!r} stands between the heads of layer {x} and the stream. "
                "model.direct_logit_attribution(…) holds its scale fixed.",
            )
        if missing:
            raise AddressError(
                f"the run did not keep {missing[0]!r}. Ask for it: model.run_with_cache(prompt, "
                '[("head_out", layer) for layer in range(model.cfg.n_layers)]).'
            )
        shares = cache["head_out", x] * layout.factor(x, roles.attn_scale)
        parts += [shares[:, head] for head in range(shares.shape[1])]
        labels += [f"L{x}H{head}" for head in range(shares.shape[1])]
    if incl_remainder:
        stream = cache[_stream(cache, end, False)]
        parts.append(stream - sum(parts) if parts else stream)
        labels.append("remainder")
    if not parts:
        raise InputError(f"there are no heads before layer {end}.")
    stack = _at(cache, mx.stack(parts), pos_slice)
    evaluate(stack)
    return (stack, labels) if return_labels else stack


@checked("cache", "tokens", "incorrect_tokens", "pos_slice")
def logit_attrs(
    cache: Kept,
    residual_stack: mx.array,
    tokens: Any,
    incorrect_tokens: Any = None,
    *,
    pos_slice: Position = None,
) -> mx.array:
    """What parts of the last stream add to a token's logit, or to a difference of two.

    The final norm's scale is held at its value in this run. With `decompose_resid` the parts sum to
    the logit, but for the biases of final norm and head, which are no part of the stream. Where
    the model caps its logits, that is the logit before the cap.

    Args:
        cache: With the last layer's `resid_post`.
        residual_stack: (parts, B, S, D), or (parts, B, D) for one position.
        tokens: A token id, or an id for each prompt (B) or for each position (B, S).
        incorrect_tokens: The same, of the logit that is subtracted.
        pos_slice: The positions that the stack was made with.

    Returns:
        (parts, B, S) float32, without S for one position.

    Raises:
        InputError: for a stack of another shape, or tokens that are no ids of the vocabulary.
        AnalysisError: if the model's norm or head has another form; see `frozen`.
    """
    layout = cache.layout
    stream = _at(cache, cache["resid_post", layout.n_layers - 1][None], pos_slice)[0]
    if residual_stack.ndim != stream.ndim + 1 or residual_stack.shape[1:] != stream.shape:
        raise InputError(
            f"the stack has shape {residual_stack.shape}; with this pos_slice it is (parts, "
            f"{', '.join(map(str, stream.shape))})."
        )
    points = stream.astype(mx.float32).reshape(stream.shape[0], -1, stream.shape[-1])
    head = partial(finish_from, layout, skip_norm=True)
    norm, name = layout.modules.get(layout.adapter.final_norm), layout.adapter.final_norm
    first = points[:1, :1]
    vocabulary = soft_cap(head, first if norm is None else norm(first))[0].shape[0]
    chosen = _ids(tokens, points.shape[:2], vocabulary, "tokens")
    against = None
    if incorrect_tokens is not None:
        against = _ids(incorrect_tokens, points.shape[:2], vocabulary, "incorrect_tokens")

    def direction(token: int, other: int | None) -> mx.array:
        which = (mx.arange(vocabulary) == token).astype(mx.float32)
        if other is not None:
            which = which - (mx.arange(vocabulary) == other).astype(mx.float32)
        end = through_affine(head, Functional(which), points.shape[-1])
        return (end if norm is None else through_norm(norm, end, first.reshape(-1), name)).weight

    pairs = [
        [(token, None if against is None else against[b][s]) for s, token in enumerate(row)]
        for b, row in enumerate(chosen)
    ]
    known = {pair: direction(*pair) for pair in {pair for row in pairs for pair in row}}
    weights = mx.stack([mx.stack([known[pair] for pair in row]) for row in pairs])
    if norm is not None:
        scales = held_scales(norm, points, name)
        weights = weights * (scales / scales[:1, :1])
    stack = residual_stack.astype(mx.float32).reshape(-1, *points.shape)
    found = (stack * weights).sum(axis=-1).reshape(residual_stack.shape[:-1])
    evaluate(found)
    return found


def _end(cache: Kept, layer: int | None) -> int:
    """The layer that the stream enters; the number of layers for what leaves the last one."""
    count = cache.layout.n_layers
    if layer is None or layer in (-1, count):
        return count
    if not 0 <= layer < count:
        raise AddressError(
            f"there is no layer {layer}: write 0 to {count - 1}, or None for the last stream."
        )
    return layer


def _inside(cache: Kept, end: int) -> int:
    if end == cache.layout.n_layers:
        raise InputError("mlp_input needs the layer whose MLP it is.")
    return end


def _stream(cache: Kept, end: int, mid: bool) -> AddressLike:
    if mid:
        return ("resid_mid", end)
    last = cache.layout.n_layers - 1
    return ("resid_pre", end) if end <= last else ("resid_post", last)


def _stacked(
    cache: Kept,
    parts: Sequence[mx.array],
    points: Sequence[AddressLike],
    pos_slice: Position,
    return_labels: bool,
) -> mx.array | Labelled:
    stack = _at(cache, mx.stack(list(parts)), pos_slice)
    evaluate(stack)
    return (stack, [cache.layout.site(p).key for p in points]) if return_labels else stack


def _at(cache: Kept, stack: mx.array, pos_slice: Position) -> mx.array:
    """The positions of (parts, B, S, D) that were asked for."""
    if pos_slice is None:
        return stack
    if len({len(row) for row in (cache.metadata or {}).get("tokens", [])}) > 1:
        raise InputError(
            "the prompts have different lengths, so a position is not the same in each: leave "
            "pos_slice out and index the rows."
        )
    if isinstance(pos_slice, slice):
        return stack[:, :, pos_slice]
    position, length = whole_number(pos_slice, "pos_slice"), stack.shape[2]
    if not -length <= position < length:
        raise InputError(f"the prompts have {length} tokens; there is no position {position}.")
    return stack[:, :, position]


def _ids(tokens: Any, shape: Sequence[int], vocabulary: int, name: str) -> list[list[int]]:
    """An id for each row and position."""
    if isinstance(tokens, str):
        raise InputError(f"{name} are token ids: model.to_single_token({tokens!r}).")
    rows, positions = shape
    given = tokens.tolist() if hasattr(tokens, "tolist") else tokens
    table: list[list[Any]]
    if not isinstance(given, (list, tuple)):
        table = [[given] * positions] * rows
    else:
        table = [[r] * positions if not isinstance(r, (list, tuple)) else list(r) for r in given]
    if len(table) != rows or any(len(row) != positions for row in table):
        raise InputError(
            f"{name} are one id, one for each of {rows} prompt(s), or one for each position, "
            f"({rows}, {positions})."
        )
    found = [[whole_number(token, name) for token in row] for row in table]
    if outside := [t for row in found for t in row if not 0 <= t < vocabulary]:
        raise InputError(
            f"token id {outside[0]} is outside the vocabulary (0 to {vocabulary - 1})."
        )
    return found
