"""The parts of one block: who mixes tokens, who does not, and the norms around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from .heads import attention_facts, merged
from .record import Array, Attention, Recording, Seen
from .sums import Term, close, terms_of, tolerance

Changes = dict[str, Any]

NO_SUM = (
    "what the block adds to the residual stream is not the sum of what its modules return "
    "(with constant factors)"
)
EXPERTS = "tokens are routed to experts, each with activations of its own"
SCALED = "the router changes what enters the experts"
NO_READER = "no module receives the residual stream between attention and MLP"
PARALLEL = "attention and MLP run in parallel, on the same stream"


@dataclass
class Block:
    """One block's call and what happened inside.

    Attributes:
        call: The block's own call.
        stream: The residual stream that it receives.
        calls: Calls inside it, in the order in which they ended.
        attentions: Attention computations inside it.
    """

    call: Seen
    stream: Array
    calls: list[Seen]
    attentions: list[Attention]
    changes: Changes = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    departures: dict[str, str] = field(default_factory=dict)

    def name(self, seen: Seen) -> str:
        """A call's module as a path from the block; empty for the block itself."""
        return seen.path[len(self.call.path) :].removeprefix(".")

    @property
    def chain(self) -> list[str]:
        """Modules around the block's attention computation, outermost first, block included."""
        if not self.attentions:
            return []
        parents = self.attentions[0].parents
        return list(parents[parents.index(self.call.path) :])

    def norm_before(self, value: Array | None, stream: Array) -> Seen | None:
        """The norm that makes `value` of `stream`, if there is one."""
        allowed = self.tolerance
        for seen in self.calls:
            made = close(seen.output, value, 0) and is_norm(seen)
            if made and close(seen.input, stream, allowed):
                return seen
        return None

    @property
    def tolerance(self) -> float:
        """Relative error of the stream, in the model's precision."""
        assert self.call.output is not None
        return tolerance(self.call.output)


def block_of(recording: Recording, call: Seen, stream: Array) -> Block:
    """What happened inside a block's call."""
    attentions = [a for a in recording.attentions if call.path in a.parents]
    return Block(call, stream, recording.inside(call.path), attentions)


def is_norm(seen: Seen) -> bool:
    """Whether a module only scales or shifts channels: no parameter of it is a matrix."""
    return all(a.ndim < 2 for m in seen.module.modules() for a in m.values() if _array(a)) and (
        seen.input is not None and seen.output is not None and seen.input.shape == seen.output.shape
    )


def _array(value: Any) -> bool:
    return isinstance(value, mx.array)


def find_parts(recording: Recording, call: Seen, stream: Array) -> Changes:
    """Fields of the adapter, as they hold for one block.

    Args:
        recording: The tiny forward.
        call: The block's call.
        stream: The residual stream that the block receives.
    """
    block = block_of(recording, call, stream)
    pre, post = block.stream, call.output
    assert pre is not None and post is not None
    terms = terms_of(post - pre, block.calls, block.tolerance)
    block.changes.update(
        attn=None,
        mlp=None,
        mixer=None,
        attn_norm=None,
        mlp_norm=None,
        post_attn_norm=None,
        post_mlp_norm=None,
        attn_scale=1.0,
        mlp_scale=1.0,
    )
    if terms is None:
        _without_sum(block)
    else:
        _with_sum(block, terms, pre)
    attention_facts(block)
    if "resid_mid" in block.absent:
        block.departures.pop("post", None)
    return {**block.changes, "absent": block.absent, "departures": block.departures}


def _without_sum(block: Block) -> None:
    """The block as a whole is no sum; its first half may be one, read by the MLP's norm."""
    first = ("attn_add",) if block.attentions else ("mixer_out", "mixer_add")
    for point in (*first, "mlp_add", "resid_mid", "mlp_out", "mlp_act"):
        block.absent[point] = NO_SUM
    for reader in block.calls:
        if not is_norm(reader) or reader.input is None or close(reader.input, block.stream):
            continue
        if reader.input.shape != block.stream.shape:
            continue
        before = [s for s in block.calls if s.time < reader.time]
        terms = terms_of(reader.input - block.stream, before, block.tolerance, most=1)
        core = _core(block, terms[0].call) if terms else None
        if terms and core is not None and core[0].path in block.chain:
            _first_half(block, reader, core, terms[0].factor)
            return
    _attention_alone(block)


