"""What a backend of MLX cannot do: tests that need it are skipped with the reason."""

from __future__ import annotations

import mlx.core as mx
import pytest


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
