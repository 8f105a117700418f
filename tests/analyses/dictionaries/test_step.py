"""One whole step against the loss written out in numpy, differentiated by central differences."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlxray.analyses.dictionaries import DictionaryConfig
from mlxray.analyses.dictionaries.training.kinds import Encoded
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run
from mlxray.analyses.dictionaries.training.step import revival

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng(7)
N, D, F, K, RATE = 8, 4, 6, 2, 0.01
SPARSITY = 0.3
ROWS = RNG.normal(size=(N, D)) + 0.5
ROWS /= np.sqrt((ROWS**2).sum(1).mean())  # mean squared norm 1, so that nothing is scaled


def energy(error: Floats) -> float:
    return float((error**2).sum(axis=1).mean())


def loss(kind: str, params: dict[str, Floats]) -> float:
    """The loss of a kind."""
    bias, decoder = params["decoder_bias"], params["decoder"]
    pre = (ROWS - bias) @ params["encoder"]
    if kind == "gated":
        gate = pre + params["gate_bias"]
        magnitude = pre * np.exp(params["log_magnitude"]) + params["magnitude_bias"]
        features = np.where(gate > 0, np.maximum(magnitude, 0), 0)
        gates = np.maximum(gate, 0)
        own = energy(ROWS - gates @ decoder - bias)
        penalty = SPARSITY * float(gates.sum(axis=1).mean())
        return energy(ROWS - features @ decoder - bias) + penalty + own
    positive = np.maximum(pre + params["encoder_bias"], 0)
    if kind == "relu":
        penalty = SPARSITY * float(positive.sum(axis=1).mean())
        return energy(ROWS - positive @ decoder - bias) + penalty
    if kind == "topk":
        for row in positive:
            row[np.argsort(-row)[K:]] = 0
        return energy(ROWS - positive @ decoder - bias)
    kept = np.where(positive >= np.sort(positive.ravel())[-K * N], positive, 0)
    prefixes = (2, 3, F) if kind == "matryoshka" else (F,)
    return float(np.mean([energy(ROWS - kept[:, :p] @ decoder[:p] - bias) for p in prefixes]))


@pytest.mark.parametrize("kind", ["relu", "gated", "topk", "batch_topk", "matryoshka"])
def test_step(kind: str) -> None:
    own: dict[str, Any] = {"sparsity": SPARSITY} if kind in ("relu", "gated") else {"k": K}
    if kind == "matryoshka":
        own["prefixes"] = (2, 3, F)
    config = DictionaryConfig(
        n_features=F, kind=kind, learning_rate=RATE, warmup=0, decay=0.0, sparsity_warmup=0, **own
    )
    data = {"x": mx.array(ROWS.astype(np.float32))}
    run = Run(make_plan(config, {"x": D}, 10, N), data)
    params = {n: np.array(v, np.float64) for n, v in run.state["parameters"].items()}
    for name in params.keys() - {"decoder"}:  # not at zero, where much has no slope
        params[name] = params[name] + 0.1 * RNG.normal(size=params[name].shape)
        run.state["parameters"][name] = mx.array(params[name].astype(np.float32))
    measures = run.advance(data, record=False)
    assert measures["loss"] == pytest.approx(loss(kind, params), rel=1e-4)
    for name, value in params.items():
        slopes = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            sides = []
            for change in (1e-6, -1e-6):
                moved = value.copy()
                moved[place] += change
                sides.append(loss(kind, {**params, name: moved}))
            slopes[place] = (sides[0] - sides[1]) / 2e-6
        if name == "decoder":
            slopes -= (slopes * value).sum(axis=1, keepdims=True) * value
        # After one step, the first moment is a tenth of the gradient, and the step is its sign.
        assert np.allclose(np.array(run.state["first"][name]), 0.1 * slopes, atol=1e-4), name
        wanted = value - RATE * slopes / (abs(slopes) + 1e-8)
        if name == "decoder":
            wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        sure = abs(slopes) > 1e-3
        found = np.array(run.state["parameters"][name])
        assert sure.any() and np.allclose(found[sure], wanted[sure], atol=1e-3), name


def test_dead_features_predict_the_error_of_the_others() -> None:
    config = DictionaryConfig(n_features=F, k=K, auxiliary_k=2)
    plan = make_plan(config, {"x": D}, 10, N)
    run = Run(plan, {"x": mx.array(ROWS.astype(np.float32))})
    reach, error = RNG.normal(size=(N, F)), RNG.normal(size=(N, D))
    dead = np.array([True, False, True, True, False, False])
    decoder = np.array(run.state["parameters"]["decoder"], np.float64)
    missed = below = 0.0
    for row, wanted in zip(reach, error, strict=True):
        strongest = sorted((i for i in range(F) if dead[i]), key=lambda i: -row[i])[:2]
        made = sum(max(row[i], 0) * decoder[i] for i in strongest)
        missed += ((wanted - made) ** 2).sum()
        below += sum(max(-row[i], 0) for i in range(F) if dead[i])
    variance = ((error - error.mean(axis=0)) ** 2).sum()
    encoded = Encoded(mx.zeros((N, F)), mx.array(reach.astype(np.float32)), mx.array(0.0))
    found = revival(
        plan,
        run.wiring,
        run.state["parameters"],
        encoded,
        mx.array(error.astype(np.float32)),
        mx.array(dead),
    )
    assert found.item() == pytest.approx(missed / variance + below / N, rel=1e-4)


@pytest.mark.parametrize("points", [("x",), ("x", "y")])
def test_free_decoders_are_finished_as_what_they_were(points: tuple[str, ...]) -> None:
    """A jumprelu dictionary, flat and cross-layer, against its parameters as they were trained."""
    data = {name: mx.array((ROWS * (n + 2)).astype(np.float32)) for n, name in enumerate(points)}
    config = DictionaryConfig(
        n_features=F,
        kind="jumprelu",
        learning_rate=0.05,
        initial_threshold=0.02,
        reads=points,
        writes=points if len(points) > 1 else None,
    )
    run = Run(make_plan(config, dict.fromkeys(points, D), 10, N), data)
    for _ in range(10):
        run.advance(data, record=False)
    # Thresholds among the pre-activations, so that their scale matters.
    run.state["parameters"]["threshold"] = mx.linspace(0.02, 0.4, F * len(points))
    params = {n: np.array(v, np.float64) for n, v in run.state["parameters"].items()}
    made = run.result([], N, {}).dictionary
    read = [np.array(data[n], np.float64) * float(run.scales[0][0 if n == "x" else D].item())
            for n in points]  # fmt: skip
    if len(points) == 1:
        pre = (read[0] - params["decoder_bias"]) @ params["encoder"] + params["encoder_bias"]
        features = np.where(pre > params["threshold"], pre, 0)
        wanted = features @ params["decoder"] + params["decoder_bias"]
        outputs = [made(data["x"])]
        rows = np.array(made.decoder)
    else:
        pre = [x @ encoder for x, encoder in zip(read, params["encoder"], strict=True)]
        joined = np.concatenate(pre, axis=1) + params["encoder_bias"]
        features = np.where(joined > params["threshold"], joined, 0)
        first = features[:, :F] @ params["decoder.0"]
        second = features[:, F:] @ params["decoder.1"]
        wanted = first + params["decoder_bias"]
        wanted[:, D:] += second
        outputs = made([data[n] for n in points])
        rows = np.array(run.scales[1])[D:] * np.array(made.layers[1].decoder)[:, 0]
        rows /= float(np.array(run.scales[1]).mean())
    assert np.abs(np.linalg.norm(params["decoder" if len(points) == 1 else "decoder.1"], axis=-1)
                  - 1).min() > 0.01  # fmt: skip
    found = np.concatenate([np.array(o) for o in outputs], axis=1) * np.array(run.scales[1])
    assert np.abs(features).max() > 0 and np.allclose(found, wanted, atol=1e-4)
    assert np.allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-4)
