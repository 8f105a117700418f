"""How much of a behaviour a set of edges carries: faithfulness and completeness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import number

from ..datasets.prompts import pair
from ..patching.gaps import empty_circuit_warning, gap_warnings
from ..patching.measure import Measure, MetricLike, measure_of, read_positions
from .circuit_result import Edge
from .edges import Graph, graph_of, patched_logits, sent


def edge_weights(graph: Graph, edges: Iterable[tuple[str, str]]) -> mx.array:
    """(receivers, senders) float32: 1 at the given edges.

    Raises:
        AddressError: if an edge names an unknown sender or receiver.
    """
    import numpy as np

    weights = np.zeros((len(graph.receivers), len(graph.senders)), dtype=np.float32)
    for sender, receiver in edges:
        weights[graph.receiver(receiver), graph.sender(sender)] = 1.0
    return mx.array(weights)


@dataclass
class Bench:
    """A pair of prompts on which sets of edges are tried.

    Attributes:
        graph: Senders and receivers of the model.
        measure: The metric, bound to the pair.
        clean_value, corrupted_value: The metric with all edges and with none.
        positions: The positions whose logits the metric gets.
        others: (senders, 1, S, D) what stands in for a removed edge.
    """

    model: InterpretableModel
    graph: Graph
    ids: mx.array
    others: mx.array
    measure: Measure
    positions: list[int]
    clean_value: float
    corrupted_value: float

    def values(self, kept: Sequence[mx.array]) -> mx.array:
        """The metric of the clean run with only the kept edges left as they are.

        Args:
            kept: N arrays (receivers, senders) with 1 at kept edges.

        Returns:
            (N,).
        """
        removed = 1.0 - mx.stack(list(kept))
        logits = patched_logits(
            self.model.layout, self.graph, self.ids, self.others, removed, self.positions
        )
        return self.measure.rows(logits)

    def faithfulness(self, edges: Iterable[tuple[str, str]]) -> float:
        """(circuit alone − corrupted) / (clean − corrupted): 1 is the whole behaviour."""
        value = number(self.values([edge_weights(self.graph, edges)])[0])
        return self.share(value)

    def completeness(self, edges: Iterable[tuple[str, str]]) -> float:
        """The same for the model *without* these edges: 0 means that nothing is missing."""
        value = number(self.values([self.graph.mask() - edge_weights(self.graph, edges)])[0])
        return self.share(value)

    @property
    def row_bytes(self) -> int:
        """Bytes that one set of edges takes in a pass, about.

        At the last layer every sender's output and its difference to the other run's live, and
        each input of a head has a stream of its own, before and after the norm.
        """
        senders, _, tokens, width = self.others.shape
        streams = 2 * senders + 6 * max(self.graph.heads, default=1)
        return int(4 * tokens * width * streams)

    @property
    def gap(self) -> float:
        """The metric with all edges less that with none."""
        return self.clean_value - self.corrupted_value

    @property
    def warnings(self) -> list[str]:
        """What to know before trusting shares of the gap."""
        return [
            *gap_warnings([self.measure]),
            *empty_circuit_warning(self.gap, self.measure.gap),
        ]

    def share(self, value: float) -> float:
        """A metric's value as a share of the way from corrupted to clean."""
        return (value - self.corrupted_value) / self.gap


def bench(
    model: InterpretableModel,
    clean: object,
    corrupted: object,
    metric: MetricLike,
    metric_kwargs: Mapping[str, object] | None = None,
    *,
    position: int = -1,
    others: mx.array | None = None,
    raw: bool = False,
) -> Bench:
    """Prepare a pair of prompts for trying sets of edges.

    Args:
        others: What stands in for a removed edge, (senders, 1, S, D); the corrupted run's
            values if None (zeros for zero ablation, a mean for mean ablation).
        raw: Measure in the metric's own unit, to be averaged over pairs. A pair that the metric
            does not tell apart is then allowed.

    Raises:
        InputError: for prompts that do not pair.
        AnalysisError: if the metric does not tell them apart.
    """
    first, second = pair(model, clean, corrupted)
    graph = graph_of(model.layout)
    measure = measure_of(model, (first, second), metric, metric_kwargs, position, raw=raw)
    if not raw:
        measure.check_gap()
    if others is None:
        others = sent(model.layout, graph, second.ids)
    read = read_positions(metric, first, position)
    ready = Bench(model, graph, first.ids, others, measure, read, *measure.ends)
    # With nothing kept, a resampled run is the corrupted one; other ablations end elsewhere.
    ready.corrupted_value = number(ready.values([mx.zeros_like(graph.mask())])[0])
    return ready


def names(edges: Iterable[Edge]) -> list[tuple[str, str]]:
    """(sender, receiver) of weighted edges."""
    return [(sender, receiver) for sender, receiver, _ in edges]