def _first_half(block: Block, reader: Seen, core: tuple[Seen, Seen | None], factor: float) -> None:
    attn, post = core
    block.changes.update(attn=block.name(attn), attn_scale=factor, mlp_norm=block.name(reader))
    block.changes["post_attn_norm"] = block.name(post) if post is not None else None
    norm = block.norm_before(attn.input, block.stream)
    if norm is not None:
        block.changes["attn_norm"] = block.name(norm)
    for point in ("attn_add", "resid_mid"):
        del block.absent[point]
    block.departures["sum"] = NO_SUM
    fed = [s for s in block.calls if close(s.input, reader.output, 0) and s is not reader]
    whole = [s for s in fed if s.output is not None and s.output.shape == block.stream.shape]
    if len({s.path.split(".")[len(block.call.path.split("."))] for s in fed}) == 1 and whole:
        mlp = min(whole, key=lambda s: s.path.count("."))
        block.changes["mlp"] = block.name(mlp)
        for point in ("mlp_out", "mlp_act"):
            del block.absent[point]
        _down_projection(block, mlp)


def _attention_alone(block: Block) -> None:
    for path in block.chain[1:]:
        seen = next(s for s in block.calls if s.path == path)
        if seen.output is not None and seen.output.shape == block.stream.shape:
            block.changes["attn"] = block.name(seen)
            return


def _with_sum(block: Block, terms: list[Term], pre: Array) -> None:
    mid = pre
    mlp: tuple[Seen, Seen | None, float] | None = None
    for term in terms:
        core, post = _core(block, term.call)
        post_name = block.name(post) if post is not None else None
        if core.path in block.chain or _is_projection_of_attention(block, core):
            inline = core.path not in block.chain
            block.changes["attn"] = "" if inline else block.name(core)
            if inline:
                block.changes["out_proj"] = block.name(core)
            block.changes.update(attn_scale=term.factor, post_attn_norm=post_name)
            norm = block.norm_before(core.input, pre) if not inline else None
            if norm is not None:
                block.changes["attn_norm"] = block.name(norm)
            mid = mid + term.factor * _value(term.call)
        elif mlp is None and _is_mixer(block, core, term, terms):
            block.changes["mixer"] = block.name(core)
            if block.changes["attn"] is None:
                block.changes.update(attn_scale=term.factor, post_attn_norm=post_name)
            norm = block.norm_before(core.input, pre)
            if norm is not None:
                block.changes["attn_norm"] = block.name(norm)
            mid = mid + term.factor * _value(term.call)
        elif mlp is None:
            mlp = core, post, term.factor
        else:
            _more_than_one(block, term, mlp[0])
    if mlp is not None and "mlp_out" not in block.absent:
        _mlp(block, *mlp, pre, mid)
    elif mlp is None:
        block.absent["resid_mid"] = "this block has one sub-layer only"


def _more_than_one(block: Block, term: Term, mlp: Seen) -> None:
    """A third sub-layer: a part of the MLP if it reads the same, else one of its own."""
    name = block.name(term.call)
    if close(term.call.input, mlp.input, 0):
        reason = f"the MLP is the sum of {block.name(mlp)!r} and {name!r}"
        for point in ("mlp_out", "mlp_add", "mlp_act", "resid_mid"):
            block.absent[point] = reason
    else:
        reason = f"{name!r} adds to the residual stream beside attention and MLP"
        block.departures["post"] = reason
    block.departures["sum"] = reason


def _value(seen: Seen) -> Array:
    assert seen.output is not None
    return seen.output


def _core(block: Block, seen: Seen) -> tuple[Seen, Seen | None]:
    """A sub-layer and the norm behind it, of the call whose output reaches the stream."""
    if not is_norm(seen):
        return seen, None
    for earlier in block.calls:
        made = earlier.time < seen.time and close(earlier.output, seen.input, 0)
        if made and not is_norm(earlier):
            return _outermost(block, earlier), seen
    return seen, None


def _outermost(block: Block, seen: Seen) -> Seen:
    """The outermost module that returned the same as `seen`."""
    same = [s for s in block.calls if close(s.output, seen.output, 0)]
    return min(same, key=lambda s: s.path.count("."))


def _is_projection_of_attention(block: Block, core: Seen) -> bool:
    """Whether attention is written out in the block, and this is its output projection."""
    if len(block.chain) != 1 or not block.attentions:
        return False
    z = block.attentions[0].z
    return z is not None and close(core.input, merged(z))


