"""Proxies as operands of MLX's functions, and how they are written in messages."""

import mlx.core as mx
import pytest

import mlxray
from mlxray.errors import TraceError


@pytest.fixture(scope="module")
def model() -> mlxray.InterpretableModel:
    return mlxray.InterpretableModel("pocket")


def test_functions_that_call_and_functions_that_take(model: mlxray.InterpretableModel):
    with model.trace("Hello"):
        proxy = model.layers[1].output
        value = proxy.value
        assert mx.array_equal(mx.exp(proxy), mx.exp(value))
        assert mx.array_equal(mx.maximum(proxy, 0.5), mx.maximum(value, 0.5))
        assert mx.array_equal(mx.where(value > 0, proxy, 0), mx.where(value > 0, value, 0))
        assert mx.array_equal(mx.array(proxy), value)
        assert mx.array_equal(proxy, value)


def test_message_outside_of_a_trace_shows_code_that_runs(model: mlxray.InterpretableModel):
    with pytest.raises(TraceError, match=r"model\.layers\[3\]\.self_attn\.output\.save\(\)"):
        model.layers[3].self_attn.output.save()
    with pytest.raises(TraceError, match=r"model\.layers\[3\]\.mlp\.output"):
        model.layers[3].mlp.output = 0


def test_keys_of_a_cache_can_be_read(model: mlxray.InterpretableModel):
    cache = model.run_with_cache("Hello", ["layers.1", ("mlp_out", 2)])[1]
    assert "layers.1, layers.2.mlp_out" in f"{cache.keys()}"
    assert len(repr(model.run_with_cache("Hello")[1])) < 400
