"""Gradients with respect to what each receiver reads, without a run of rows for every head.

One backward pass gives the gradient at the queries, keys and values of every head where attention
gets them, at each MLP's input and at the final norm's. What then lies between a head's queries
(keys, values) and the stream that they are made of, a norm and a projection, is differentiated
one layer at a time, with a row for each head, and given on before the next: only few gradients
exist at one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate
from mlxray.points.layout import Layout
from mlxray.points.sites import first_argument, set_first_argument
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.attention import Attend
from mlxray.seams.edits import Call

from ..patching.reuse import resumable
from .edges import LETTERS, Graph

#: Bytes that the rows of one part may take.
PART_BYTES = 1 << 29

Metric = Callable[[mx.array], mx.array]

#: Receivers of the graph, and the gradient of what each of them reads, (receivers, B, S, D).
Part = tuple[slice, mx.array]


@dataclass
class _Reading:
    """One plain pass, with something added to what attention, MLPs and the final norm get.

    Attributes:
        layout, graph: The model.
        embed: (B, S, D) in place of the embedding, or None.
        probes: What is added, three arrays of heads and one of the MLP's width for each layer, then
            one for the final norm; None to add nothing.
        streams: Layer → (B, S, D) that the attention sub-layer reads.
        seen: What there was to add to, in the order of `probes`, keys and values by query head.
        made: How many heads of queries, keys and values each layer makes.
    """

    layout: Layout
    graph: Graph
    embed: mx.array | None
    probes: Sequence[mx.array] | None = None
    streams: dict[int, mx.array] = field(default_factory=dict)
    seen: dict[int, mx.array] = field(default_factory=dict)
    made: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def execute(self, ids: mx.array, positions: Sequence[int] | None) -> mx.array:
        """Logits (B, S or P, V), lazy."""
        layout, adapter = self.layout, self.layout.adapter
        run = Run(layout)
        embed = self.embed
        if embed is not None:
            enter = run.handler(layout.block(0)).changes.before
            enter.append(lambda call: set_first_argument(call, embed))
        for layer in range(layout.n_layers):
            norm = run.handler(layout.role(layer, str(adapter.attn_norm)))
            norm.changes.before.append(partial(self._remember, layer))
            attention = run.attention_handler(layout.role(layer, adapter.attn))
            attention.changes.around = partial(self._attend, layer)
            mlp_norm = run.handler(layout.role(layer, str(adapter.mlp_norm)))
            mlp_norm.changes.before.append(partial(self._input, 4 * layer + 3))
        final = run.handler(adapter.final_norm)
        final.changes.before.append(partial(self._input, 4 * layout.n_layers))
        if positions is None:
            logits: mx.array = run.execute(ids)
            return logits
        return execute_at(run, ids, positions)

    def _add(self, place: int, value: mx.array) -> mx.array:
        self.seen[place] = value
        return value if self.probes is None else value + self.probes[place]

    def _remember(self, layer: int, call: Call) -> None:
        self.streams[layer] = first_argument(call)

    def _input(self, place: int, call: Call) -> None:
        set_first_argument(call, self._add(place, first_argument(call)))

    def _attend(
        self, layer: int, attend: Attend, q: mx.array, k: mx.array, v: mx.array
    ) -> mx.array:
        heads = self.graph.heads[layer]
        self.made[layer] = tuple(x.shape[1] for x in (q, k, v))
        by_head = [mx.repeat(x, heads // x.shape[1], axis=1) for x in (q, k, v)]
        return attend(*(self._add(4 * layer + i, x) for i, x in enumerate(by_head)))


def gradient_parts(
    layout: Layout,
    graph: Graph,
    ids: mx.array,
    metric: Metric,
    *,
    embed: mx.array | None = None,
    positions: Sequence[int] | None = None,
) -> tuple[mx.array, Iterator[Part]]:
    """A number of the logits, and its gradient with respect to what each receiver reads.

    Args:
        layout, graph: The model.
        ids: (B, S) ids.
        metric: Logits (B, S, V) → a scalar.
        embed: (B, S, D) in place of the embedding.
        positions: Give `metric` the logits of these positions only.

    Returns:
        The number, evaluated, and all receivers in parts, in their order. A part is lazy; all
        receivers of one part can read the same senders.
    """
    look = _Reading(layout, graph, embed)
    look.execute(ids, positions)
    probes = [mx.zeros(look.seen[i].shape, look.seen[i].dtype) for i in sorted(look.seen)]

    def value(probes: list[mx.array]) -> tuple[mx.array, list[mx.array]]:
        reading = _Reading(layout, graph, embed, probes)
        number = metric(reading.execute(ids, positions)).reshape(())
        return number, [reading.streams[layer] for layer in range(layout.n_layers)]

    (number, streams), found = mx.value_and_grad(value)(probes)
    evaluate(number, streams, found)
    return number, _parts(layout, graph, ids, streams, found, look.made)


def _parts(
    layout: Layout,
    graph: Graph,
    ids: mx.array,
    streams: list[mx.array],
    found: list[mx.array],
    made: dict[int, tuple[int, ...]],
) -> Iterator[Part]:
    at = 0
    for layer in range(layout.n_layers):
        stream, heads = streams[layer], graph.heads[layer]
        projections = _Projections(layout, layer, ids, alone=resumable(layout))
        for letter in range(len(LETTERS)):
            gradient, groups = found[4 * layer + letter], made[layer][letter]
            # The stream, the norm's, and the projection's, each with its gradient.
            size = 2 * (2 * stream.nbytes + gradient.nbytes * groups // heads)
            most = max(1, PART_BYTES // size)
            for first in range(0, heads, most):
                chosen = range(first, min(first + most, heads))
                part = slice(at + chosen.start, at + chosen.stop)
                yield part, projections.pulled(stream, gradient, letter, groups, chosen)
            at += heads
        yield slice(at, at + 1), found[4 * layer + 3][None]
        at += 1
    yield slice(at, at + 1), found[-1][None]


@dataclass
class _Crossing:
    """What enters one layer's attention and comes out of it again.

    Attributes:
        rows: Of the stream that goes on behind the attention.
        stream: What the attention's norm gets.
        made: Queries, keys and values.
    """

    rows: int
    stream: mx.array | None = None
    made: tuple[mx.array, mx.array, mx.array] | None = None

    def keep(self, attend: Attend, q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        self.made = q, k, v
        return attend(q, k, v)

    def narrow(self, call: Call, output: Any) -> Any:
        if isinstance(output, (tuple, list)):
            return type(output)([output[0][: self.rows], *output[1:]])
        return output[: self.rows]


class _Projections:
    """A layer's queries, keys and values as functions of the stream that its attention reads.

    They are made by the model's own modules, in a pass of which nothing else is evaluated.

    Args:
        layout, layer: Which.
        ids: (B, S) ids.
        alone: Skip the other blocks, which costs less than describing what they would do.
    """

    def __init__(self, layout: Layout, layer: int, ids: mx.array, *, alone: bool) -> None:
        self._ids = ids
        # Apart from `self`: the run holds what is done to its calls, and would close a cycle that
        # keeps the model's weights until the collector runs.
        self._at = at = _Crossing(ids.shape[0])
        adapter = layout.adapter
        self._run = run = Run(layout)
        for other in range(layout.n_layers):
            if alone and other != layer:
                stream = layout.roles(other).stream
                run.skip(layout.block(other), partial(first_argument, position=stream))
        norm = run.handler(layout.role(layer, str(adapter.attn_norm)))
        norm.changes.before.append(lambda call: set_first_argument(call, at.stream))
        attention = run.attention_handler(layout.role(layer, adapter.attn))
        attention.changes.around = at.keep
        attention.changes.after.append(at.narrow)

    def of(self, stream: mx.array, letter: int) -> mx.array:
        """(N, S, D) → (N, heads, S, d), lazy: what attention gets."""
        self._at.stream = stream
        self._run.restart()
        self._run.execute(self._ids)
        assert self._at.made is not None
        made = self._at.made[letter]
        self._at.stream = self._at.made = None
        return made

    def pulled(
        self, stream: mx.array, gradient: mx.array, letter: int, groups: int, chosen: range
    ) -> mx.array:
        """The gradient of the stream, for each of some heads by itself, lazy.

        Args:
            stream: (B, S, D).
            gradient: (B, H, S, d) at each head's queries (keys, values).
            letter: Which of the three.
            groups: Heads of them that the layer makes: H, or fewer that are shared.
            chosen: Some heads.

        Returns:
            (heads, B, S, D).
        """
        _, heads, tokens, width = gradient.shape
        rows = mx.broadcast_to(stream, (len(chosen), *stream.shape)).reshape(-1, *stream.shape[1:])
        # A row has the gradient of its own head and is zero at all others.
        reads = mx.array([head * groups // heads for head in chosen])
        own: Any = reads[:, None] == mx.arange(groups)[None]
        alone = gradient[:, chosen.start : chosen.stop].swapaxes(0, 1)[:, :, None]
        cotangent = mx.where(own[:, None, :, None, None], alone, mx.zeros_like(alone))
        cotangent = cotangent.reshape(-1, groups, tokens, width)
        _, (found,) = mx.vjp(lambda x: self.of(x, letter), [rows], [cotangent])
        return found.reshape(len(chosen), *stream.shape)
