"""Custom gradients against central differences and formulas, in float64 numpy."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlxray.analyses.dictionaries.training import gradients
from mlxray.analyses.dictionaries.training.config import DictionaryConfig
from mlxray.analyses.dictionaries.training.largest import bisect_bits, kth_largest
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.step import adamw, learning_rate
from mlxray.analyses.dictionaries.training.wiring import without_parallel
from mlxray.analyses.dictionaries.types import sparse

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng(1)


def slope(fn: Callable[[Floats], float], at: Floats, step: float = 1e-6) -> Floats:
    """Central differences, one number at a time."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        found[place] = (fn(up) - fn(down)) / (2 * step)
    return found


def single(*arrays: Floats) -> list[mx.array]:
    return [mx.array(a.astype(np.float32)) for a in arrays]


@pytest.mark.parametrize("at_once", [sparse.AT_ONCE, 0])
def test_sparse_decode(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the decoder all at once, and those of two tokens at a time."""
    monkeypatch.setattr(sparse, "AT_ONCE", at_once)
    monkeypatch.setattr(sparse, "PART", 2 * 3 * 4 * 4)
    values, decoder, weights = (RNG.normal(size=s) for s in ((5, 3), (7, 4), (5, 4)))
    indices = np.array([RNG.permutation(7)[:3] for _ in range(5)])

    def loss(values: Floats, decoder: Floats) -> float:
        return float((weights * np.einsum("nk,nkd->nd", values, decoder[indices])).sum())

    v, d, w = single(values, decoder, weights)
    at = mx.array(indices.astype(np.uint32))
    written = np.einsum("nk,nkd->nd", values, decoder[indices])
    assert np.allclose(gradients.sparse_decode(v, at, d), written, atol=1e-4)
    found = mx.grad(lambda v, d: mx.sum(w * gradients.sparse_decode(v, at, d)), argnums=(0, 1))(
        v, d
    )
    assert np.allclose(found[0], slope(lambda a: loss(a, decoder), values), atol=1e-4)
    assert np.allclose(found[1], slope(lambda a: loss(values, a), decoder), atol=1e-4)


def test_project() -> None:
    x, bias, encoder, weights = (RNG.normal(size=s) for s in ((5, 4), (4,), (4, 7), (5, 7)))
    xs, b, e, w = single(x, bias, encoder, weights)
    found = mx.grad(lambda b, e: mx.sum(w * gradients.project(xs, b, e)), argnums=(0, 1))(b, e)
    assert np.allclose(
        found[0], slope(lambda a: float((weights * ((x - a) @ encoder)).sum()), bias), atol=1e-4
    )
    assert np.allclose(
        found[1], slope(lambda a: float((weights * ((x - bias) @ a)).sum()), encoder), atol=1e-4
    )


def test_select() -> None:
    pre, weights = RNG.normal(size=(6, 9)), RNG.normal(size=(6, 9))

    def loss(pre: Floats) -> float:
        total = 0.0
        for row, own in zip(pre, weights, strict=True):
            for i in np.argsort(-row)[:4]:
                total += own[i] * max(row[i], 0)
        return total

    (p, w) = single(pre, weights)

    def traced(pre: mx.array) -> mx.array:
        values, indices = gradients.select(pre, 4)
        return mx.sum(values * mx.take_along_axis(w, indices, axis=-1))

    value, found = mx.value_and_grad(traced)(p)
    assert value.item() == pytest.approx(loss(pre), abs=1e-4)
    assert np.allclose(found, slope(loss, pre), atol=1e-4)


def test_rectify_and_open_gates() -> None:
    gates, magnitude, weights = (RNG.normal(size=(6, 9)) for _ in range(3))

    def loss(gates: Floats, magnitude: Floats) -> float:
        on = np.maximum(gates, 0)
        features = np.where(on > 0, np.maximum(magnitude, 0), 0)
        return float((weights * (features + 2 * on)).sum())

    g, m, w = single(gates, magnitude, weights)

    def traced(gates: mx.array, magnitude: mx.array) -> mx.array:
        on = gradients.rectify(gates)
        return mx.sum(w * (gradients.open_gates(on, magnitude) + 2 * on))

    value, found = mx.value_and_grad(traced, argnums=(0, 1))(g, m)
    assert value.item() == pytest.approx(loss(gates, magnitude), abs=1e-4)
    assert np.allclose(found[0], slope(lambda a: loss(a, magnitude), gates), atol=1e-4)
    assert np.allclose(found[1], slope(lambda a: loss(gates, a), magnitude), atol=1e-4)


@pytest.mark.parametrize("kept", [3, 40])
def test_select_batch(kept: int) -> None:
    """Of 54 numbers about 27 are positive: with 40 all of these are kept."""
    pre, weights = RNG.normal(size=(6, 9)), RNG.normal(size=(6, 9))

    def loss(pre: Floats) -> float:
        least = np.sort(pre.ravel())[-kept]
        return float((weights * np.where(pre >= max(least, 0), pre, 0)).sum())

    p, w = single(pre, weights)
    value, found = mx.value_and_grad(lambda p: mx.sum(w * gradients.select_batch(p, kept)))(p)
    assert value.item() == pytest.approx(loss(pre), abs=1e-4)
    assert np.allclose(found, slope(loss, pre), atol=1e-4)


def test_nested_decode() -> None:
    code, decoder = RNG.normal(size=(5, 7)), RNG.normal(size=(7, 4))
    weights = [RNG.normal(size=(5, 4)) for _ in range(3)]
    parts = [slice(0, 1), slice(1, 4), slice(4, 7)]

    def loss(code: Floats, decoder: Floats) -> float:
        pairs = zip(parts, weights, strict=True)
        return float(sum((w * (code[:, p] @ decoder[p])).sum() for p, w in pairs))

    c, d = single(code, decoder)
    decode = gradients.nested_decode((1, 4, 7))

    def traced(code: mx.array, decoder: mx.array) -> mx.array:
        written = zip(single(*weights), decode(code, decoder), strict=True)
        return mx.sum(mx.stack([mx.sum(w * out) for w, out in written]))

    value, found = mx.value_and_grad(traced, argnums=(0, 1))(c, d)
    assert value.item() == pytest.approx(loss(code, decoder), abs=1e-4)
    assert np.allclose(found[0], slope(lambda a: loss(a, decoder), code), atol=1e-4)
    assert np.allclose(found[1], slope(lambda a: loss(code, a), decoder), atol=1e-4)


def test_jumprelu_is_the_papers_formula() -> None:
    width = 0.4
    pre, threshold = RNG.normal(size=(50, 3)), np.array([0.1, 0.5, 1.0])
    weights, counts = RNG.normal(size=(50, 3)), RNG.normal(size=50)
    near, on = abs((pre - threshold) / width) < 0.5, pre > threshold
    p, t, w, c = single(pre, threshold, weights, counts)
    features, l0 = gradients.jump(width)(p, t)
    assert np.allclose(features, np.where(on, pre, 0), atol=1e-5)
    assert np.array_equal(np.array(l0), on.sum(1))
    jumped = mx.grad(lambda p, t: mx.sum(w * gradients.jump(width)(p, t)[0]), argnums=(0, 1))(p, t)
    assert np.allclose(jumped[0], weights * on, atol=1e-5)
    wanted = -(threshold / width) * (near * weights).sum(0)
    assert near.any() and np.allclose(jumped[1], wanted, atol=1e-4)
    stepped = mx.grad(lambda p, t: mx.sum(c * gradients.jump(width)(p, t)[1]), argnums=(0, 1))(p, t)
    assert not np.array(stepped[0]).any()
    assert np.allclose(stepped[1], -(near * counts[:, None]).sum(0) / width, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 17, 99, 100])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_kth_largest(k: int, dtype: mx.Dtype) -> None:
    values = mx.maximum(mx.array(RNG.normal(size=100).astype(np.float32)), 0).astype(dtype)
    wanted = np.sort(np.array(values.astype(mx.float32)))[::-1][k - 1]
    for found in (kth_largest(values, k), bisect_bits(values, k)):
        assert found.dtype == dtype and found.astype(mx.float32).item() == wanted


def test_adamw_is_the_textbooks() -> None:
    value, decay = RNG.normal(size=(3, 2)), 0.1
    (param,) = single(value)
    moments: tuple[dict[str, mx.array], dict[str, mx.array]] = (
        {"encoder": mx.zeros((3, 2))},
        {"encoder": mx.zeros((3, 2))},
    )
    first, second = np.zeros((3, 2)), np.zeros((3, 2))
    for step in range(1, 5):
        gradient = RNG.normal(size=(3, 2))
        new, *moments = adamw(  # type: ignore[assignment]
            {"encoder": param},
            {"encoder": single(gradient)[0]},
            tuple(moments),  # type: ignore[arg-type]
            mx.array(0.01),
            mx.array(step),
            decay,
        )
        param = new["encoder"]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        value = value - 0.01 * decay * value
        value -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert np.allclose(np.array(param), value, atol=1e-5)


def test_rate_rises_stays_and_falls() -> None:
    config = DictionaryConfig(n_features=8, k=2, learning_rate=1.0, warmup=4, decay=0.5)
    plan = make_plan(config, {"x": 4}, 20, 10)
    rates = [learning_rate(plan, mx.array(step)).item() for step in range(1, 21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4:11] == [1.0] * 7
    assert rates[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_what_would_change_the_norm_is_taken_out() -> None:
    rows = RNG.normal(size=(5, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    left = np.array(without_parallel(*single(RNG.normal(size=(5, 4)), rows)))
    assert np.allclose((left * rows).sum(1), 0, atol=1e-6) and abs(left).sum() > 1
