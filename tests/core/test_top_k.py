"""The largest numbers of rows against a stable sort of each row."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxray.top_k import top_k


def sorted_rows(rows, k):
    known = np.where(np.isnan(rows), -np.inf, rows)
    return np.argsort(-known, axis=-1, kind="stable")[..., :k]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 700),
    st.sampled_from([2, 5, 10**6]),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.sampled_from([mx.float32, mx.float16, mx.bfloat16]),
)
def test_as_a_stable_sort(seed, size, distinct, share, dtype):
    """Few distinct numbers make ties; NaN and infinities are strewn in."""
    drawn = np.random.default_rng(seed)
    rows = drawn.integers(-distinct, distinct, (2, 3, size)).astype(np.float32)
    odd = drawn.choice([np.nan, np.inf, -np.inf], rows.shape)
    rows = np.where(drawn.random(rows.shape) < share, odd, rows)
    x = mx.array(rows).astype(dtype)
    rows = np.array(x.astype(mx.float32))
    for k in {1, min(2, size), min(7, size), max(1, size // 40), size}:
        indices, values = top_k(x, k)
        expected = sorted_rows(rows, k)
        assert np.array_equal(np.array(indices), expected)
        assert values.dtype == dtype
        own = np.take_along_axis(rows, expected, -1)
        assert np.array_equal(np.array(values.astype(mx.float32)), own, equal_nan=True)


@pytest.mark.parametrize("size", [8191, 8192, 8200, 50257])
def test_large_rows_are_cut_into_groups_and_lose_nothing(size):
    rows = np.random.default_rng(size).integers(0, 400, (4, size)).astype(np.float32)
    for k in (1, 5, 32):
        assert np.array_equal(np.array(top_k(mx.array(rows), k)[0]), sorted_rows(rows, k))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 700), st.sampled_from([2, 5, 10**6]))
def test_without_an_order_the_same_numbers(seed, size, distinct):
    rows = np.random.default_rng(seed).integers(-distinct, distinct, (3, size)).astype(np.float32)
    rows[rows == distinct - 1] = -np.inf
    for k in {1, min(7, size), max(1, size // 40), size}:
        indices, values = top_k(mx.array(rows), k, ordered=False)
        found = np.array(indices)
        assert found.max() < size and all(len(set(row)) == k for row in found.tolist())
        assert np.array_equal(np.take_along_axis(rows, found, -1), np.array(values))
        assert np.array_equal(np.sort(np.array(values)), np.sort(rows)[:, -k:])


@pytest.mark.parametrize("k", [0, -1, 6])
def test_as_many_as_there_are(k):
    with pytest.raises(ValueError, match="between 1 and 5"):
        top_k(mx.zeros((2, 5)), k)
