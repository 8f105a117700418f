"""Inside one block's attention: heads, output projection, and where its operands come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mlxray import FusedAttention, OwnSoftmax
from mlxray.points.vocabulary import ATTENTION_POINTS

from .record import Array, Attention, Seen
from .sums import close

if TYPE_CHECKING:
    from .parts import Block

#: Correlation of ranks; half precision swaps neighbours.
SAME_ORDER = 0.99

ADDITIVE = "the model adds numbers of its own to scale · q @ k (a position's part of the scores)"

GATED = "what enters the output projection is not z alone (a gate or a norm stands between)"


def attention_facts(block: Block) -> None:
    """Add what the adapter says of attention to the block's changes."""
    if block.changes["attn"] is None:
        if block.attentions:
            refuse(block, "attention is computed here, and no module's output is attention's alone")
        return
    count = len(block.attentions)
    if count != 1:
        refuse(block, f"attention is computed {count} times in this block", inside_only=True)
        return
    attention = block.attentions[0]
    if attention.q is not None and attention.k is not None and attention.z is not None:
        block.changes["attention"] = FusedAttention()
        heads, kv_heads = attention.q.shape[1], attention.k.shape[1]
        _out_proj(block, heads, attention.z)
        if attention.additive is not None and _is_more_than_a_mask(attention.additive):
            block.departures["scores"] = ADDITIVE
    else:
        found = _own_softmax(block, attention)
        if found is None:
            return
        heads, kv_heads = found
    block.changes["heads"] = _counter(block, heads, kv=False)
    block.changes["kv_heads"] = _counter(block, kv_heads, kv=True)


def _is_more_than_a_mask(added: Array) -> bool:
    seen = added[added > -1e4]
    return bool(seen.any())


def refuse(block: Block, reason: str, *, inside_only: bool = False) -> None:
    """Declare the attention points absent."""
    outside = () if inside_only else ("attn_out", "attn_add")
    for point in (*ATTENTION_POINTS, "head_out", *outside):
        block.absent[point] = reason


def merged(z: Array) -> Array:
    """(B, H, S, d) → (B, S, H·d)."""
    batch, heads, tokens, width = z.shape
    result: Array = z.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * width)
    return result


def _attn_calls(block: Block) -> tuple[Seen, list[Seen]]:
    """The attention module's call and the calls within."""
    name = block.changes["attn"]
    path = f"{block.call.path}.{name}" if name else block.call.path
    own = block.call if not name else next(s for s in block.calls if s.path == path)
    return own, [s for s in block.calls if path in s.parents]


def _projection(block: Block) -> Seen | None:
    """The innermost linear module that returned what attention returned."""
    from .parts import is_linear

    own, inside = _attn_calls(block)
    if not block.changes["attn"]:
        path = f"{block.call.path}.{block.changes['out_proj']}"
        return next(s for s in block.calls if s.path == path)
    found = [s for s in inside if close(s.output, own.output, 0) and is_linear(s)]
    return found[-1] if found else None


def _out_proj(block: Block, heads: int, z: Array) -> None:
    projection = _projection(block)
    if projection is None or projection.input is None:
        block.absent["head_out"] = "no single linear module gives what attention returns"
        return
    _name_projection(block, projection)
    if close(projection.input, merged(z), 1e-6):
        return
    block.departures["out_proj"] = GATED
    if projection.input.shape[-1] != heads * z.shape[-1]:
        block.absent["head_out"] = "the output projection takes something else than heads"


def _name_projection(block: Block, projection: Seen) -> None:
    inside = block.changes["attn"]
    name = block.name(projection).removeprefix(inside).removeprefix(".")
    block.changes["out_proj"] = name


def _own_softmax(block: Block, attention: Attention) -> tuple[int, int] | None:
    """Queries, keys and values of a softmax that the model writes itself, by trying."""
    projection, pattern = _projection(block), attention.pattern
    if projection is None or projection.input is None or pattern is None:
        refuse(block, "attention's output projection cannot be told", inside_only=True)
        return None
    _name_projection(block, projection)
    heads = pattern.shape[1]
    _, inside = _attn_calls(block)
    before = [s for s in inside if s.time < projection.time]
    values = _values(before, pattern, projection.input)
    if values is None:
        reason = "no module returns the values that the pattern mixes"
        block.absent |= {"v": reason, "z": reason}
    v, kv_heads = values or ("v_proj", heads)
    pair = _queries_and_keys(before, attention.scores, heads)
    if pair is None:
        reason = "no module returns the queries and keys that give the scores"
        block.absent |= {"q": reason, "k": reason}
    q, k = pair or ("rope#0", "rope#1")
    names = [_inside(block, s) if isinstance(s, Seen) else s for s in (q, k, v)]
    block.changes["attention"] = OwnSoftmax(*names)
    return heads, kv_heads


def _inside(block: Block, seen: Seen) -> str:
    prefix = block.changes["attn"]
    name = block.name(seen).removeprefix(prefix).removeprefix(".")
    times = sum(s.path == seen.path for s in block.calls)
    return f"{name}#{seen.index}" if times > 1 else name


def _values(before: list[Seen], pattern: Array, entering: Array) -> tuple[Seen, int] | None:
    batch, heads, tokens, _ = pattern.shape
    width = entering.shape[-1] // heads
    for seen in before:
        out = seen.output
        if (
            out is None
            or out.ndim != 3
            or out.shape[-1] % width
            or heads % (out.shape[-1] // width)
        ):
            continue
        kv_heads = out.shape[-1] // width
        v = out.reshape(batch, tokens, kv_heads, width).transpose(0, 2, 1, 3)
        z = pattern @ np.repeat(v, heads // kv_heads, axis=1)
        if close(merged(z), entering, 1e-2):
            return seen, kv_heads
    return None


def _queries_and_keys(
    before: list[Seen], scores: Array | None, heads: int
) -> tuple[Seen, Seen] | None:
    """Two calls whose products give the scores in their order, scaled or capped."""
    if scores is None:
        return None
    seen_keys = scores > -1e4
    ranks = _ranks(scores[seen_keys])
    split = [s for s in before if s.output is not None and s.output.ndim == 4]
    for q, k in ((q, k) for q in split for k in split if q is not k):
        a, b = q.output, k.output
        assert a is not None and b is not None
        if a.shape[1] != heads or heads % b.shape[1] or a.shape[-1] != b.shape[-1]:
            continue
        dots = a @ np.repeat(b, heads // b.shape[1], axis=1).swapaxes(-1, -2)
        if np.corrcoef(_ranks(dots[seen_keys]), ranks)[0, 1] > SAME_ORDER:
            return q, k
    return None


def _ranks(values: Array) -> Array:
    result: Array = np.argsort(np.argsort(values))
    return result


def _counter(block: Block, count: int, *, kv: bool) -> str | int:
    """An attribute of the attention module that holds this number of heads, or the number."""
    own, _ = _attn_calls(block)
    names = [n for n, value in _attributes(own.module) if value == count and "head" in n.lower()]
    marked = [n for n in names if any(w in n.lower() for w in ("kv", "key"))]
    plain = [n for n in names if n not in marked and "dim" not in n.lower()]
    for name in [*marked, *plain] if kv else plain:
        return name
    return count


def _attributes(module: Any) -> Iterator[tuple[str, int]]:
    for name, value in {**vars(module), **dict(module)}.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield name, value
