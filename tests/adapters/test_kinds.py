"""What few families need: attention by module path, streams elsewhere, blocks of many kinds."""

import mlx.core as mx
import numpy as np
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray.errors import PointAbsent
from mlxray.points.adapter import Variant
from mlxray.testing.zoo import small_model

TOKENS = [[1, 2, 3, 4, 5, 6]]


def test_attention_by_the_path_of_its_module():
    """Longcat computes attention twice in a block: each is asked for by its module."""
    model = InterpretableModel(small_model("longcat_flash"))
    with pytest.raises(PointAbsent, match="2 times"):
        model.watch(TOKENS, "pattern", [0])
    first, second = "layers.0.self_attn.0.pattern", "layers.0.self_attn.1.pattern"
    cache = model.activations(TOKENS, [first, second, "layers.0.self_attn.1.z"])
    for name in (first, second):
        pattern = np.array(cache[name])
        np.testing.assert_allclose(pattern.sum(-1), 1, rtol=1e-5)
        assert not np.triu(pattern, 1).any()
    assert not np.allclose(cache[first], cache[second])
    plain = model.run_with_hooks(TOKENS)
    first_key = mx.zeros_like(cache[second])
    first_key[..., 0] = 1
    edited = model.run_with_hooks(TOKENS, [(second, lambda pattern: first_key)])
    assert not mx.allclose(plain, edited).item()


def test_the_same_by_the_point_and_by_the_path():
    model = InterpretableModel(small_model("llama"))
    cache = model.activations(TOKENS, [("pattern", 1), "layers.1.self_attn.pattern"])
    assert mx.array_equal(cache["pattern", 1], cache["layers.1.self_attn.pattern"]).item()


def test_the_lens_is_refused_where_the_stream_is_not_all():
    model = InterpretableModel(small_model("gemma3n"))
    with pytest.raises(PointAbsent, match="several residual streams"):
        model.finish_from(mx.zeros((1, 2, 32)))


def test_runs_get_a_cache_where_the_model_needs_one():
    """Gemma 3n's later layers find their keys in a cache, or use ones that nobody trained."""
    from mlx_lm.models.cache import make_prompt_cache

    module = small_model("gemma3n")
    model, ids = InterpretableModel(module), mx.array(TOKENS)
    with_cache = module(ids, cache=make_prompt_cache(module))
    assert mx.array_equal(model.run_with_hooks(TOKENS), with_cache).item()
    assert not mx.allclose(module(ids), with_cache).item()


def test_middle_of_the_stream_with_two_mixers():
    """Falcon H1 adds a state space and attention; an edit of the middle reaches the MLP exactly."""
    model = InterpretableModel(small_model("falcon_h1"))
    _, cache = model.run_with_cache(
        TOKENS,
        [("resid_mid", 0), ("mlp_add", 0), ("resid_post", 0)],
        interventions={"layers.0.resid_mid": lambda mid: mid * 0 + 0.5},
    )
    np.testing.assert_allclose(cache["resid_mid", 0], 0.5, rtol=1e-5)
    np.testing.assert_allclose(
        cache["resid_post", 0], cache["mlp_add", 0] + 0.5, rtol=1e-4, atol=1e-5
    )


def test_what_reaches_the_stream_has_its_factor():
    model = InterpretableModel(small_model("granite"))
    cache = model.activations(TOKENS, [("attn_out", 0), ("attn_add", 0)])
    np.testing.assert_allclose(cache["attn_add", 0], cache["attn_out", 0] * 0.6, rtol=1e-6)
    _, cache = model.run_with_cache(
        TOKENS,
        [("attn_out", 0)],
        interventions={"layers.0.attn_add": lambda added: added * 0 + 3},
    )
    np.testing.assert_allclose(cache["attn_out", 0], 5, rtol=1e-6)


def test_a_stream_that_is_not_the_first_argument():
    """Talkie calls its blocks with the embedding first."""
    model = InterpretableModel(small_model("talkie"))
    cache = model.activations(TOKENS, [("resid_post", 0), ("resid_pre", 1)])
    assert mx.array_equal(cache["resid_post", 0], cache["resid_pre", 1]).item()


def test_variants_that_all_fit_are_put_together():
    adapter = Adapter(
        "mine",
        absent={"mlp_act": "one"},
        variants=(
            Variant({"absent": {"z": "two"}}, has="mlp"),
            Variant({"heads": 3}, has=lambda block: hasattr(block, "self_attn")),
            Variant({"heads": 5}, layers=(1,)),
            Variant({"heads": 7}, has="nothing_there"),
        ),
    )
    layout = InterpretableModel(small_model("llama"), adapter=adapter).layout
    assert layout.roles(0).absent == {"mlp_act": "one", "z": "two"}
    assert (layout.roles(0).heads, layout.roles(1).heads) == (3, 5)
    assert layout.heads(-1) == 5
