"""Every method of circuit discovery finds exactly the edges that were planted."""

from __future__ import annotations

import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses import acdc, edge_attribution_patching, path_patching
from mlxray.analyses.circuits.circuit import bench, names
from mlxray.analyses.circuits.circuit_result import CircuitResult, connected
from mlxray.errors import AddressError, InputError
from mlxray.testing.planted import PLANTED
from mlxray.testing.planted.brute_force import edge_effects

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama


@pytest.fixture(params=list(PLANTED))
def planted(request):
    return PLANTED[request.param]()


def metric(planted):
    tokens = {"correct_token": planted.correct, "incorrect_token": planted.incorrect}
    return {"metric": "logit_diff", "metric_kwargs": tokens}


@pytest.mark.parametrize("steps", [1, 5])
def test_attribution_ranks_the_planted_edges_first(planted, steps):
    model = InterpretableModel(planted.model)
    found = edge_attribution_patching(
        model, planted.clean, planted.corrupted, steps=steps, **metric(planted)
    )
    assert {(s, r) for s, r, _ in found.scores} == set(planted.candidates)
    best = {(s, r) for s, r, _ in found.top(len(planted.edges))}
    assert best == planted.edges
    circuit = found.circuit(edges=len(planted.edges))
    assert set(names(circuit.edges)) == planted.edges


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_acdc_keeps_the_planted_edges_and_no_other(planted, ablation):
    model = InterpretableModel(planted.model)
    found = acdc(
        model, planted.clean, planted.corrupted, 0.03, ablation=ablation, **metric(planted)
    )
    if ablation == "resample":
        assert set(names(found.edges)) == planted.edges
        assert found.faithfulness == pytest.approx(1, abs=0.02)
    else:  # a mean also removes what both prompts share, which the model needs too
        assert planted.edges <= set(names(found.edges)) or planted.name == "selection"
    assert found.total_edges == len(planted.candidates)


def test_acdc_is_what_trying_one_edge_after_the_other_gives():
    """The passes that try several edges at once change nothing: the sequential rule, by hand."""
    model = small_llama()
    options = {"metric": "kl_divergence"}
    threshold = 2e-3
    found = acdc(model, CLEAN, CORRUPTED, threshold, **options)
    ground = bench(model, CLEAN, CORRUPTED, "kl_divergence")
    from mlxray.analyses.circuits.circuit import edge_weights

    graph = ground.graph
    kept = set(graph.edges)

    def value(edges):
        return ground.values([edge_weights(graph, edges)])[0].item()

    current = value(kept)
    for receiver, count in reversed(list(zip(graph.receivers, graph.upstream, strict=True))):
        for sender in reversed(graph.senders[:count]):
            trial = kept - {(sender, receiver)}
            after = value(trial)
            if current - after < threshold:
                kept, current = trial, after
    expected = {(s, r) for s, r, _ in connected([(s, r, 0.0) for s, r in kept])}
    assert 0 < len(expected) < len(graph.edges)
    assert set(names(found.edges)) == expected


def test_faithfulness_and_completeness_at_the_ends():
    model = small_gpt2()
    ground = bench(model, CLEAN, CORRUPTED, "l2_distance")
    assert ground.faithfulness(ground.graph.edges) == pytest.approx(1, abs=1e-5)
    assert ground.faithfulness([]) == pytest.approx(0, abs=1e-5)
    assert ground.completeness(ground.graph.edges) == pytest.approx(0, abs=1e-5)
    assert ground.completeness([]) == pytest.approx(1, abs=1e-5)


def test_one_path_is_one_edge_of_the_other_run(planted):
    """In the corrupted run a true edge carries back what brute force says, where it acts alone."""
    model = InterpretableModel(planted.model)
    effects = edge_effects(planted)
    false = [e for e in planted.candidates if e not in planted.edges][:6]
    for sender, receiver in false:
        if abs(effects[sender, receiver]) < 1e-3 and receiver == "logits":
            found = path_patching(
                model, planted.clean, planted.corrupted, sender, receiver, **metric(planted)
            )
            assert abs(found.effect) < 1e-2


