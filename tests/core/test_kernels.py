"""Kernels of MLX that were silently wrong, and that the checks see it when they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.machine import doctor, kernels


@pytest.mark.parametrize("what", kernels.CHECKS)
def test_mlx_computes_it_right(what: str) -> None:
    error = kernels.CHECKS[what]()
    if error > kernels.TOLERANCE and mx.default_device().type == mx.DeviceType.gpu:
        pytest.skip(f"this backend of MLX {mx.__version__} computes wrong: {what}")
    assert error <= kernels.TOLERANCE


def rope(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def wrong(x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        """Only the first row of the batch is written."""
        value = original(x, *args, **kwargs)
        one = x.shape[2] == 1 and x.shape[0] > 1
        return mx.concatenate([value[:1], mx.zeros_like(value[1:])]) if one else value

    return wrong


def product(axis: int) -> Callable[..., Callable[..., mx.array]]:
    def make(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def wrong(*args: Any, **kwargs: Any) -> mx.array:
            """The first rows, or the last columns, past 32,768 are not written."""
            value = original(*args, **kwargs)
            past = value.shape[axis] - 32_768
            if past <= 0:
                return value
            rows = mx.arange(value.shape[0])[:, None]
            columns = mx.arange(value.shape[1])[None]
            return mx.where(rows < past if axis == 0 else columns >= 32_768, 0, value)

        return wrong

    return make


def zero_of_one_group(original: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def wrong(x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        """As MLX 0.32's CUDA backend does with several rows of one group."""
        value = original(x, *args, **kwargs)
        return mx.zeros_like(value) if x.shape[0] > 1 and x.shape[1] == 64 else value

    return wrong


@pytest.mark.parametrize(
    ("module", "name", "break_it", "said"),
    [
        (mx.fast, "rope", rope, "mx.fast.rope of a batch of one-token prompts"),
        (mx, "quantized_matmul", product(0), "more than 32,768 rows"),
        (mx, "quantized_matmul", product(1), "more than 32,768 columns"),
        (mx, "quantized_matmul", zero_of_one_group, "rows of 64 numbers, one group"),
    ],
    ids=["rope", "rows", "columns", "group"],
)
def test_a_wrong_kernel_is_seen_and_told(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, break_it: Any, said: str
) -> None:
    before = kernels.wrong_kernels()
    if any(said in wrong for wrong in before):
        pytest.skip("this backend of MLX computes it wrong by itself")
    monkeypatch.setattr(module, name, break_it(getattr(module, name)))
    monkeypatch.setattr(doctor, "measure_gflops", lambda: 100.0)
    (wrong,) = set(kernels.wrong_kernels()) - set(before)
    assert said in wrong
    assert any(wrong in line and "--upgrade" in line for line in doctor.examine().advice)


def test_a_batch_of_single_tokens_gets_what_each_gets_alone() -> None:
    model = InterpretableModel("pocket")
    ids = [[5], [700], [1200]]
    together = model.run_with_hooks(ids)
    alone = mx.concatenate([model.run_with_hooks(row) for row in ids])
    assert mx.allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_a_batch_goes_on_token_by_token_as_each_row_alone() -> None:
    """Rotary positions of one token behind a cache, for every row of a batch."""
    from mlx_lm.models.cache import make_prompt_cache

    model = InterpretableModel("pocket").model
    rows = mx.array([[1, 5, 9, 20], [1, 700, 800, 30]])

    def logits(ids: mx.array) -> mx.array:
        cache = make_prompt_cache(model)
        return mx.concatenate([model(ids[:, i : i + 1], cache=cache) for i in range(4)], axis=1)

    assert mx.allclose(logits(rows), model(rows), rtol=1e-3, atol=1e-3)
    for index in range(2):
        alone = logits(rows[index : index + 1])
        assert mx.allclose(logits(rows)[index], alone[0], rtol=1e-3, atol=1e-3)
