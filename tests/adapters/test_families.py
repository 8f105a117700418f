"""The declared adapters, on small random models of their families."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray.points.vocabulary import POINTS
from mlxray.testing import check_adapter
from mlxray.testing.zoo import small_model

DECLARED = {
    "llama": "llama",
    "llama/tied": "llama",
    "llama/bias": "llama",
    "llama/windows": "llama",
    "llama/llama3-rope": "llama",
    "llama/one-head": "llama",
    "llama/mistral": "llama",
    "qwen": "qwen",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3-vision",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
}

#: One of each way to compute attention.
KINDS = ["llama", "qwen3", "gemma2", "gpt2"]


def assert_all_proven(model: nn.Module, adapter: str) -> None:
    report = check_adapter(model)
    assert report.adapter == adapter
    assert report.ok, report.table()
    absent = {v.point for v in report.verdicts() if v.status == "absent"}
    assert absent == {"mixer_out", "mixer_add", "router", "expert_out"}
    assert {v.point for v in report.verdicts() if v.status == "proven"} == set(POINTS) - absent
    assert {row.check for row in report.checks if row.status == "skipped"} <= {"left padding"}


@pytest.mark.parametrize("name", DECLARED)
def test_every_point_is_proven(name: str):
    assert_all_proven(small_model(name), DECLARED[name])


@pytest.mark.parametrize(("name", "bits"), [*((name, 4) for name in KINDS), ("llama", 8)])
def test_quantised(name: str, bits: int):
    model = small_model(name)
    nn.quantize(model, group_size=32, bits=bits)
    mx.eval(model.parameters())
    assert any(isinstance(m, nn.QuantizedLinear) for m in model.modules())
    assert_all_proven(model, DECLARED[name])


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, mx.bfloat16) for name in KINDS), ("llama", mx.float16)]
)
def test_half_precision(name: str, dtype: mx.Dtype):
    model = small_model(name)
    model.set_dtype(dtype)
    assert_all_proven(model, DECLARED[name])
    assert {a.dtype for m in model.modules() for a in m.values() if isinstance(a, mx.array)} == {
        dtype
    }, "the kit gives the parameters back as they were"


def test_gemma3_that_ties_its_output_to_the_embedding():
    model = small_model("gemma3_text")
    model.sanitize({})
    assert_all_proven(model, "gemma3")


@pytest.mark.parametrize(("name", "tied"), [("llama", False), ("llama/tied", True)])
def test_output_head(name: str, tied: bool):
    model = InterpretableModel(small_model(name))
    path, is_tied = model.layout.output_head()
    assert is_tied is tied
    assert path == ("model.embed_tokens" if tied else "lm_head")
