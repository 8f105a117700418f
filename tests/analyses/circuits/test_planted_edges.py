"""Edge-level runs of the model itself give what numpy's brute force gives on planted models."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.circuits.edges import graph_of, patched_logits, sent
from mlxray.testing.planted import PLANTED
from mlxray.testing.planted.brute_force import edge_effects


@pytest.mark.parametrize("name", list(PLANTED))
def test_every_edge_has_the_effect_that_brute_force_found(name):
    planted = PLANTED[name]()
    layout = InterpretableModel(planted.model).layout
    graph = graph_of(layout)
    assert sorted(graph.edges) == sorted(planted.candidates)
    edges = planted.candidates
    weights = np.zeros((len(edges) + 1, len(graph.receivers), len(graph.senders)), np.float32)
    for row, (sender, receiver) in enumerate(edges):
        weights[row, graph.receiver(receiver), graph.sender(sender)] = 1
    others = sent(layout, graph, mx.array([planted.corrupted]))
    clean = mx.array([planted.clean])
    logits = np.array(patched_logits(layout, graph, clean, others, mx.array(weights)))[:, -1]
    metric = logits[:, planted.correct] - logits[:, planted.incorrect]
    found = dict(zip(edges, metric[:-1] - metric[-1], strict=True))
    for edge, effect in edge_effects(planted).items():
        assert found[edge] == pytest.approx(effect, abs=1e-3), edge
