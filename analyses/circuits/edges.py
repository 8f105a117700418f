"""Forward passes in which every reader of the residual stream has an input of its own.

Senders write to the residual stream: the embedding, each attention head, each MLP. Receivers
read it: the queries, keys and values of each head, each MLP, the output. In an ordinary pass all
receivers of a block read one stream; here what each of them reads can be changed by itself,
which is what an edge of a circuit is. Everything is computed by the model's own modules: the
attention sub-layer is given one row for each receiver, and the queries, keys and values of the
rows are put together where the model hands them to its attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray.errors import AddressError, PointAbsent, nearest
from mlxray.points.adapter import FusedAttention
from mlxray.points.layout import Layout
from mlxray.points.sites import first_argument, set_first_argument
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.attention import Attend, head_shares
from mlxray.seams.edits import Call
from mlxray.seams.instrument import under

LETTERS = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """Senders and receivers of a model, in the order in which a pass meets them.

    Names are ``embed``, ``a{layer}.h{head}``, ``m{layer}`` for senders; ``a{layer}.h{head}.q``,
    ``.k`` and ``.v``, ``m{layer}`` and ``logits`` for receivers. Heads that share keys and values
    have inputs of their own all the same.

    Attributes:
        heads: By layer.
        senders, receivers: Names.
        upstream: For each receiver, how many of the first senders it can read.
    """

    heads: tuple[int, ...]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    upstream: tuple[int, ...]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every (sender, receiver) pair, senders first in time first."""
        return [
            (sender, receiver)
            for receiver, count in zip(self.receivers, self.upstream, strict=True)
            for sender in self.senders[:count]
        ]

    def sender(self, name: str) -> int:
        """Index of a sender. Raises AddressError with the nearest names."""
        return _index(name, self.senders, "sender")

    def receiver(self, name: str) -> int:
        """Index of a receiver. Raises AddressError with the nearest names."""
        return _index(name, self.receivers, "receiver")

    def mask(self) -> mx.array:
        """(receivers, senders) float32: 1 where the receiver can read the sender."""
        counts = mx.array(list(self.upstream))
        reads: Any = mx.arange(len(self.senders))[None] < counts[:, None]
        return mx.where(reads, 1.0, 0.0)


def _index(name: str, names: Sequence[str], kind: str) -> int:
    if name not in names:
        raise AddressError(f"there is no {kind} {name!r}. {nearest(name, names)}")
    return names.index(name)


def graph_of(layout: Layout) -> Graph:
    """The senders and receivers of a model.

    Raises:
        PointAbsent: if what a head writes is not a share of what its block adds (a norm after
            attention), or the block's sub-layers do not read one after the other.
    """
    adapter = layout.adapter
    if adapter.post_attn_norm or adapter.post_mlp_norm:
        raise PointAbsent(
            "edges",
            "a norm stands between the sub-layers and the residual stream, so heads do not "
            "write to it each on its own",
        )
    if not isinstance(adapter.attention, FusedAttention):
        raise PointAbsent("edges", "the model does not call the fused attention")
    if not adapter.attn_norm or not adapter.mlp_norm:
        raise PointAbsent("edges", "the sub-layers have no norm of their own before them")
    heads: list[int] = []
    senders, receivers, upstream = ["embed"], [], []
    for layer in range(layout.n_layers):
        layout.site(("resid_mid", layer))
        layout.site(("head_out", layer))
        heads.append(layout.heads(layer))
        for letter in LETTERS:
            receivers += [f"a{layer}.h{head}.{letter}" for head in range(heads[layer])]
            upstream += [len(senders)] * heads[layer]
        senders += [f"a{layer}.h{head}" for head in range(heads[layer])]
        receivers.append(f"m{layer}")
        upstream.append(len(senders))
        senders.append(f"m{layer}")
    receivers.append("logits")
    upstream.append(len(senders))
    return Graph(tuple(heads), tuple(senders), tuple(receivers), tuple(upstream))


