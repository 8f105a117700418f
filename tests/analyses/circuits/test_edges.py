"""Edges one by one against edits of the ordinary pass, and the gradient against differences."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.circuits import edge_gradients
from mlxray.analyses.circuits.edge_gradients import gradient_parts
from mlxray.analyses.circuits.edges import EdgePass, graph_of, patched_logits, sent
from mlxray.errors import AddressError, PointAbsent

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

IDS, OTHER = mx.array([CLEAN]), mx.array([CORRUPTED])


@pytest.fixture(params=[small_llama, small_gpt2], ids=["llama", "gpt2"])
def model(request):
    return request.param()


def weights(graph, *edges):
    found = np.zeros((1, len(graph.receivers), len(graph.senders)), dtype=np.float32)
    for sender, receiver in edges:
        found[0, graph.receiver(receiver), graph.sender(sender)] = 1
    return mx.array(found)


def close(a, b):
    return mx.allclose(a, b, rtol=1e-5, atol=5e-6).item()


def gradients(layout, graph, ids, metric, **options):
    """The metric and (receivers, B, S, D), from parts that follow one another."""
    value, parts = gradient_parts(layout, graph, ids, metric, **options)
    parts = list(parts)
    ends = [part.stop for part, _ in parts]
    assert [part.start for part, _ in parts] == [0, *ends[:-1]]
    assert ends[-1] == len(graph.receivers)
    return value, mx.concatenate([gradient for _, gradient in parts])


def test_no_edge_is_this_run_and_all_edges_are_the_other(model):
    layout, graph = model.layout, graph_of(model.layout)
    other = sent(layout, graph, OTHER)
    shape = (1, len(graph.receivers), len(graph.senders))
    own, theirs = model.model(IDS), model.model(OTHER)
    assert not close(own, theirs)
    assert close(patched_logits(layout, graph, IDS, other, mx.zeros(shape)), own)
    assert close(patched_logits(layout, graph, IDS, other, mx.ones(shape)), theirs)


def test_senders_sum_to_the_residual_stream(model):
    layout, graph = model.layout, graph_of(model.layout)
    last = layout.n_layers - 1
    stream = model.watch(IDS, "resid_post", [last])[last]
    project = [
        layout.modules[f"{layout.block(i)}.{layout.adapter.attn}.{layout.adapter.out_proj}"]
        for i in range(layout.n_layers)
    ]
    biases = sum(p["bias"] for p in project if "bias" in p)
    assert close(sent(layout, graph, IDS).sum(axis=0) + biases, stream)


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_all_edges_into_one_input_of_a_head(model, letter):
    layout, graph = model.layout, graph_of(model.layout)
    layer, group = 2, layout.heads(2) // layout.heads(2, kv=True)
    # Heads that share keys and values are patched together, as one edit of the point does.
    heads = [1] if letter == "q" else [h for h in range(4) if h // group == 1]
    point_head = 1
    theirs = model.watch(OTHER, letter, [layer])[layer]

    def put(x):
        new = mx.array(x)
        new[:, point_head] = theirs[:, point_head]
        return new

    expected = model.run_with_hooks(IDS, [((letter, layer), put)])
    assert mx.max(mx.abs(expected - model.model(IDS))).item() > 1e-4
    edges = [(s, f"a{layer}.h{h}.{letter}") for h in heads for s in graph.senders]
    found = patched_logits(layout, graph, IDS, sent(layout, graph, OTHER), weights(graph, *edges))
    assert close(found, expected)


def test_one_edge_into_the_output_is_a_shift_of_the_last_stream(model):
    layout, graph = model.layout, graph_of(model.layout)
    ours, theirs = sent(layout, graph, IDS), sent(layout, graph, OTHER)
    at = graph.sender("a1.h2")
    last = layout.n_layers - 1
    expected = model.run_with_hooks(
        IDS, [(("resid_post", last), lambda x: x + theirs[at] - ours[at])]
    )
    found = patched_logits(layout, graph, IDS, theirs, weights(graph, ("a1.h2", "logits")))
    assert close(found, expected)


def test_rows_are_tried_together(model):
    layout, graph = model.layout, graph_of(model.layout)
    other = sent(layout, graph, OTHER)
    choices = [weights(graph, ("embed", "m1")), weights(graph, ("m0", "a2.h0.v"))]
    together = patched_logits(layout, graph, IDS, other, mx.concatenate(choices))
    for row, choice in zip(together, choices, strict=True):
        assert close(row, patched_logits(layout, graph, IDS, other, choice)[0])


@pytest.mark.parametrize("receiver", ["a0.h0.q", "a1.h1.k", "a2.h3.v", "m1", "logits"])
def test_gradient_against_central_differences(model, receiver):
    layout, graph = model.layout, graph_of(model.layout)

    def metric(logits):
        return logits[0, -1, 3] - logits[0, -1, 4]

    value, gradient = gradients(layout, graph, IDS, metric)
    assert close(value, metric(model.model(IDS)))
    at = graph.receiver(receiver)
    direction = gradient[at] / mx.linalg.norm(gradient[at])

    def moved(step):
        def change(part, stream, written):
            one_hot = mx.array([float(i == at) for i in range(part.start, part.stop)])
            return stream[None] + step * one_hot[:, None, None, None] * direction[None]

        return metric(EdgePass(layout, graph, change).execute(IDS)[0])

    slope = (moved(1e-2) - moved(-1e-2)).item() / 2e-2
    expected = mx.sum(gradient[at] * direction).item()
    assert expected > 0
    assert slope == pytest.approx(expected, rel=2e-2, abs=2e-4)


def test_gradient_is_that_of_a_row_for_each_receiver(model):
    """The other way: one pass in which every receiver has an input of its own."""
    layout, graph = model.layout, graph_of(model.layout)
    ids = mx.concatenate([IDS, OTHER])

    def metric(logits):
        return mx.sum(mx.sin(logits[:, -1, :5])) - mx.sum(logits[:, 4, 7] ** 2)

    def value(probes):
        def change(part, stream, written):
            return stream[None] + probes[part]

        return metric(EdgePass(layout, graph, change, embed=embed).execute(ids)[0])

    embed = 0.5 * mx.random.normal((2, 10, 32))
    expected = mx.grad(value)(mx.zeros((len(graph.receivers), 2, 10, 32)))
    _, found = gradients(layout, graph, ids, metric, embed=embed)
    assert mx.min(mx.max(mx.abs(expected), axis=(1, 2, 3))).item() > 1e-6
    scale = mx.max(mx.abs(expected)).item()
    assert mx.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("alone", [True, False])
def test_gradients_in_small_parts_are_the_same(model, monkeypatch, alone):
    layout, graph = model.layout, graph_of(model.layout)

    def metric(logits):
        return logits[0, -1, 3] - logits[0, -1, 4]

    _, expected = gradients(layout, graph, IDS, metric)
    monkeypatch.setattr(edge_gradients, "PART_BYTES", 1)
    monkeypatch.setattr(edge_gradients, "resumable", lambda layout: alone)
    _, parts = gradient_parts(layout, graph, IDS, metric)
    parts = list(parts)
    assert len(parts) == len(graph.receivers)
    assert close(mx.concatenate([gradient for _, gradient in parts]), expected)


def test_names_are_checked(model):
    graph = graph_of(model.layout)
    with pytest.raises(AddressError, match=r"a1\.h9"):
        graph.sender("a1.h9")
    assert ("m2", "m1") not in graph.edges
    assert ("m0", "m1") in graph.edges
    assert ("a1.h0", "m1") in graph.edges
    assert ("a1.h0", "a1.h1.q") not in graph.edges


def test_models_with_a_norm_after_attention_are_refused():
    from mlx_lm.models import gemma2

    from mlxray import InterpretableModel

    args = gemma2.ModelArgs("gemma2", 32, 2, 48, 4, 8, 1e-6, 40, 2)
    with pytest.raises(PointAbsent, match="norm stands between"):
        graph_of(InterpretableModel(gemma2.Model(args)).layout)
