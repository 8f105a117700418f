"""One whole step against the loss written out in numpy, differentiated by central differences."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlxray.analyses.dictionaries import DictionaryConfig
from mlxray.analyses.dictionaries.training.config import KINDS, TOP_K_KINDS
from mlxray.analyses.dictionaries.training.kinds import Encoded
from mlxray.analyses.dictionaries.training.plan import make_plan
from mlxray.analyses.dictionaries.training.run import Run
from mlxray.analyses.dictionaries.training.step import Dead, make_step, revival

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


def slopes_of(kind: str, params: dict[str, Floats], name: str) -> Floats:
    """Central differences of the loss along one parameter."""
    value = params[name]
    slopes = np.zeros_like(value)
    for place in np.ndindex(value.shape):
        sides = []
        for change in (1e-6, -1e-6):
            moved = value.copy()
            moved[place] += change
            sides.append(loss(kind, {**params, name: moved}))
        slopes[place] = (sides[0] - sides[1]) / 2e-6
    return slopes


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("kind", ["relu", "gated", "topk", "batch_topk", "matryoshka"])
def test_step(kind: str, clip: float | None) -> None:
    own: dict[str, Any] = {"sparsity": SPARSITY} if kind in ("relu", "gated") else {"k": K}
    if kind == "matryoshka":
        own["prefixes"] = (2, 3, F)
    config = DictionaryConfig(
        n_features=F, kind=kind, learning_rate=RATE, warmup=0, decay=0.0, sparsity_warmup=0,
        clip=clip, **own,
    )  # fmt: skip
    data = {"x": mx.array(ROWS.astype(np.float32))}
    run = Run(make_plan(config, {"x": D}, 10, N), data)
    params = {n: np.array(v, np.float64) for n, v in run.state["parameters"].items()}
    for name in params.keys() - {"decoder"}:  # not at zero, where much has no slope
        params[name] = params[name] + 0.1 * RNG.normal(size=params[name].shape)
        run.state["parameters"][name] = mx.array(params[name].astype(np.float32))
    measures = run.advance(data, record=False)
    assert measures["loss"] == pytest.approx(loss(kind, params), rel=1e-4)
    gradients = {name: slopes_of(kind, params, name) for name in params}
    length = np.sqrt(sum((slopes**2).sum() for slopes in gradients.values()))
    assert length > 0.3
    for name, value in params.items():
        slopes = gradients[name] * (1 if clip is None else clip / length)
        if name == "decoder":
            slopes -= (slopes * value).sum(axis=1, keepdims=True) * value
        # After one step, the first moment is a tenth of the gradient, and the step is its sign.
        assert np.allclose(np.array(run.state["first"][name]), 0.1 * slopes, atol=1e-4), name
        wanted = value - RATE * slopes / (abs(slopes) + 1e-8)
        if name == "decoder":
            wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        sure = abs(slopes) > 3e-4
        found = np.array(run.state["parameters"][name])
        assert sure.any() and np.allclose(found[sure], wanted[sure], atol=1e-3), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_changes_nothing_but_the_size_of_gradients(kind: str) -> None:
    """Squared error grows with the square of the scale, and parameters in its units with it."""
    own: dict[str, Any] = {"k": K} if kind in TOP_K_KINDS else {"sparsity": SPARSITY}
    if kind == "jumprelu":
        own |= {"bandwidth": 0.4, "initial_threshold": 0.1}
    found = []
    for norm in (1.0, 5.0):
        config = DictionaryConfig(n_features=F, kind=kind, norm=norm, sparsity_warmup=0, **own)
        data = {"x": mx.array(ROWS.astype(np.float32))}
        run = Run(make_plan(config, {"x": D}, 10, N), data)
        told = run.advance(data, record=False)
        found.append((told, {n: np.array(v) for n, v in run.state["first"].items()}))
    (told, slopes), (scaled, larger) = found
    assert all(scaled[name] == pytest.approx(told[name], rel=1e-4) for name in told)
    for name, slope in slopes.items():
        power = 2 if name in ("encoder", "decoder", "log_magnitude") else 1
        if name != "decoder_bias":  # at the mean, where its slope is hardly more than rounding
            assert np.abs(slope).max() > 0
        assert np.allclose(larger[name], 5**power * slope, rtol=1e-3, atol=1e-5), name


def taught(
    reach: Floats, error: Floats, decoder: Floats, dead: list[bool], choose: int | None
) -> float:
    """What teaches dead features, of which `choose` take part for each token."""
    missed = below = 0.0
    for row, wanted in zip(reach, error, strict=True):
        strongest = sorted((i for i in range(F) if dead[i]), key=lambda i: -row[i])[:choose]
        made = sum(max(row[i], 0) * decoder[i] for i in strongest)
        missed += ((wanted - made) ** 2).sum()
        below += sum(max(-row[i], 0) for i in range(F) if dead[i])
    return missed / ((error - error.mean(axis=0)) ** 2).sum() + below / N


@pytest.mark.parametrize(("choose", "norm"), [(2, 1.0), (None, 1.0), (2, 4.0)])
def test_dead_features_predict_the_error_of_the_others(choose: int | None, norm: float) -> None:
    plan = make_plan(DictionaryConfig(n_features=F, k=K, norm=norm), {"x": D}, 10, N)
    run = Run(plan, {"x": mx.array(ROWS.astype(np.float32))})
    reach, error = RNG.normal(size=(N, F)), RNG.normal(size=(N, D))
    dead = [True, False, True, True, False, False]
    decoder = np.array(run.state["parameters"]["decoder"], np.float64)
    wanted = norm**2 * taught(reach, error, decoder, dead, choose)
    reach, error = norm * reach, norm * error
    encoded = Encoded(mx.zeros((N, F)), mx.array(reach.astype(np.float32)), mx.array(0.0))
    found = revival(
        plan,
        run.wiring,
        run.state["parameters"],
        encoded,
        mx.array(error.astype(np.float32)),
        mx.array(dead),
        choose,
    )
    assert found.item() == pytest.approx(wanted, rel=1e-4)


def test_the_strongest_are_looked_for_where_more_are_dead_than_may_learn() -> None:
    config = DictionaryConfig(n_features=F, k=K, auxiliary_k=2, auxiliary=0.5)
    plan = make_plan(config, {"x": D}, 10, N)
    assert [Dead.of(count, plan).name for count in range(4)] == ["NONE", "FEW", "FEW", "MANY"]
    x = mx.array(ROWS.astype(np.float32))
    run = Run(plan, {"x": x})
    dead = [True, False, True, True, False, False]
    run.state["tracked"]["silent"] = plan.dead_after * mx.array(dead).astype(mx.int32)
    params = {n: np.array(v, np.float64) for n, v in run.state["parameters"].items()}
    reach = (ROWS - params["decoder_bias"]) @ params["encoder"]
    features = np.where(reach >= np.sort(reach)[:, -K:-K + 1], np.maximum(reach, 0), 0)  # fmt: skip
    error = ROWS - features @ params["decoder"] - params["decoder_bias"]
    for revive, choose in ((Dead.NONE, 0), (Dead.FEW, None), (Dead.MANY, 2)):
        step = make_step(plan, run.kind, run.wiring, revive=revive, compiled=False)
        more = taught(reach, error, params["decoder"], dead, choose) if revive.value else 0
        told = step(run.state, x, x)[1]
        assert told["loss"].item() == pytest.approx(energy(error) + 0.5 * more, rel=1e-4)


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
