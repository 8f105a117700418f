"""Path patching: what a sender tells a receiver, and nobody else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import AddressError, InputError, nearest
from mlxray.points.layout import Layout
from mlxray.points.vocabulary import node, parse

from ..datasets.prompts import UnequalPair, pair
from ..patching.gaps import gap_warnings
from ..patching.measure import MetricLike, measure_of, read_positions
from .circuit import edge_weights
from .edges import EdgePass, Graph, graph_of, sent
from .path_result import PathResult


@analysis(result=PathResult)
def path_patching(
    model: InterpretableModel,
    clean: Any,
    corrupted: Any,
    sender: str | Sequence[str],
    receiver: str | Sequence[str],
    metric: MetricLike = "l2_distance",
    *,
    metric_kwargs: Mapping[str, Any] | None = None,
    position: int = -1,
    unequal: UnequalPair = "refuse",
) -> PathResult:
    """Measure the effect of a direct path (Wang et al. 2022; Goldowsky-Dill et al. 2023).

    The corrupted prompt runs. The receivers' inputs, and they alone, see the senders' clean
    values; whatever else they read is frozen to the corrupted run. What follows from the
    receivers is computed as usual, but other receivers do not hear of it: of several receivers in
    series the later ones, too, read the corrupted run and the senders, not the earlier receivers
    (as in Wang et al. 2022), so the effect is that of the direct paths alone.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length.
        sender: One or several: ``"embed"``, ``"a7.h1"``, ``"m5"``, or module names such as
            ``"layers.7.self_attn"`` (all its heads).
        receiver: One or several: ``"a9.h2.q"``, ``"a9.h2"`` (queries, keys and values),
            ``"m9"``, ``"logits"``, or module names such as ``"layers.9.self_attn"``.
        metric: Name of a metric, or a function (patched, clean, corrupted) of logits (1, S, V).
        metric_kwargs: Its keywords.
        position: Position whose logits are measured.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Raises:
        InputError: for prompts that do not pair, or a receiver that comes before a sender.
        AddressError: for a name that is neither a sender nor a receiver.
    """
    graph = graph_of(model.layout)
    senders = _names(model.layout, graph, sender, graph.senders)
    receivers = _names(model.layout, graph, receiver, graph.receivers)
    _check_order(graph, senders, receivers)
    first, second = pair(model, clean, corrupted, unequal)
    measure = measure_of(model, (first, second), metric, metric_kwargs, position)
    warned = []
    if measure.is_share:
        measure.check_gap()
        warned = gap_warnings([measure])
    read = read_positions(metric, second, position)
    patched = path_logits(model.layout, graph, first.ids, second.ids, senders, receivers)
    effect = number(measure.rows(patched[:, mx.array(read)])[0])
    frozen = len(graph.senders) - len(senders)
    return PathResult(effect, senders, receivers, frozen, measure.name, warnings=warned)


def path_logits(
    layout: Layout,
    graph: Graph,
    clean: mx.array,
    corrupted: mx.array,
    senders: Sequence[str],
    receivers: Sequence[str],
) -> mx.array:
    """Logits (1, S, V) of the corrupted run in which the receivers hear the clean senders."""
    difference = sent(layout, graph, clean) - sent(layout, graph, corrupted)
    weights = edge_weights(graph, [(s, r) for s in senders for r in receivers]) * graph.mask()
    chosen = edge_weights(graph, [(graph.senders[0], r) for r in receivers])[:, 0]
    frozen: dict[int, mx.array] = {}

    def record(part: slice, stream: mx.array, written: list[mx.array]) -> mx.array:
        frozen[part.start] = stream
        return mx.broadcast_to(stream[None], (part.stop - part.start, *stream.shape))

    EdgePass(layout, graph, record, record=False).execute(corrupted)

    def change(part: slice, stream: mx.array, written: list[mx.array]) -> mx.array:
        heard = mx.einsum("vu,ubsd->vbsd", weights[part].astype(stream.dtype), difference)
        listening = chosen[part][:, None, None, None] > 0
        return mx.where(listening, frozen[part.start][None] + heard, stream[None])

    return EdgePass(layout, graph, change, record=False).execute(corrupted)[0]


def _names(
    layout: Layout, graph: Graph, given: str | Sequence[str], known: tuple[str, ...]
) -> list[str]:
    names = list(given) if isinstance(given, (list, tuple)) else [given]
    if not names:
        raise InputError("give at least one sender and one receiver.")
    found: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise InputError(f'senders and receivers are names such as "a7.h1"; got {name!r}.')
        found += _matching(layout, name, known)
    return list(dict.fromkeys(found))


def _matching(layout: Layout, name: str, known: tuple[str, ...]) -> list[str]:
    name = re.sub(r"^L(\d+)H(\d+)", r"a\1.h\2", name)
    if name in known:
        return [name]
    inside = [k for k in known if k.startswith(name + ".")]
    if inside:
        return inside
    address = parse(name)
    if address.layer is not None and node(name) is None:
        layer = layout.index(address.layer)
        adapter = layout.adapter
        if address.name in (adapter.attn, "attn", "self_attn", "attn_out"):
            return [k for k in known if k.startswith(f"a{layer}.")]
        if address.name in (adapter.mlp, "mlp", "mlp_out"):
            return [f"m{layer}"]
    raise AddressError(f"{name!r} is no part of the graph. {nearest(name, known)}")


def _check_order(graph: Graph, senders: Sequence[str], receivers: Sequence[str]) -> None:
    for receiver in receivers:
        reach = graph.upstream[graph.receiver(receiver)]
        late = [s for s in senders if graph.sender(s) >= reach]
        if late:
            raise InputError(f"{receiver!r} cannot read {late[0]!r}, which comes after it.")


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Path patching."""
    return [path_patching]
