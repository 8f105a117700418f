"""Nodes and blocks as units of ACDC: each is taken away whole, for everything that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import AddressError
from mlxray.tokens import Batch

from ..patching.grid import layers_with
from ..patching.measure import Measure
from ..patching.patches import Cell, Patch, axes
from ..patching.sweep import Sweep
from .circuit_result import Edge

#: Nodes that one forward pass tries together.
BATCH = 16


@dataclass(frozen=True)
class Node:
    """A head, all heads of a layer, or an MLP.

    Attributes:
        name: ``a3.h1``, ``a3``, ``m3``.
        patch: The place that holds what it gives.
    """

    name: str
    patch: Patch


class NodeTrials:
    """The clean run with nodes taken away.

    Args:
        model: The model.
        batches: Clean and corrupted prompt.
        nodes: All that will be tried.
        measure, positions: The metric, and the positions whose logits it gets.
        ablation: What stands in for a node that is taken away: "resample", "zero" or "mean".
    """

    batch = BATCH

    def __init__(
        self,
        model: InterpretableModel,
        batches: tuple[Batch, Batch],
        nodes: Sequence[Node],
        measure: Measure,
        positions: Sequence[int],
        ablation: str,
    ) -> None:
        self._measure = measure
        self._sweep = Sweep(model, batches[0], positions=positions)
        addresses = list(dict.fromkeys(node.patch.address for node in nodes))
        values = self._sweep.sources(batches[1], addresses)
        self._values = {a: _ablated(a, value, ablation) for a, value in values.items()}
        self._removed: Cell = ()

    def values(self, part: Sequence[Node]) -> list[float]:
        """The metric with the first of these nodes taken away, the first two, …"""
        patches = [node.patch for node in part]
        cells = [(*self._removed, *patches[: n + 1]) for n in range(len(patches))]
        return self._sweep.effects(cells, self._values, self._measure.rows)

    def value(self) -> float:
        """The metric with what was taken away so far."""
        if not self._removed:
            return self._measure.ends[0]
        return self._sweep.effects([self._removed], self._values, self._measure.rows)[0]

    def remove(self, node: Node) -> None:
        """Take a node away for good."""
        self._removed = (*self._removed, node.patch)


def _ablated(address: str, value: mx.array, ablation: str) -> mx.array:
    if ablation == "zero":
        return mx.zeros_like(value)
    if ablation == "mean":
        _, axis = axes(address.rpartition(".")[2])
        return mx.broadcast_to(mx.mean(value, axis=axis, keepdims=True), value.shape)
    return value


def nodes_of(
    model: InterpretableModel, by: str, components: Sequence[str], layers: Sequence[int] | None
) -> list[Node]:
    """The heads (by="node") or attention sub-layers (by="block"), and MLPs, latest first.

    Raises:
        AddressError: if a layer that was asked for has none of the components.
    """
    found: dict[int, list[Node]] = {}
    for component, point in (("attn", "z" if by == "node" else "attn_out"), ("mlp", "mlp_out")):
        if component not in components:
            continue
        for layer in layers_with(model, point, layers):
            names = [f"m{layer}"]
            patches = [Patch(point, layer)]
            if component == "attn" and by == "node":
                heads = range(model.layout.heads(layer))
                names = [f"a{layer}.h{head}" for head in heads]
                patches = [Patch(point, layer, head=head) for head in heads]
            elif component == "attn":
                names = [f"a{layer}"]
            made = [Node(n, p) for n, p in zip(names, patches, strict=True)]
            found[layer] = [*found.get(layer, []), *made]
    return [node for layer in sorted(found, reverse=True) for node in reversed(found[layer])]


def node_edges(
    model: InterpretableModel, nodes: Sequence[str], losses: Mapping[str, float]
) -> list[Edge]:
    """Every edge among nodes that stand, and from embed and to logits.

    Args:
        nodes: Names, in the order of the model.
        losses: Of each; an edge has its sender's, and embed's is 0.
    """
    edges: list[Edge] = [("embed", node, 0.0) for node in [*nodes, "logits"]]
    for i, sender in enumerate(nodes):
        readers = [each for each in nodes[i + 1 :] if _reads(model, sender, each)]
        edges += [(sender, receiver, losses[sender]) for receiver in [*readers, "logits"]]
    return edges


def _reads(model: InterpretableModel, sender: str, receiver: str) -> bool:
    """Whether a later node reads an earlier one: heads of one layer do not read each other."""
    layer = sender[1:].partition(".")[0]
    if layer != receiver[1:].partition(".")[0]:
        return True
    if sender[0] == receiver[0]:
        return False
    try:
        model.layout.site(("resid_mid", int(layer)))
    except AddressError:  # attention and MLP side by side
        return False
    return True
