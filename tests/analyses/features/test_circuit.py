"""Circuits of features, against hooks written by hand and a planted path."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.circuits.circuit_result import CircuitResult
from mlxray.analyses.features import feature_circuit, feature_patching
from mlxray.errors import InputError
from mlxray.testing.planted import path_through_mlp

from .by_hooks import ANSWERS, TEXT, diff, identity
from .conftest import random_dictionary
from .test_reader import cross_layer

pytestmark = pytest.mark.floats

DIFF: dict[str, Any] = {"metric": "logit_diff", "metric_kwargs": ANSWERS}
LOWER, UPPER = "layers.0.resid_post", "layers.2.resid_post"


def test_nodes_are_the_features_over_the_threshold(model, dictionary) -> None:
    effects = feature_patching(model, dictionary, TEXT, top_k=None, **DIFF)
    found = feature_circuit(model, dictionary, TEXT, 1, "resid_post", threshold=0.05, **DIFF)
    wanted = [f for f in effects if abs(effects[f]) >= 0.05]
    assert found.nodes == [f"L1.resid_post.f{f}" for f in wanted] and 0 < len(wanted) < len(effects)
    assert found.edges == [
        (f"L1.resid_post.f{f}", "logits", pytest.approx(effects[f], abs=1e-4)) for f in wanted
    ]
    assert found.total_edges == found.features_tested == len(effects)
    assert found.total == pytest.approx(effects.total, abs=1e-4)
    assert isinstance(found, CircuitResult) and found.threshold == 0.05


def test_the_circuit_alone_and_the_rest_without_it(model, dictionary) -> None:
    found = feature_circuit(model, dictionary, TEXT, threshold=0.2, **DIFF)
    ids = [int(node.rpartition("f")[2]) for node in found.nodes]
    kept = mx.array(np.isin(np.arange(dictionary.n_features), ids))

    def value(mask: Any) -> float:
        def hook(x: mx.array) -> mx.array:
            f = dictionary.encode(x)
            return x + dictionary.decode(mx.where(mask, f, 0)) - dictionary.decode(f)

        return diff(model.run_with_hooks(TEXT, {"layers.1.resid_post": hook}))

    none, clean = value(mx.zeros_like(kept)), diff(model.run_with_hooks(TEXT))
    assert found.faithfulness == pytest.approx((value(kept) - none) / (clean - none), abs=1e-2)
    assert found.completeness == pytest.approx((value(~kept) - none) / (clean - none), abs=1e-2)
    everything = feature_circuit(model, dictionary, TEXT, threshold=0.0, top_k=None, **DIFF)
    assert everything.faithfulness == pytest.approx(1, abs=1e-3)
    assert everything.completeness == pytest.approx(0, abs=1e-3)


def test_an_edge_is_what_passes_through_the_receiver(model) -> None:
    lower, upper = random_dictionary(LOWER, seed=1), random_dictionary(UPPER, seed=2)
    found = feature_circuit(model, [upper, lower], TEXT, threshold=0.0, top_k=4, **DIFF)
    edges = {(s, r): weight for s, r, weight in found.edges}
    assert [node[:2] for node in found.nodes] == ["L0"] * 4 + ["L2"] * 4
    assert len(edges) == 8 + 16 == found.total_edges
    clean, cache = model.run_with_cache(TEXT, [LOWER, UPPER])
    own = lower.encode(cache[LOWER])
    for sender in found.nodes[:4]:
        u = int(sender.rpartition("f")[2])
        out = own[..., u : u + 1] * lower.decoder[u]
        _, ablated = model.run_with_cache(
            TEXT, [UPPER], interventions={LOWER: lambda x, o=out: x - o}
        )
        moved = upper.encode(ablated[UPPER]) - upper.encode(cache[UPPER])
        for receiver in found.nodes[4:]:
            d = int(receiver.rpartition("f")[2])
            step = moved[..., d : d + 1] * upper.decoder[d]
            patched = model.run_with_hooks(
                TEXT, {UPPER: lambda x, s=step: x + s}, allow_unchanged=True
            )
            wanted = diff(clean) - diff(patched)
            assert edges[sender, receiver] == pytest.approx(wanted, abs=2e-3)


def test_a_planted_path_across_layers() -> None:
    """Head 0.0 brings the fact, the MLP of layer 1 turns it into the answer: one edge."""
    planted = path_through_mlp()
    model = InterpretableModel(planted.model)
    width = planted.model.model.embed_tokens.weight.shape[1]
    fact, answer = 1 + 11, 1 + 11 + 4
    both = [identity(width, f"layers.{layer}.resid_post", dead=[0]) for layer in (0, 1)]
    answers = {"correct_token": planted.correct, "incorrect_token": planted.incorrect}
    found = feature_circuit(
        model,
        both,
        list(planted.clean),
        threshold=0.5,
        metric="logit_diff",
        metric_kwargs=answers,
    )
    first, second = f"L0.resid_post.f{fact}", f"L1.resid_post.f{answer}"
    assert found.nodes == [first, second]
    edges = {(s, r): weight for s, r, weight in found.edges}
    assert set(edges) == {(first, "logits"), (second, "logits"), (first, second)}
    # All that the fact does, it does through the answer.
    assert edges[first, second] == pytest.approx(edges[first, "logits"], rel=1e-2)
    assert found.faithfulness == pytest.approx(1, abs=0.05)


def test_texts_are_averaged(model) -> None:
    both = [random_dictionary(LOWER, seed=1), random_dictionary(UPPER, seed=2)]
    texts = [TEXT, "another"]
    options: dict[str, Any] = {"threshold": 0.0, "top_k": None, **DIFF}
    together = feature_circuit(model, both, texts, **options)
    each = [{e[:2]: e[2] for e in feature_circuit(model, both, t, **options).edges} for t in texts]
    assert together.texts == 2
    for sender, receiver, weight in together.edges[:5] + together.edges[-5:]:
        values = [one.get((sender, receiver), 0.0) for one in each]
        assert weight == pytest.approx(np.mean(values), abs=2e-3)


def test_layers_of_a_cross_layer_transcoder(model) -> None:
    transcoder = cross_layer()
    found = feature_circuit(model, transcoder, TEXT, threshold=0.0, top_k=2, **DIFF)
    assert [node.rpartition(".")[0] for node in found.nodes] == [
        f"L{layer}.mlp.input" for layer in range(3) for _ in range(2)
    ]
    one = feature_circuit(model, transcoder, TEXT, layer=1, threshold=0.0, top_k=2, **DIFF)
    assert one.nodes == found.nodes[2:4]


def test_effects_may_be_estimated(model, dictionary) -> None:
    found = feature_circuit(
        model, dictionary, TEXT, threshold=0.0, top_k=3, method="gradient", **DIFF
    )
    wanted = feature_patching(
        model, dictionary, TEXT, top_k=3, method="gradient", verify_top=0, **DIFF
    )
    assert list(found.effects.values()) == pytest.approx(list(wanted.values()), abs=1e-5)


def test_a_circuit_is_a_graph_a_table_and_json(model, dictionary) -> None:
    found = feature_circuit(model, dictionary, TEXT, threshold=0.05)
    graph = found.to_graph()
    assert graph["nodes"][-1] == {"id": "logits"}
    ids = {node["id"] for node in graph["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in graph["edges"])
    assert f"Circuit: {len(found.nodes)} nodes, {len(found.edges)} of" in found.summary()
    assert json.loads(found.to_json())["data"]["effects"].keys() == set(found.nodes)
    assert len(found.rows()[1]) == len(found.edges)
    assert sorted(found.to_networkx().nodes) == sorted([*found.nodes, "logits"])


def test_nothing_over_the_threshold_is_said(model, dictionary) -> None:
    found = feature_circuit(model, dictionary, TEXT, threshold=1e6)
    assert found.nodes == [] and "no feature reaches threshold=1e+06" in found.summary()


def test_what_makes_no_circuit_is_refused(model, dictionary) -> None:
    with pytest.raises(InputError, match="empty list"):
        feature_circuit(model, [], TEXT)
    with pytest.raises(InputError, match=r"two dictionaries read L1\.resid_post"):
        feature_circuit(model, [dictionary, random_dictionary(seed=4)], TEXT)
    with pytest.raises(InputError, match="are for one dictionary"):
        feature_circuit(model, [dictionary, random_dictionary(UPPER)], TEXT, layer=1)
    with pytest.raises(InputError, match="threshold is at least 0"):
        feature_circuit(model, dictionary, TEXT, threshold=-1.0)
    with pytest.raises(InputError, match="Did you mean 'gradient'"):
        feature_circuit(model, dictionary, TEXT, method="gradients")
    assert not model.layout.attached.all


REFERENCE = """
effects = feature_patching(
model, sae,
text="The capital of France is",
layer=10,
component="mlp",
top_k=20, # Test top-20 most active features
)
# Or test specific features
some = feature_patching(
model, sae, text,
layer=10,
feature_ids=[42, 123, 456],
)
circuit = feature_circuit(
model, sae, text,
layer=10,
component="mlp",
threshold=0.01,
top_k=50,
)
examples = max_activating_examples(
model, sae,
feature_id=42,
texts=dataset_texts,
layer=10,
component="mlp",
top_k=10,
)
histogram = feature_activation_histogram(
model, sae,
feature_id=42,
texts=dataset_texts,
layer=10,
)
"""


def test_the_references_examples_run(make) -> None:
    """With layers and feature numbers that a small model has; only the import differs."""
    model = make("llama", num_hidden_layers=11)
    model.context  # noqa: B018
    code = REFERENCE.replace("42, 123, 456", "3, 11, 7").replace("42", "3")
    text, texts = "The capital of France is", ["hello", "world of letters"]
    sae = random_dictionary(None, encoder_bias=mx.zeros(40))
    names: dict[str, Any] = {"model": model, "sae": sae, "text": text, "dataset_texts": texts}
    imports = "from mlxray.analyses.features import (feature_patching, feature_circuit,\n"
    imports += "max_activating_examples, feature_activation_histogram)\n"
    exec(imports + code, names)
    assert set(names["some"]) == {3, 11, 7} and len(names["effects"]) <= 20
    assert all(node.startswith("L10.mlp.f") for node in names["circuit"].nodes)
    assert {"text", "activation_value", "token_position"} <= set(names["examples"][0])
    keys = ("bin_edges", "counts", "mean", "std", "sparsity")
    assert [key in names["histogram"] for key in keys] == [True] * 5
