"""Whether MLX computes what it should where it once did not, silently.

Each check compares a kernel with the same numbers computed in another way. Versions of MLX before
0.32 fail some of them on some devices; mlxray requires 0.32.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

#: Largest difference, relative to the largest number, that rounding in float16 explains.
TOLERANCE = 1e-2

#: A quantised product of more rows than this was wrong, and one of more columns.
MANY = 32_768


def wrong_kernels() -> list[str]:
    """What MLX gets wrong on the default device; empty if all is well. Takes about 0.3 s."""
    return [what for what, check in CHECKS.items() if not check() <= TOLERANCE]


def rope_of_one_token() -> float:
    """Error of rotary embeddings of a batch of prompts of one token each, as in generation."""
    x = mx.random.normal((3, 2, 1, 8), key=mx.random.key(0))
    worst = 0.0
    for traditional in (False, True):
        for offset in (0, 7):
            got = mx.fast.rope(
                x, 8, traditional=traditional, base=10000.0, scale=1.0, offset=offset
            )
            worst = max(worst, _distance(got, _rope(x, traditional, offset)))
    return worst


def quantised_product_of_many_rows() -> float:
    """Error of a 4-bit product of more than `MANY` rows, which no tile divides."""
    return _quantised_product(MANY + 8, 128, 32)


def quantised_product_of_many_columns() -> float:
    """Error of a 4-bit product into more than `MANY` columns, as a large vocabulary has."""
    return _quantised_product(16, 128, MANY + 40)


def quantised_product_of_one_group() -> float:
    """Error of a 4-bit product of several rows as long as one group of the quantisation."""
    return _quantised_product(16, 64, 64)


CHECKS: dict[str, Callable[[], float]] = {
    "mx.fast.rope of a batch of one-token prompts": rope_of_one_token,
    f"a quantised matrix product of more than {MANY:,} rows": quantised_product_of_many_rows,
    f"a quantised matrix product of more than {MANY:,} columns": quantised_product_of_many_columns,
    "a quantised matrix product of rows of 64 numbers, one group": quantised_product_of_one_group,
}


def _quantised_product(rows: int, length: int, columns: int) -> float:
    """Error of a product (rows, length) @ (length, columns) against the dequantised one."""
    # GPUs have kernels of their own for half precision; processors are slow in it.
    dtype = mx.float32 if mx.default_device().type == mx.DeviceType.cpu else mx.float16
    x = mx.random.normal((rows, length), dtype, key=mx.random.key(1))
    packed = mx.quantize(mx.random.normal((columns, length), dtype, key=mx.random.key(2)), 64, 4)
    got = mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=4)
    weight = mx.dequantize(*packed, group_size=64, bits=4).astype(mx.float32)
    return _distance(got.astype(mx.float32), x.astype(mx.float32) @ weight.T)


def _rope(x: mx.array, traditional: bool, offset: int) -> mx.array:
    """Rotary embedding written out, for the token at `offset`: (B, H, 1, d)."""
    half = x.shape[-1] // 2
    angle = offset * 10000.0 ** (-mx.arange(half) / half)
    cos, sin = mx.cos(angle), mx.sin(angle)
    if traditional:
        first, second = x[..., ::2], x[..., 1::2]
    else:
        first, second = x[..., :half], x[..., half:]
    turned = [first * cos - second * sin, first * sin + second * cos]
    if traditional:
        return mx.stack(turned, axis=-1).reshape(x.shape)
    return mx.concatenate(turned, axis=-1)


def _distance(got: mx.array, want: mx.array) -> float:
    worst: float = (mx.max(mx.abs(got - want)) / mx.max(mx.abs(want))).item()  # type: ignore[assignment]
    return worst