@dataclass
class EdgePass:
    """One forward pass with receivers on their own.

    Attributes:
        layout, graph: The model.
        change: ``change(receivers, stream, written)`` → what each receiver reads, (V, B, S, D):
            `receivers` is a slice of ``graph.receivers``, `stream` (B, S, D) what they would
            read, `written` the senders' outputs so far, each (B, S, D).
        embed: (B, S, D) put in place of the embedding, or None.
        record: Keep what senders write (needed by `change` if it looks at it).
    """

    layout: Layout
    graph: Graph
    change: Callable[[slice, mx.array, list[mx.array]], mx.array] | None = None
    embed: mx.array | None = None
    record: bool = True

    def execute(
        self, ids: mx.array, positions: Sequence[int] | None = None
    ) -> tuple[mx.array, list[mx.array]]:
        """Run on (B, S) ids: logits (B, S or P, V) and the senders' outputs, lazy."""
        run = Run(self.layout)
        written: list[mx.array] = []
        at = 0
        first = run.handler(self.layout.block(0))
        first.changes.before.append(lambda call: self._enter(call, written))
        for layer in range(self.layout.n_layers):
            count = 3 * self.graph.heads[layer]
            self._plan_attention(run, layer, slice(at, at + count), written)
            self._plan_mlp(run, layer, slice(at + count, at + count + 1), written)
            at += count + 1
        self._plan_input(run, self.layout.adapter.final_norm, slice(at, at + 1), written)
        if positions is None:
            return run.execute(ids), written
        return execute_at(run, ids, positions), written

    def _enter(self, call: Call, written: list[mx.array]) -> None:
        if self.embed is not None:
            set_first_argument(call, self.embed)
        if self.record:
            written.append(first_argument(call))

    def _plan_attention(
        self, run: Run, layer: int, receivers: slice, written: list[mx.array]
    ) -> None:
        adapter, layout = self.layout.adapter, self.layout
        heads = self.graph.heads[layer]
        rows: list[int] = []

        def widen(call: Call) -> None:
            stream = first_argument(call)
            rows[:] = [stream.shape[0]]
            if self.change is not None:
                read = self.change(receivers, stream, written)
                apart = read.reshape(-1, *stream.shape[1:])
                set_first_argument(call, mx.concatenate([stream, apart]))

        def together(attend: Attend, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            (own,) = rows
            if self.change is None:
                return attend(q, k, v)
            apart = [x[own:].reshape(3, heads, own, *x.shape[1:]) for x in (q, k, v)]
            shared = [heads // x.shape[1] for x in (q, k, v)]
            chosen = [
                mx.stack([x[i, head, :, head // group] for head in range(heads)], axis=1)
                for i, (x, group) in enumerate(zip(apart, shared, strict=True))
            ]
            z = attend(*chosen)
            unread = mx.zeros((q.shape[0] - own, *z.shape[1:]), dtype=z.dtype)
            return mx.concatenate([z, unread])

        def narrow(call: Call, output: Any) -> Any:
            (own,) = rows
            if isinstance(output, (tuple, list)):
                return type(output)([output[0][:own], *output[1:]])
            return output[:own]

        run.handler(layout.role(layer, str(adapter.attn_norm))).changes.before.append(widen)
        attention = layout.role(layer, adapter.attn)
        run.attention_handler(attention).changes.around = together
        if self.record:
            project = run.handler(layout.role(layer, adapter.attn, adapter.out_proj))
            project.changes.before.append(
                lambda call: self._write_heads(call, heads, rows, written)
            )
        run.handler(attention).changes.after.append(narrow)

    @staticmethod
    def _write_heads(call: Call, heads: int, rows: list[int], written: list[mx.array]) -> None:
        (own,) = rows
        shares = under(None, head_shares, call.module, first_argument(call)[:own], heads)
        written += [shares[:, head] for head in range(heads)]

    def _plan_mlp(self, run: Run, layer: int, receivers: slice, written: list[mx.array]) -> None:
        adapter = self.layout.adapter
        self._plan_input(run, self.layout.role(layer, str(adapter.mlp_norm)), receivers, written)
        if self.record:

            def write(call: Call, output: mx.array) -> mx.array:
                written.append(output)
                return output

            run.handler(self.layout.role(layer, adapter.mlp)).changes.after.append(write)

    def _plan_input(self, run: Run, path: str, receivers: slice, written: list[mx.array]) -> None:
        change = self.change
        if change is None:
            return

        def before(call: Call) -> None:
            set_first_argument(call, change(receivers, first_argument(call), written)[0])

        run.handler(path).changes.before.append(before)


def sent(layout: Layout, graph: Graph, ids: mx.array) -> mx.array:
    """What each sender writes in the plain run: (senders, B, S, D), evaluated."""
    _, written = EdgePass(layout, graph).execute(ids)
    stacked = mx.stack(written)
    mx.eval(stacked)
    return stacked


def patched_logits(
    layout: Layout,
    graph: Graph,
    ids: mx.array,
    other: mx.array,
    weights: mx.array,
    positions: Sequence[int] | None = None,
) -> mx.array:
    """Logits where chosen edges carry another run's values.

    Args:
        layout, graph: The model.
        ids: (1, S) the prompt that runs.
        other: (senders, 1, S, D) what the senders write in the other run, from `sent`.
        weights: (N, receivers, senders); 1 gives the receiver the other run's value of the
            sender in place of this run's, 0 leaves it, what lies between mixes.
        positions: Whose logits are wanted; None for all.

    Returns:
        (N, S or P, V), lazy: one row for each of the N choices of edges.
    """
    count = weights.shape[0]
    allowed = weights * graph.mask()

    def change(receivers: slice, stream: mx.array, written: list[mx.array]) -> mx.array:
        upstream = graph.upstream[receivers.start]
        deltas = other[:upstream] - mx.stack(written[:upstream])
        chosen = allowed[:, receivers, :upstream].astype(stream.dtype)
        return stream[None] + mx.einsum("nvu,unsd->vnsd", chosen, deltas)

    rows = mx.broadcast_to(ids, (count, ids.shape[1]))
    return EdgePass(layout, graph, change).execute(rows, positions)[0]


def receiver_gradients(
    layout: Layout,
    graph: Graph,
    ids: mx.array,
    metric: Callable[[mx.array], mx.array],
    *,
    embed: mx.array | None = None,
    positions: Sequence[int] | None = None,
) -> tuple[mx.array, mx.array]:
    """A number of the logits, and its gradient with respect to what each receiver reads.

    Args:
        layout, graph: The model.
        ids: (B, S) ids.
        metric: Logits (B, S, V) → a scalar.
        embed: (B, S, D) in place of the embedding.
        positions: Give `metric` the logits of these positions only.

    Returns:
        The number, and (receivers, B, S, D); evaluated.
    """
    stream = embed if embed is not None else embedding_of(layout, ids)
    probes = mx.zeros((len(graph.receivers), *stream.shape), dtype=stream.dtype)

    def value(probes: mx.array) -> mx.array:
        def change(receivers: slice, stream: mx.array, written: list[mx.array]) -> mx.array:
            return stream[None] + probes[receivers]

        run = EdgePass(layout, graph, change, embed=embed, record=False)
        return metric(run.execute(ids, positions)[0]).reshape(())

    number, gradient = mx.value_and_grad(value)(probes)
    mx.eval(number, gradient)
    return number, gradient


def embedding_of(layout: Layout, ids: mx.array) -> mx.array:
    """The embedding that enters the first block (B, S, D), lazy."""
    run = Run(layout, watch=["embed"])
    run.execute(ids)
    value: mx.array = run.read("embed")
    return value
