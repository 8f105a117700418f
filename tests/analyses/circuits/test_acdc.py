"""ACDC by nodes and blocks, what it says before it starts, and what it did not try."""

from __future__ import annotations

import warnings

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses import acdc
from mlxray.analyses.circuits import acdc_search
from mlxray.errors import InputError
from mlxray.testing.zoo import small_model

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

pytestmark = pytest.mark.floats


def one_by_one(model, ablation, threshold, by):
    """The sequential rule with one plain run for each trial."""
    layers, heads = model.layout.n_layers, 4
    source = model.activations(
        [CORRUPTED], [(p, i) for i in range(layers) for p in ("z", "attn_out", "mlp_out")]
    )

    def stand_in(point, layer):
        value = source[point, layer]
        axis = 2 if point == "z" else 1
        if ablation == "mean":
            return mx.broadcast_to(mx.mean(value, axis=axis, keepdims=True), value.shape)
        return mx.zeros_like(value) if ablation == "zero" else value

    def edit(point, layer, which):
        value = stand_in(point, layer)
        if which is None:
            return lambda x: value
        chosen = mx.array([head in which for head in range(heads)])[None, :, None, None]
        return lambda x: mx.where(chosen, value, x)

    def metric(removed):
        hooks, by_layer = [], {}
        for name in removed:
            layer, _, head = name[1:].partition(".h")
            if name[0] == "m":
                hooks.append((("mlp_out", int(layer)), edit("mlp_out", int(layer), None)))
            elif head:
                by_layer.setdefault(int(layer), set()).add(int(head))
            else:
                hooks.append((("attn_out", int(layer)), edit("attn_out", int(layer), None)))
        hooks += [(("z", layer), edit("z", layer, which)) for layer, which in by_layer.items()]
        patched = model.run_with_hooks([CLEAN], hooks, allow_unchanged=True)[0, -1]
        clean = model.run_with_hooks([CLEAN])[0, -1]
        p, q = (x - mx.logsumexp(x) for x in (clean, patched))
        return -mx.sum(mx.exp(p) * (p - q)).item()

    names = []
    for layer in reversed(range(layers)):
        mine = [f"a{layer}.h{h}" for h in range(heads)] if by == "node" else [f"a{layer}"]
        names += [f"m{layer}", *reversed(mine)]
    removed, kept, current = [], {}, 0.0
    for name in names:
        value = metric([*removed, name])
        if current - value >= threshold:
            kept[name] = current - value
        else:
            removed, current = [*removed, name], value
    return kept


@pytest.mark.parametrize("by", ["node", "block"])
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_is_the_sequential_rule(by, ablation):
    model = small_llama()
    threshold = 0.02
    expected = one_by_one(model, ablation, threshold, by)
    found = acdc(model, CLEAN, CORRUPTED, threshold, ablation=ablation, by=by)
    kept = {name: loss for name, _, loss in found.edges if name != "embed"}
    assert kept.keys() == expected.keys()
    assert kept
    for name, loss in kept.items():
        assert loss == pytest.approx(expected[name], rel=1e-2, abs=1e-4)
    assert set(found.nodes) == {"embed", "logits", *expected}
    assert found.metadata["passes"] <= (20 if by == "node" else 8)


def test_edges_of_nodes_are_those_that_the_model_has():
    found = acdc(small_llama(), CLEAN, CORRUPTED, 0.0, by="node")
    edges = {(s, r) for s, r, _ in found.edges}
    assert ("a0.h1", "m0") in edges
    assert ("a0.h1", "a0.h2") not in edges
    assert len(edges) <= found.total_edges
    assert found.plot(backend="matplotlib").get_suptitle().startswith("ACDC by node circuit")
    blocks = acdc(small_llama(), CLEAN, CORRUPTED, 0.05, by="block")
    assert {name for name in blocks.nodes if name[0] == "a"} <= {f"a{i}" for i in range(4)}
    blocks.plot(backend="plotly")


def test_runs_where_heads_do_not_write_on_their_own():
    """Gemma 2 has a norm after attention: there are no edges of heads, but blocks and nodes."""
    model = InterpretableModel(small_model("gemma2"))
    found = acdc(model, [1, 2, 3, 4], [1, 9, 3, 4], 1e-4, by="block")
    assert found.total_edges > 3
    assert np.isfinite(found.faithfulness)


def test_nodes_are_those_that_were_tested():
    model = small_gpt2()
    found = acdc(model, CLEAN, CORRUPTED, 2e-3, layers=[2], components=["attn"])
    tried = {(s, r) for s, r, _ in found.tested}
    for sender, receiver in tried:
        assert receiver == "logits" or receiver.startswith("a2.")
        assert sender == "embed" or sender.startswith("a")
    assert not any(name.startswith("m") for name in found.nodes)
    assert {name for name in found.nodes if name[0] == "a"} <= {
        name.removesuffix(".q").removesuffix(".k").removesuffix(".v")
        for edge in tried
        for name in edge
    }
    assert len(found.untested) + len(tried) == len(found.edges)
    assert f"{len(found.untested)} of them not tested" in found.summary()
    graph = found.to_graph()
    assert {e["source"] for e in graph["edges"]} <= {n["id"] for n in graph["nodes"]}
    everything = acdc(model, CLEAN, CORRUPTED, 1.0)
    assert everything.untested == []


def test_the_bound_is_told_before_it_starts(capsys, monkeypatch):
    model = small_llama()
    acdc(model, CLEAN, CORRUPTED, 0.05, by="node", verbose=True)
    assert "acdc tries 20 nodes in 2 to 20 passes; a pass takes" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        acdc(model, CLEAN, CORRUPTED, 0.05, by="block")
    monkeypatch.setattr(acdc_search, "LONG", 0.0)
    with pytest.warns(UserWarning, match="acdc tries 8 blocks in 1 to 8 passes"):
        acdc(model, CLEAN, CORRUPTED, 0.05, by="block")


def test_more_passes_than_allowed_are_refused_before_the_first(monkeypatch):
    model = small_llama()
    with pytest.raises(InputError, match="may need 20 passes to try 20 nodes"):
        acdc(model, CLEAN, CORRUPTED, by="node", max_passes=19)
    assert acdc(model, CLEAN, CORRUPTED, by="node", max_passes=20).metadata["passes"] <= 20
    with pytest.raises(InputError, match="by is one of edge, node, block"):
        acdc(model, CLEAN, CORRUPTED, by="head")
    with pytest.raises(InputError, match="max_passes"):
        acdc(model, CLEAN, CORRUPTED, max_passes=0)


def test_a_small_budget_makes_small_passes(monkeypatch):
    model = small_gpt2()
    options = {"threshold": 1e-3, "layers": [2], "components": ["attn"]}
    expected = acdc(model, CLEAN, CORRUPTED, **options).edges
    monkeypatch.setattr("mlxray.analyses.circuits.acdc.DEFAULT_BUDGET", 1)
    found = acdc(model, CLEAN, CORRUPTED, **options).edges
    assert {edge[:2] for edge in found} == {edge[:2] for edge in expected}
