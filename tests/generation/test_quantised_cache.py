"""Attention from a quantised key/value cache: the same points, and watching changes no number."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import base, gemma2, llama
from mlx_lm.models.cache import QuantizedKVCache

from mlxray import InterpretableModel
from mlxray.errors import PointAbsent
from mlxray.interventions import add_vector, scale
from mlxray.seams.attention import explicit_pattern, explicit_scores, mix

from ..backends import need_quantised_cache


@pytest.fixture(autouse=True)
def attention() -> None:
    for kv_heads in (1, 2):
        need_quantised_cache(head_dim=32, heads=2, kv_heads=kv_heads, tokens=5)


PROMPT = [5, 17, 3, 44, 9, 60]
POINTS = ("q", "k", "v", "scores", "pattern", "z")


@pytest.fixture(scope="module", params=[1, 2], ids=["grouped", "each its own"])
def model(request: pytest.FixtureRequest) -> InterpretableModel:
    arguments = llama.ModelArgs(
        "llama", 64, 2, 96, 2, 1e-5, 97, num_key_value_heads=request.param, rope_theta=100.0
    )
    mx.random.seed(1)
    return InterpretableModel(llama.Model(arguments))


def cache() -> list[Any]:
    return [QuantizedKVCache(32, 8) for _ in range(2)]


def test_points_agree_with_each_other_and_change_nothing(model: InterpretableModel):
    own = base.quantized_scaled_dot_product_attention
    addresses = [(point, 1) for point in POINTS]
    options: dict[str, Any] = {"keep_logits": True, "max_tokens": 3}
    found = model.generate(PROMPT, prompt_cache=cache(), watch=addresses, **options)
    bare = model.generate(PROMPT, prompt_cache=cache(), **options)
    assert mx.array_equal(found.token_logits, bare.token_logits).item()
    assert base.quantized_scaled_dot_product_attention is own
    for step in range(3):
        q, k, v, scores, pattern, z = (found.activation(a, step) for a in addresses)
        assert k.shape == (1, model.model.args.num_key_value_heads, len(PROMPT) + step, 32)
        assert pattern.shape == (1, 2, len(PROMPT) if step == 0 else 1, len(PROMPT) + step)
        mask = "causal" if step == 0 else None
        expected = explicit_scores(q, k, 32**-0.5, mask)
        assert mx.allclose(mx.exp(scores), mx.exp(expected), atol=1e-4).item()
        assert mx.allclose(pattern, explicit_pattern(expected, None), atol=1e-4).item()
        assert mx.allclose(z, mix(pattern, v), atol=1e-4).item()


@pytest.mark.parametrize("point", POINTS)
def test_edits_act(model: InterpretableModel, point: str):
    options: dict[str, Any] = {"keep_logits": True, "max_tokens": 3, "watch": [(point, 0)]}
    edit = scale(4.0) if point != "v" else add_vector(mx.ones(32))
    edits = {("layers.0." + point): edit}
    found = model.generate(PROMPT, prompt_cache=cache(), interventions=edits, **options)
    plain = model.generate(PROMPT, interventions=edits, **options)
    bare = model.generate(PROMPT, prompt_cache=cache(), **options)

    def gap(one: Any, other: Any) -> float:
        return float(mx.abs(one.token_logits[0] - other.token_logits[0]).max().item())

    assert gap(found, plain) < 0.1
    assert gap(found, bare) > 4 * gap(found, plain)
    for a, b in zip(
        found.activations[f"layers.0.{point}"], plain.activations[f"layers.0.{point}"], strict=True
    ):
        assert mx.allclose(mx.exp(a), mx.exp(b), atol=0.1, rtol=0.05).item()


def test_a_softmax_of_the_models_own_is_named():
    from mlxray.adapters.llama import LLAMA

    arguments = gemma2.ModelArgs("gemma2", 64, 1, 96, 2, 32, 1e-5, 97, 2)
    model = InterpretableModel(gemma2.Model(arguments), adapter=LLAMA)
    with pytest.raises(PointAbsent, match="through a softmax"):
        model.watch(PROMPT, "q")
