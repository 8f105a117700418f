"""The residual stream's parts: identities, sums, and mappings that do not add up."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxray import InterpretableModel
from mlxray.analyses.causal.residual_stream import ResidualStreamAccessor
from mlxray.errors import AddressError, AnalysisError, PointAbsent
from mlxray.run.parts.stream import check_sum
from mlxray.testing.zoo import small_model

TOKENS = [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
FAMILIES = ["llama", "gpt2", "gemma2"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    mx.random.seed(0)
    return InterpretableModel(small_model(request.param))


def of_trace(model):
    with model.trace(mx.array(TOKENS)) as trace:
        pass
    return ResidualStreamAccessor(trace.activations)


def close(a, b):
    np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5, atol=1e-5)


def test_the_reference_s_identities(model):
    rs = of_trace(model)
    assert rs.available_layers() == list(range(model.layout.n_layers))
    for layer in rs.available_layers():
        pre, mid, post = rs.resid_pre(layer), rs.resid_mid(layer), rs.resid_post(layer)
        attn, mlp = rs.attn_contribution(layer), rs.mlp_contribution(layer)
        if layer:
            assert mx.array_equal(pre, rs.resid_post(layer - 1))
        close(mid, pre + attn)
        close(post, pre + attn + mlp)
        close(rs.layer_contribution(layer), post - pre)
    # Through the model: what the accessor calls the last stream gives the logits.
    logits = model.model(mx.array(TOKENS))
    close(model.finish_from(rs.resid_post(model.layout.n_layers - 1)), logits)
    close(rs.resid_pre(0), model.activations(mx.array(TOKENS), ["embed"])["embed"])


@pytest.mark.parametrize("row", [0, 1])
def test_the_parts_sum_to_the_stream(model, row):
    rs = of_trace(model)
    parts = rs.decompose(row)
    layers = range(model.layout.n_layers)
    assert [n for n, _ in parts] == ["embed", *(f"{x}{i}" for i in layers for x in "am")]
    total = sum(np.array(part) for _, part in parts)
    close(total, rs.resid_post(layers[-1])[row])


@pytest.mark.parametrize("name", ["llama", "llama/bias", "gpt2"])
def test_heads_apart(name):
    model = InterpretableModel(small_model(name))
    parts = of_trace(model).decompose(1, heads=True)
    names = [n for n, _ in parts]
    assert names[1 : 1 + model.layout.heads(0)] == [
        f"a0.h{h}" for h in range(model.layout.heads(0))
    ]
    assert ("a0.bias" in names) == (name != "llama")
    last = ("resid_post", model.layout.n_layers - 1)
    stream = model.activations(mx.array(TOKENS), [last])[last][1]
    close(sum(np.array(part) for _, part in parts), stream)
    shares = model.activations(mx.array(TOKENS), [("head_out", 1)])["head_out", 1]
    close(dict(parts)["a1.h0"], shares[1, 0])
    if name == "gpt2":
        bias = model.model.model.h[0].attn.c_proj.bias
        close(dict(parts)["a0.bias"][0], bias)


def test_heads_behind_a_norm_are_refused():
    model = InterpretableModel(small_model("gemma2"))
    with pytest.raises(AnalysisError, match="a norm stands between"):
        of_trace(model).decompose(heads=True)


def test_inside_the_block_it_sees_edits(model):
    with model.trace(mx.array(TOKENS)) as trace:
        rs = ResidualStreamAccessor(trace.activations)
        before = rs.resid_post(0)
        trace.edit("layers.0.resid_pre", lambda x: x + 1)
        after = rs.resid_post(0)
    assert not mx.allclose(before, after)
    close(ResidualStreamAccessor(trace.activations).resid_post(0), after)


def test_one_run_for_a_layer_and_one_for_all_parts(model, monkeypatch):
    from mlxray.run.trace import Trace

    runs = []
    start = Trace._start
    monkeypatch.setattr(Trace, "_start", lambda *a, **k: runs.append(1) or start(*a, **k))
    rs = of_trace(model)
    runs.clear()
    for read in (rs.resid_pre, rs.resid_post, rs.attn_contribution, rs.layer_contribution):
        read(1)
    assert len(runs) == 1
    fresh = of_trace(model)
    runs.clear()
    fresh.decompose()
    assert len(runs) == 1


def test_a_cache(model):
    points = [(p, layer) for p in ("resid_post", "attn_add", "mlp_add") for layer in (0, 1)]
    _, cache = model.run_with_cache(mx.array(TOKENS), ["embed", *points])
    rs, whole = ResidualStreamAccessor(cache), of_trace(model)
    assert rs.available_layers() == [0, 1]
    close(rs.resid_pre(0), whole.resid_pre(0))
    close(rs.resid_mid(1), whole.resid_mid(1))
    if model.layout.n_layers == 2:
        close(rs.decompose(1)[3][1], whole.decompose(1)[3][1])
    _, few = model.run_with_cache(mx.array(TOKENS), [("resid_post", 1)])
    rs = ResidualStreamAccessor(few)
    assert rs.available_layers() == [1]
    with pytest.raises(AddressError, match=r"'layers\.1\.attn_add' is not among"):
        rs.attn_contribution(1)


def plain(model):
    """The activations as the reference has them: module paths in a dictionary."""
    with model.trace(mx.array(TOKENS)) as trace:
        pass
    return {f"model.{path}": trace.activations[path] for path in trace.activations}


def test_a_dictionary_of_module_paths():
    model = InterpretableModel(small_model("llama"))
    rs, whole = ResidualStreamAccessor(plain(model)), of_trace(model)
    assert rs.available_layers() == whole.available_layers()
    for layer in rs.available_layers():
        close(rs.resid_pre(layer), whole.resid_pre(layer))
        close(rs.resid_mid(layer), whole.resid_mid(layer))
        close(rs.mlp_contribution(layer), whole.mlp_contribution(layer))
    for (name, part), (same, wanted) in zip(rs.decompose(), whole.decompose(), strict=True):
        assert name == same
        close(part, wanted)
    with pytest.raises(AddressError, match="head_out"):
        rs.decompose(heads=True)


def test_dictionaries_that_do_not_say_what_was_added():
    """Gemma 2 norms what its sub-layers return, and GPT-2 adds positions to the embedding."""
    rs = ResidualStreamAccessor(plain(InterpretableModel(small_model("gemma2"))))
    with pytest.raises(AnalysisError, match="not the sum"):
        rs.resid_mid(1)
    with pytest.raises(AddressError, match=r"layers\.0\.resid_pre"):
        rs.decompose()
    rs = ResidualStreamAccessor(plain(InterpretableModel(small_model("gpt2"))))
    with pytest.raises(AddressError, match=r"layers\.0\.resid_pre"):
        rs.resid_pre(0)
    rs.resid_mid(1)


def test_nothing_there():
    with pytest.raises(AddressError, match="no layer's output"):
        ResidualStreamAccessor({}).decompose()
    with pytest.raises(AddressError, match=r"'layers\.3\.resid_post'"):
        ResidualStreamAccessor({"layers.0": mx.zeros((1, 2, 3))}).resid_post(3)


def test_a_point_that_the_model_does_not_have():
    from dataclasses import replace

    root = small_model("llama")
    adapter = replace(InterpretableModel(root).adapter, absent={"mlp_add": "for a test"})
    rs = of_trace(InterpretableModel(root, adapter=adapter))
    assert rs.resid_pre(1).shape == (2, 5, 32)
    with pytest.raises(PointAbsent, match="for a test"):
        rs.mlp_contribution(1)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision(dtype):
    root = small_model("llama")
    root.update(tree_map(lambda p: p.astype(dtype), root.parameters()))
    assert of_trace(InterpretableModel(root)).decompose()[1][1].dtype == dtype


def test_check_sum_sees_a_missing_part():
    mx.random.seed(0)
    parts = [mx.random.normal((3, 8)) for _ in range(20)]
    whole = sum(parts[1:], parts[0])
    check_sum(parts, whole)
    with pytest.raises(AnalysisError, match="relative gap"):
        check_sum(parts[1:], whole)
    with pytest.raises(AnalysisError):
        check_sum([parts[0] * 1.001, *parts[1:]], whole)
