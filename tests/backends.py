"""What a backend of MLX cannot do: tests that need it are skipped with the reason."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx_lm.models import base
from mlx_lm.models.cache import QuantizedKVCache


def need_quantised_products(bits: int, group_size: int, width: int, rows: int = 5) -> None:
    """Skip the test where MLX's own quantised product of this kind is missing or wrong.

    Args:
        bits, group_size: Of the quantised operand.
        width: Length of the products.
        rows: Rows of both operands.
    """
    x, w = (mx.random.normal((1, 2, rows, width), key=mx.random.key(i)) for i in range(2))
    packed = mx.quantize(w, group_size=group_size, bits=bits)
    options = {"group_size": group_size, "bits": bits}
    try:
        found = mx.quantized_matmul(x, *packed, transpose=True, **options)
        wanted = x @ mx.dequantize(*packed, **options).swapaxes(-1, -2)
        right = mx.allclose(found, wanted, rtol=1e-2, atol=1e-2).item()
    except RuntimeError as error:
        pytest.skip(f"this backend of MLX: {error}")
    if not right:
        pytest.skip(f"this backend of MLX multiplies {bits}-bit operands of {width} wrongly")


def need_quantised_cache(head_dim: int, heads: int, kv_heads: int, tokens: int) -> None:
    """Skip the test where MLX has no product for attention from mlx-lm's 8-bit cache."""
    cache = QuantizedKVCache(32, 8)
    q, k, v = (mx.ones((1, n, tokens, head_dim)) for n in (heads, kv_heads, kv_heads))
    keys, values = cache.update_and_fetch(k, v)
    try:
        mx.eval(
            base.quantized_scaled_dot_product_attention(
                q, keys, values, scale=1.0, mask="causal", group_size=32, bits=8
            )
        )
    except RuntimeError as error:
        pytest.skip(f"this backend of MLX: {error}")


def need_rope(*shape: int) -> None:
    """Skip the test where MLX cannot rotate queries of this shape."""
    try:
        mx.eval(
            mx.fast.rope(mx.ones(shape), shape[-1], traditional=False, base=1e4, scale=1, offset=0)
        )
    except RuntimeError as error:
        pytest.skip(f"this backend of MLX rotates no array of shape {shape}: {error}")