def _is_mixer(block: Block, core: Seen, term: Term, terms: list[Term]) -> bool:
    """Whether a sub-layer stands where attention would: some feed-forwards mix tokens too."""
    if block.changes["mixer"] is not None:
        return False
    first_of_two = term is terms[0] and len(terms) > 1 and not block.attentions
    return first_of_two or mixes_tokens(core)


def mixes_tokens(seen: Seen) -> bool:
    """Whether a module's answer at later tokens depends on the first one; asked by calling it."""
    value = seen.args[0] if seen.args else next(iter(seen.kwargs.values()))
    if not isinstance(value, mx.array) or value.ndim != 3 or value.shape[1] < 2:
        return False
    other = mx.concatenate([value[:, :1] * 1.5 + 1, value[:, 1:]], axis=1)
    answers = []
    for given in (value, other):
        args, kwargs = seen.args, dict(seen.kwargs)
        if args:
            args = (given, *args[1:])
        else:
            kwargs[next(iter(kwargs))] = given
        output = seen.module(*args, **kwargs)
        answers.append(output[0] if isinstance(output, (tuple, list)) else output)
    later = answers[0][:, 1:] - answers[1][:, 1:]
    return _largest(later) > 1e-6 * _largest(answers[0])


def _mlp(
    block: Block, core: Seen, post: Seen | None, factor: float, pre: Array, mid: Array
) -> None:
    changes = block.changes
    changes.update(mlp=block.name(core), mlp_scale=factor)
    changes["post_mlp_norm"] = block.name(post) if post is not None else None
    norm = block.norm_before(core.input, mid)
    parallel = block.norm_before(core.input, pre)
    if norm is not None:
        changes["mlp_norm"] = block.name(norm)
    elif parallel is not None:
        changes["mlp_norm"] = block.name(parallel)
        block.absent["resid_mid"] = PARALLEL
    elif close(core.input, pre, 0):
        block.absent["resid_mid"] = PARALLEL
    elif not close(core.input, mid, block.tolerance):
        block.absent["resid_mid"] = NO_READER
    _down_projection(block, core)


def _down_projection(block: Block, core: Seen) -> None:
    """The linear module whose answer is the MLP's."""
    inside = [s for s in block.calls if core.path in s.parents and is_linear(s)]
    down = [s for s in inside if close(s.output, core.output, 0)]
    if down:
        name = block.name(down[-1]).removeprefix(block.name(core)).removeprefix(".")
        block.changes["down_proj"] = name
    elif is_linear(core):
        block.absent["mlp_act"] = "the MLP is a single linear module"
    else:
        block.absent["mlp_act"] = "no single linear module gives what the MLP returns"
        _experts(block, core)


def _experts(block: Block, core: Seen) -> None:
    """The module that is called with the tokens and the experts chosen for them."""
    for seen in block.calls:
        if core.path not in seen.parents or seen.output is None or len(seen.inputs) < 2:
            continue
        tokens, chosen = seen.inputs[:2]
        if chosen is None or chosen.dtype.kind not in "iu" or tokens is None:
            continue
        if seen.output.shape[:-1] != chosen.shape or seen.output.shape[-1] != tokens.shape[-1]:
            continue
        block.absent["mlp_act"] = EXPERTS
        if core.input is None or not np.array_equal(np.ravel(tokens), np.ravel(core.input)):
            block.absent |= {"router": SCALED, "expert_out": SCALED}
            return
        block.changes["experts"] = block.name(seen)[len(block.name(core)) :].removeprefix(".")
        return


def is_linear(seen: Seen) -> bool:
    """Whether a module answers additively; asked by calling it on noise."""
    value = seen.input
    if value is None or value.ndim != 3 or value.dtype.kind != "f" or seen.module.children():
        return False
    if not any(_array(a) and a.ndim == 2 for a in seen.module.values()):
        return False
    generator = np.random.default_rng(1)
    a, b = (mx.array(generator.standard_normal(value.shape).astype(np.float32)) for _ in "ab")
    zero = seen.module(mx.zeros(value.shape))
    if not isinstance(zero, mx.array):
        return False
    left, right = seen.module(a + b) - zero, seen.module(a) + seen.module(b) - 2 * zero
    return _largest(left - right) <= 1e-2 * _largest(left)


def _largest(x: mx.array) -> float:
    return float(np.abs(np.array(x.astype(mx.float32))).max())
