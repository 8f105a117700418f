"""One form for one thing: lone addresses, missing names, slices, nodes of circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import mlxray
from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, InputError, TraceError
from mlxray.points.vocabulary import addresses, node

from ..backends import need_rope

IDS = [1, 2, 3, 4, 5]
CLEAN, CORRUPTED = [1, 2, 3, 4], [1, 9, 3, 4]


# One address where several may stand


@pytest.mark.parametrize("one", ["layers.0.z", ("z", 0), "embed", ("resid_post", np.int64(-1))])
def test_a_lone_address_is_a_list_of_one(llama_model: InterpretableModel, one: Any) -> None:
    model = llama_model
    total = lambda logits: logits.sum()  # noqa: E731
    for given in (one, [one], (one,)):
        cache = model.activations(IDS, given)
        assert len(cache) == 1 and one in cache
        assert list(model.run_with_cache(IDS, given)[1]) == list(cache)
        assert list(mlxray.collect_activations(model, IDS, given)) == list(cache)
        assert list(model.gradients(IDS, total, given)[1]) == list(cache)
        assert list(model.generate(IDS, 1, watch=given).activations) == list(cache)


def test_lone_interventions(llama_model: InterpretableModel) -> None:
    expected = llama_model.run_with_hooks(IDS, {"layers.1": iv.zero_out})
    for one in (("layers.1", iv.zero_out), (("resid_post", 1), iv.zero_out)):
        assert mx.array_equal(llama_model.run_with_hooks(IDS, one), expected)
        assert mx.array_equal(llama_model.run_with_hooks(IDS, [one]), expected)
        with llama_model.trace(IDS, one) as trace:
            pass
        assert mx.array_equal(trace.output, expected)


def test_two_names_are_two_addresses() -> None:
    assert addresses(("embed", "logits")) == ["embed", "logits"]
    assert addresses((("z", 0), "embed")) == [("z", 0), "embed"]
    assert addresses(iter(["embed"])) == ["embed"] and addresses([]) == []
    for wrong in (None, 3, {"embed": 1}, b"embed", len):
        with pytest.raises(AddressError, match="is not an address, and no list of them"):
            addresses(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [True, 1.0, np.bool_(1), mx.array([1]), mx.array(1.0)], ids=str)
def test_what_equals_a_layer_is_no_layer(llama_model: InterpretableModel, layer: Any) -> None:
    llama_model.activations(IDS, ("z", 1))  # known from now on
    for given in (("z", layer), [("z", layer)]):
        with pytest.raises(AddressError, match=r"is not an (address|integer)"):
            llama_model.activations(IDS, given)


# Names that are not there


@pytest.mark.parametrize("missing", ["nothing", "layers.99", ("z", 99), 7, None, ("a", "b"), [1]])
def test_get_of_a_missing_name_is_none(llama_model: InterpretableModel, missing: Any) -> None:
    with llama_model.trace(IDS) as trace:
        assert trace.activations.get(missing) is None
    cache = llama_model.run_with_cache(IDS, "embed")[1]
    for mapping in (trace.activations, cache):
        assert mapping.get(missing) is None and mapping.get(missing, 5) == 5
        assert missing not in mapping
    assert trace.get("nothing") is None


def test_results_are_the_dicts_and_lists_that_they_stand_for(
    llama_model: InterpretableModel,
) -> None:
    model = llama_model
    mappings: list[Any] = [
        model.logit_lens(IDS),
        model.activation_patching(CLEAN, CORRUPTED),
        model.attention_patterns(IDS),
        model.detect_head_types(IDS),
        model.attribution_map(CLEAN, CORRUPTED),
        model.lens_comparison(IDS),
    ]
    for result in mappings:
        assert isinstance(result, Mapping)
        assert list(result) == list(result.keys()) and len(result) == len(dict(result))
        assert [key for key, _ in result.items()] == list(result)
        assert result.get("nothing") is None and "nothing" not in result
        with pytest.raises(KeyError):
            result["nothing"]
    found = model.detect_induction_heads(n_random_tokens=4, threshold=0.0)
    assert isinstance(found, Sequence) and len(found[:2]) == 2 and found[0] in found
    assert next(reversed(found)) == found[-1] and found.index(found[1]) == 1


# Slices of layers


@pytest.mark.parametrize(
    "cut", [slice(1, 3), slice(None), slice(None, None, -1), slice(-2, None), slice(9, None)]
)
def test_slices_of_layers(llama_model: InterpretableModel, cut: slice) -> None:
    layers = llama_model.layers[cut]
    assert [layer.module for layer in layers] == [
        llama_model.layers[i].module for i in range(3)[cut]
    ]
    if layers:
        with llama_model.trace(IDS):
            values = [layer.output.save() for layer in layers]
        assert len(values) == len(layers)


def test_indices_of_layers(llama_model: InterpretableModel) -> None:
    assert llama_model.layers[np.int64(1)].module is llama_model.layers[-2].module
    for wrong in ("a", 1.0, None, True):
        with pytest.raises(InputError, match="the index of a layer is an integer"):
            llama_model.layers[wrong]
    with pytest.raises(AddressError, match="no layer 3"):
        llama_model.layers[3]
    with pytest.raises(TraceError, match="several layers"):
        llama_model.layers[1:] = 0


# Nodes of circuits


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("L4H2", ("z.h2", 4)),
        ("a4.h2", ("z.h2", 4)),
        ("a4.h2.q", ("q.h2", 4)),
        ("L4H2.k", ("k.h2", 4)),
        ("m3", ("mlp_out", 3)),
        ("a3", ("attn_out", 3)),
        ("L4", None),
        ("L4H", None),
        ("a4.2", None),
        ("m", None),
        ("layers.4.m3", None),
        ("aL4H2", None),
        ("L4H2.w", None),
    ],
)
def test_names_of_nodes(name: str, place: Any) -> None:
    assert node(name) == place


def test_one_head_is_read_where_all_are(any_model: InterpretableModel) -> None:
    for point in ("z", "q", "pattern"):
        whole = any_model.activations(IDS, (point, 1))[point, 1]
        for head in range(whole.shape[1]):
            address = f"layers.1.{point}.h{head}"
            cache = any_model.activations(IDS, [address, (point, 1)])
            assert mx.array_equal(cache[address], whole[:, head])
            if point == "z":
                assert mx.array_equal(cache[f"L1H{head}"], whole[:, head])
                assert mx.array_equal(cache.get(f"a1.h{head}"), whole[:, head])


def test_one_head_is_edited_alone(any_model: InterpretableModel) -> None:
    def by_hand(z: mx.array) -> mx.array:
        new = mx.array(z)
        new[:, 1] = 2 * z[:, 1]
        return new

    expected = any_model.run_with_hooks(IDS, {("z", 1): by_hand})
    for name in ("L1H1", "a1.h1", "layers.1.z.h1"):
        assert mx.array_equal(any_model.run_with_hooks(IDS, {name: iv.scale(2.0)}), expected)
    with any_model.trace(IDS, {"L1H1": iv.scale(2.0)}) as trace:
        after = trace.read("L1H1")
    assert trace.reports[0].fired == 1 and trace.reports[0].changed > 0
    assert mx.array_equal(trace.output, expected) and after.ndim == 3


def test_heads_that_are_not_there(llama_model: InterpretableModel) -> None:
    for name, fault in (
        ("L0H4", r"layer 0 has no head 4: it has 4 heads \(0 to 3\)"),
        ("a0.h3.k", r"layer 0 has no head 3: it has 2 key/value heads \(0 to 1\)"),
        ("L9H0", "no layer 9"),
        ("m9", "no layer 9"),
    ):
        with pytest.raises(AddressError, match=fault):
            llama_model.activations(IDS, name)


def test_every_node_of_a_circuit_can_be_read_and_patched(llama_model: InterpretableModel) -> None:
    need_rope(208, 4, 4, 4)  # sixteen choices of edges, with a stream for each of twelve inputs
    circuit = llama_model.acdc(CLEAN, CORRUPTED, threshold=0.0)
    nodes = circuit.nodes
    assert {"embed", "logits", "m0"} < set(nodes) and any(n.startswith("a0.h") for n in nodes)
    cache = llama_model.run_with_cache(CLEAN, nodes)[1]
    assert len(cache) == len(nodes)
    for name in nodes:
        changed = llama_model.run_with_hooks(CLEAN, {name: iv.scale(0.5)})
        assert not mx.array_equal(changed, llama_model.run_with_hooks(CLEAN))


def test_nodes_as_components(llama_model: InterpretableModel) -> None:
    model = llama_model
    by_head = model.activation_patching(CLEAN, CORRUPTED, component="attn_head")
    for layer in range(3):
        for head in range(4):
            one = model.activation_patching(CLEAN, CORRUPTED, component=f"L{layer}H{head}")
            assert one.layers == [layer]
            expected = by_head.effect_matrix[layer, head].item()
            assert one.effect_matrix.item() == pytest.approx(expected, abs=1e-5)
    everywhere = model.activation_patching(CLEAN, CORRUPTED, component="z.h1")
    assert np.allclose(everywhere.effect_matrix, by_head.effect_matrix[:, 1], atol=1e-5)
    with pytest.raises(InputError, match="'L1H0' is in layer 1: leave layers out"):
        model.activation_patching(CLEAN, CORRUPTED, component="L1H0", layers=[0])
    with model.causal_trace(CLEAN, CORRUPTED) as trace:
        trace.patch("L1H0")
        effect = trace.metric("l2")
    assert effect == pytest.approx(by_head.effect_matrix[1, 0].item(), abs=1e-5)
    for sender, receiver in (("L0H1", "L1H0.q"), ("L0H1", "L2H3")):
        dotted = [s.replace("L", "a").replace("H", ".h") for s in (sender, receiver)]
        named = model.path_patching(CLEAN, CORRUPTED, sender, receiver)
        assert named.effect == model.path_patching(CLEAN, CORRUPTED, *dotted).effect


def test_one_head_in_a_generation(llama_model: InterpretableModel) -> None:
    prompt = list(range(1, 9))
    for point in ("z", "pattern", "q", "k"):
        address = f"layers.0.{point}.h1"
        for cached in (True, False):
            kept = llama_model.generate(
                prompt, 3, watch=[address, (point, 0)], use_cache=cached, stop_tokens=[]
            ).activations
            for one, whole in zip(kept[address], kept[f"layers.0.{point}"], strict=True):
                assert mx.array_equal(one, whole[:, 1])