def test_path_through_everything_is_the_clean_run():
    model = small_llama()
    graph = bench(model, CLEAN, CORRUPTED, "l2_distance").graph
    found = path_patching(model, CLEAN, CORRUPTED, list(graph.senders), "logits", metric="l2")
    assert found.effect == pytest.approx(1, abs=1e-4)
    assert found.n_frozen == 0


def test_receivers_are_frozen_to_the_corrupted_run():
    """Two receivers in series: the later one hears the sender, not what the first makes of it."""
    model = small_llama()
    from mlxray.analyses.circuits.edges import graph_of, sent
    from mlxray.analyses.circuits.path_patching import path_logits

    layout = model.layout
    graph = graph_of(layout)
    clean, corrupted = model.tokens.batch(CLEAN).ids, model.tokens.batch(CORRUPTED).ids
    found = path_logits(layout, graph, clean, corrupted, ["embed"], ["m0", "logits"])
    shift = sent(layout, graph, clean)[0] - sent(layout, graph, corrupted)[0]
    last = layout.n_layers - 1
    # The output hears only embed: its stream is the corrupted one plus the shift, whatever m0 did.
    expected = model.run_with_hooks(CORRUPTED, [(("resid_post", last), lambda x: x + shift)])
    assert np.allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_names_of_modules_stand_for_their_parts():
    model = small_llama()
    found = path_patching(
        model, CLEAN, CORRUPTED, "layers.0.self_attn", "layers.2.self_attn", metric="l2"
    )
    assert found.senders == [f"a0.h{h}" for h in range(4)]
    assert len(found.receivers) == 12
    assert found.data["n_frozen"] == 21 - 4
    assert path_patching(model, CLEAN, CORRUPTED, "m0", "a1.h2").receivers == [
        f"a1.h2.{x}" for x in ("q", "k", "v")
    ]


def test_what_cannot_be_asked():
    model = small_llama()
    with pytest.raises(InputError, match="comes after"):
        path_patching(model, CLEAN, CORRUPTED, "m2", "m1")
    with pytest.raises(AddressError, match="no part of the graph"):
        path_patching(model, CLEAN, CORRUPTED, "m9", "logits")
    with pytest.raises(InputError, match="components"):
        acdc(model, CLEAN, CORRUPTED, components=["mlps"])
    with pytest.raises(InputError, match="ablation"):
        acdc(model, CLEAN, CORRUPTED, ablation="noise")
    with pytest.raises(InputError, match="layers is empty"):
        acdc(model, CLEAN, CORRUPTED, layers=[])
    with pytest.raises(InputError, match="steps"):
        edge_attribution_patching(model, CLEAN, CORRUPTED, steps=0, metric="l2")


def test_circuit_result_as_graph(tmp_path):
    edges = [("embed", "a0.h1.k", 0.5), ("a0.h1", "m1", -0.25), ("m1", "logits", 1.0)]
    circuit = CircuitResult([*edges], 0.1, 46, faithfulness=0.9, method="test")
    assert circuit.nodes == ["embed", "a0.h1", "m1", "logits"]
    assert "3 of 46 edges" in circuit.summary()
    assert circuit.to_graph()["edges"][0] == {
        "source": "embed",
        "target": "a0.h1",
        "input": "a0.h1.k",
        "weight": 0.5,
    }
    networkx = pytest.importorskip("networkx")
    graph = networkx.read_graphml(circuit.to_graphml(tmp_path / "circuit.graphml"))
    assert set(graph.nodes) == set(circuit.nodes)
    assert sorted(d["weight"] for *_, d in graph.edges(data=True)) == [-0.25, 0.5, 1.0]


def test_dead_ends_are_dropped():
    edges = [
        ("embed", "m0", 1.0),
        ("m0", "a1.h0.v", 1.0),
        ("m0", "logits", 1.0),
        ("a0.h0", "logits", 1.0),
    ]
    assert connected(edges) == [("embed", "m0", 1.0), ("m0", "logits", 1.0)]
