"""EAP-IG against central differences along the line, and ACDC's ablations tried one by one."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses import acdc, edge_attribution_patching
from mlxray.analyses.circuits.circuit import edge_weights
from mlxray.analyses.circuits.circuit_result import connected
from mlxray.analyses.circuits.edge_table import EdgeTable
from mlxray.analyses.circuits.edges import EdgePass, graph_of, patched_logits, sent
from mlxray.errors import AnalysisError

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

IDS, OTHER = mx.array([CLEAN]), mx.array([CORRUPTED])


def logits_metric(patched, clean, corrupted, *, per_example=False):
    """The difference of two logits, as it is."""
    rows = patched[:, -1, 3] - patched[:, -1, 4]
    return rows if per_example else rows.mean().item()


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
@pytest.mark.parametrize("steps", [1, 3])
def test_edge_scores_are_slopes_along_the_line(make, steps):
    model = make()
    layout, graph = model.layout, graph_of(model.layout)
    clean, corrupted = sent(layout, graph, IDS), sent(layout, graph, OTHER)
    found = edge_attribution_patching(model, CLEAN, CORRUPTED, metric=logits_metric, steps=steps)
    scores = {(s, r): score for s, r, score in found.scores}

    def moved(embed, at, shift):
        def change(part, stream, written):
            one_hot = mx.array([float(i == at) for i in range(part.start, part.stop)])
            return stream[None] + one_hot[:, None, None, None] * shift[None]

        logits = EdgePass(layout, graph, change, embed=embed).execute(IDS)[0]
        return (logits[0, -1, 3] - logits[0, -1, 4]).item()

    for sender, receiver in (
        ("embed", "a0.h1.q"),
        ("embed", "a1.h0.k"),
        ("a0.h2", "a1.h3.v"),
        ("m0", "m1"),
        ("m1", "logits"),
    ):
        at = graph.receiver(receiver)
        delta = (corrupted - clean)[graph.sender(sender)]
        size = 1e-2 / mx.linalg.norm(delta).item()
        slopes = []
        for step in range(steps):
            share = (step + 0.5) / steps if steps > 1 else 0.0
            embed = clean[0] + share * (corrupted[0] - clean[0])
            ends = [moved(embed, at, sign * size * delta) for sign in (1, -1)]
            slopes.append((ends[0] - ends[1]) / (2 * size))
        expected = sum(slopes) / steps
        assert scores[sender, receiver] == pytest.approx(expected, rel=0.02, abs=3e-3)


def test_steps_change_the_scores():
    model = small_llama()
    plain, along = (
        np.array(
            [
                score
                for *_, score in edge_attribution_patching(
                    model, CLEAN, CORRUPTED, metric=logits_metric, steps=steps
                ).scores
            ]
        )
        for steps in (1, 5)
    )
    assert not np.allclose(plain, along, atol=0.05 * np.abs(plain).max())


@pytest.mark.parametrize("metric", ["l2", "mse", "cosine", "kl"])
def test_a_distance_has_no_slope_where_it_is_least(metric):
    model = small_llama()
    with pytest.raises(AnalysisError, match=r"every edge scores zero: .* steps=5"):
        edge_attribution_patching(model, CLEAN, CORRUPTED, metric=metric)
    along = edge_attribution_patching(model, CLEAN, CORRUPTED, metric=metric, steps=5)
    assert max(abs(score) for *_, score in along.scores) > 1e-3


def one_by_one(model, values, threshold):
    """ACDC as written down: (edge → loss) of what stays."""
    layout, graph = model.layout, graph_of(model.layout)
    own = np.array(model.model(IDS)[0, -1], dtype=np.float64)
    # With layers=[2]: these receivers, and the output.
    tried = [r for r in graph.receivers if r[:2] in ("a2", "m2", "lo")]

    def value(edges):
        removed = 1 - edge_weights(graph, edges)
        logits = patched_logits(layout, graph, IDS, values, removed[None], [len(CLEAN) - 1])
        rows = np.array(logits[0, 0], dtype=np.float64)
        p, q = (x - np.log(np.exp(x).sum()) for x in (own, rows))
        return -np.sum(np.exp(p) * (p - q))

    kept, current = dict.fromkeys(graph.edges, 0.0), value(graph.edges)
    for receiver in reversed(tried):
        for sender in reversed(graph.senders[: graph.upstream[graph.receiver(receiver)]]):
            trial = [edge for edge in kept if edge != (sender, receiver)]
            after = value(trial)
            if current - after < threshold:
                del kept[sender, receiver]
                current = after
            else:
                kept[sender, receiver] = current - after
    return kept


@pytest.mark.parametrize(
    ("ablation", "threshold"), [("zero", 5e-3), ("mean", 5e-4), ("resample", 1e-4)]
)
def test_what_a_removed_edge_carries(ablation, threshold):
    model = small_gpt2()
    corrupted = sent(model.layout, graph_of(model.layout), OTHER)
    values = {
        "resample": corrupted,
        "zero": mx.zeros(corrupted.shape),
        "mean": mx.array(np.array(corrupted).mean(axis=2, keepdims=True) + np.zeros((1, 1, 10, 1))),
    }[ablation].astype(mx.float32)
    found = acdc(model, CLEAN, CORRUPTED, threshold, ablation=ablation, layers=[2])
    kept = one_by_one(model, values, threshold)
    expected = connected([(s, r, loss) for (s, r), loss in kept.items()])
    assert 10 < len(expected) < found.total_edges - 30
    assert sum(loss > 0 for *_, loss in expected) >= 2
    assert {(s, r) for s, r, _ in found.edges} == {(s, r) for s, r, _ in expected}
    losses = {(s, r): loss for s, r, loss in expected}
    for sender, receiver, loss in found.edges:
        assert loss == pytest.approx(losses[sender, receiver], rel=1e-3, abs=1e-5)


def test_edges_are_made_when_they_are_asked_for(monkeypatch):
    """A model of billions of parameters has millions of them."""
    made, plain = [], EdgeTable._made

    def counting(self, indices):
        found = plain(self, indices)
        made.extend(found)
        return found

    monkeypatch.setattr(EdgeTable, "_made", counting)
    found = edge_attribution_patching(small_llama(), CLEAN, CORRUPTED, metric=logits_metric)
    assert len(found.scores) > 300 and len(found.top(3)) == 3
    assert len(made) < 10
