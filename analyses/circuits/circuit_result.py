"""A circuit: the edges of a model that a behaviour needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.errors import InputError
from mlxray.results.base import AnalysisResult

from .edge_table import Edge, EdgeTable

__all__ = ["CircuitResult", "Edge", "EdgeScoresResult", "base_node", "connected"]


def base_node(receiver: str) -> str:
    """The node that a receiver belongs to: ``"a1.h0.q"`` → ``"a1.h0"``."""
    stem, _, letter = receiver.rpartition(".")
    return stem if letter in ("q", "k", "v") and stem else receiver


@dataclass
class CircuitResult(AnalysisResult):
    """Edges that were kept, with their weights, and how much of the behaviour they carry.

    Attributes:
        edges: (sender, receiver, weight); receivers name the input of a head, ``a1.h0.q``.
        threshold: What an edge had to reach to stay, in the method's unit; None if the number
            of edges was given.
        total_edges: Edges of the whole model.
        faithfulness: (metric of the circuit alone − corrupted) / (clean − corrupted); None if
            it was not measured.
        method: Who found it.
        untested: Of the edges, those that stand because nobody tried to remove them.
    """

    result_type: ClassVar[str] = "circuit"

    edges: list[Edge]
    threshold: float | None
    total_edges: int
    faithfulness: float | None = None
    method: str = ""
    untested: list[tuple[str, str]] = field(default_factory=list)

    @property
    def tested(self) -> list[Edge]:
        """The edges that were tried and had to stay."""
        left = set(self.untested)
        return [edge for edge in self.edges if edge[:2] not in left]

    @property
    def nodes(self) -> list[str]:
        """Components that a tested edge touches, in the order of the model."""
        names = {name for sender, receiver, _ in self.tested for name in (sender, receiver)}
        return sorted({base_node(name) for name in names}, key=_place)

    def to_graph(self) -> dict[str, list[dict[str, Any]]]:
        """Nodes and tested edges as plain dictionaries."""
        return {
            "nodes": [{"id": name} for name in self.nodes],
            "edges": [
                {
                    "source": sender,
                    "target": base_node(receiver),
                    "input": receiver,
                    "weight": weight,
                }
                for sender, receiver, weight in self.tested
            ],
        }

    def to_networkx(self) -> Any:
        """A ``networkx.MultiDiGraph``; edges carry ``input`` and ``weight``.

        Raises:
            ImportError: without networkx, with the command that installs it.
        """
        networkx = _networkx("to_networkx()")
        graph = networkx.MultiDiGraph()
        graph.add_nodes_from(self.nodes)
        for edge in self.to_graph()["edges"]:
            graph.add_edge(
                edge["source"], edge["target"], input=edge["input"], weight=edge["weight"]
            )
        return graph

    def to_graphml(self, path: str | Path) -> Path:
        """Write the graph as GraphML, which Gephi, yEd and Cytoscape read.

        Raises:
            ImportError: without networkx, with the command that installs it.
        """
        networkx = _networkx("to_graphml()")
        target = Path(path)
        networkx.write_graphml(self.to_networkx(), target)
        return target

    def summary(self) -> str:
        nodes, of = counted(len(self.nodes), "node"), counted(self.total_edges, "edge")
        kept = f"{nodes}, {len(self.edges)} of {of}"
        if self.untested:
            kept += f", {len(self.untested)} of them not tested"
        limit = "" if self.threshold is None else f" (threshold={self.threshold:g})"
        share = "" if self.faithfulness is None else f", faithfulness {self.faithfulness:.0%}"
        return self.warned(f"Circuit: {kept}{limit}{share}")

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        ordered = sorted(self.edges, key=lambda e: -abs(e[2]))
        return ["sender", "receiver", "weight"], [list(edge) for edge in ordered]


def _networkx(caller: str) -> Any:
    try:
        import networkx
    except ImportError as error:
        raise ImportError(
            f"{caller} needs networkx, which cannot be imported ({error}): "
            "pip install 'mlxray[graphs]'. to_graph() gives plain dictionaries without it."
        ) from error
    return networkx


def _place(name: str) -> tuple[int, int, int]:
    if name == "embed":
        return (-1, 0, 0)
    if name == "logits":
        return (1 << 30, 0, 0)
    layer, _, head = name[1:].partition(".h")
    return (int(layer), 1 if name[0] == "m" else 0, int(head or 0))


@dataclass
class EdgeScoresResult(AnalysisResult):
    """A score for every edge of a model.

    Attributes:
        scores: (sender, receiver, score) of each edge: the estimated change of the metric when
            the edge carries the corrupted run's value. A sequence; that of a method is an
            `EdgeTable`, which makes an edge when it is asked for.
        method: ``"EAP"``, ``"EAP-IG"``, …
        clean_value, corrupted_value: The metric in the two runs.
    """

    result_type: ClassVar[str] = "edge_scores"

    scores: Sequence[Edge]
    method: str
    clean_value: float
    corrupted_value: float

    def top(self, k: int = 10) -> list[Edge]:
        """The k edges with the largest absolute score."""
        return self._table.strongest(k)

    @property
    def _table(self) -> EdgeTable:
        return (
            self.scores if isinstance(self.scores, EdgeTable) else EdgeTable.from_edges(self.scores)
        )

    def circuit(self, *, edges: int | None = None, threshold: float | None = None) -> CircuitResult:
        """The strongest edges that lie on a path from the embedding to the logits.

        Args:
            edges: How many to choose, before dead ends are dropped; or
            threshold: The least absolute score.

        Raises:
            InputError: if both or neither is given.
        """
        if (edges is None) == (threshold is None):
            raise InputError("give edges=… or threshold=…, one of them.")
        chosen = self.top(edges) if edges is not None else self._table.reaching(threshold or 0.0)
        return CircuitResult(connected(chosen), threshold, len(self.scores), method=self.method)

    def summary(self) -> str:
        sender, receiver, score = self.top(1)[0]
        return self.warned(
            f"{self.method}: {counted(len(self.scores), 'edge')}, strongest {sender} → {receiver} "
            f"({score:+.3g} of {self.clean_value - self.corrupted_value:+.3g})"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return ["sender", "receiver", "score"], [list(edge) for edge in self.top(len(self.scores))]


def connected(edges: Sequence[Edge]) -> list[Edge]:
    """The edges that lie on a path from ``embed`` to ``logits``."""
    reached, needed = {"embed"}, {"logits"}
    while True:
        forward = {base_node(r) for s, r, _ in edges if s in reached} | reached
        backward = {s for s, r, _ in edges if base_node(r) in needed} | needed
        if forward == reached and backward == needed:
            break
        reached, needed = forward, backward
    return [e for e in edges if e[0] in reached and base_node(e[1]) in needed]
