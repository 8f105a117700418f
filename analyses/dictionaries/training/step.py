"""One step of training, as one pure function from state to state."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import mlx.core as mx

from mlxray.top_k import top_k

from ..types.sparse import scatter_features
from .gradients import rectify
from .kinds import Encoded, Kind
from .plan import Plan
from .wiring import Code, Params, Wiring, without_parallel

#: Adam's two decays and the term that keeps its quotient finite.
BETAS, EPSILON = (0.9, 0.999), 1e-8
#: Part of a state's name → what it is of: parameters, Adam's moments, what is tracked.
PARTS = ("parameters", "first", "second", "tracked")
#: What is tracked for every kind.
OWN = ("step", "silent", "dead_before")


class Dead(Enum):
    """How many features are dead: none, no more than may learn for each token, or many."""

    NONE = 0
    FEW = 1
    MANY = 2

    @classmethod
    def of(cls, count: int, plan: Plan) -> Dead:
        """What `count` dead features are."""
        if count == 0:
            return cls.NONE
        return cls.FEW if count <= plan.auxiliary_k else cls.MANY


State = dict[str, Any]
Stats = dict[str, mx.array]
StepFunction = Callable[[State, mx.array, mx.array], tuple[State, Stats]]


def first_state(kind: Kind, wiring: Wiring, key: mx.array, scale: float, mean: mx.array) -> State:
    """What a training starts from."""
    params = wiring.initial(key, scale, mean) | kind.initial()
    params = {name: value.astype(mx.float32) for name, value in params.items()}
    for name in wiring.decoders:
        params[name] = kind.decoder_norm * params[name]
    return {
        "parameters": params,
        "first": {name: mx.zeros_like(value) for name, value in params.items()},
        "second": {name: mx.zeros_like(value) for name, value in params.items()},
        "tracked": {
            "step": mx.array(0, mx.int32),
            "silent": mx.zeros(wiring.n_features, mx.int32),
            "dead_before": mx.array(0, mx.int32),
            **kind.initial_tracked(),
        },
    }


def make_step(
    plan: Plan, kind: Kind, wiring: Wiring, *, revive: Dead, compiled: bool
) -> StepFunction:
    """A step.

    Args:
        plan: Of the training.
        kind: Of the dictionary.
        wiring: Of the dictionary.
        revive: How many features are dead. Teaching them costs about as much as all the rest, so
            a step without any goes without it, and one with few does not look for the strongest.
        compiled: Whether MLX fuses its small operations, which on a CPU costs seconds at first.
    """
    dtype = mx.bfloat16 if plan.config.dtype == "bfloat16" else mx.float32

    def objective(
        params: Params, x: mx.array, y: mx.array, sparsity: mx.array, dead: mx.array
    ) -> tuple[mx.array, Encoded, mx.array]:
        encoded = kind.encode(params, wiring.project(params, x))
        loss, error = kind.reconstruction_loss(params, encoded, x, y)
        loss = loss + sparsity * encoded.penalty + kind.extra_loss(params, encoded, x, y)
        if revive is not Dead.NONE and plan.config.auxiliary > 0:
            choose = None if revive is Dead.FEW else plan.auxiliary_k
            loss = loss + plan.config.auxiliary * revival(
                plan, wiring, params, encoded, error, dead, choose
            )
        return loss, encoded, error

    slopes_of = mx.value_and_grad(objective)
    constrained = wiring.decoders if kind.decoder_norm == 1 else ()
    norm = plan.config.norm
    coefficient = plan.sparsity * norm ** (2 - kind.penalty_power)

    def step(state: State, x: mx.array, y: mx.array) -> tuple[State, Stats]:
        params, tracked = state["parameters"], state["tracked"]
        count = tracked["step"] + 1
        dead = tracked["silent"] >= plan.dead_after
        sparsity = coefficient * _rise(count, plan.sparsity_warmup)
        x, y = x.astype(dtype), y.astype(dtype)
        (loss, encoded, error), slopes = slopes_of(params, x, y, sparsity, dead)
        factor = shortening(slopes, plan.config.clip)
        for name in constrained:
            slopes[name] = without_parallel(slopes[name], params[name])
        moments = (state["first"], state["second"])
        rate = learning_rate(plan, count)
        new, first, second = adamw(
            params, slopes, moments, rate, count, plan.config.weight_decay, factor
        )
        for name in constrained:
            norms = mx.linalg.norm(new[name], axis=-1, keepdims=True)
            new[name] = new[name] / mx.maximum(norms, 1e-12)
        on = active(encoded.code, wiring.n_features)
        # Capped, so that it cannot overflow in a training without end.
        silent = mx.minimum(tracked["silent"] + x.shape[0], plan.dead_after)
        silent = mx.where(on > 0, 0, silent)
        kept = {n: v for n, v in tracked.items() if n not in OWN}
        kept = kind.track(kept, encoded.code, count)
        stats = {
            "loss": loss / norm**2,
            "explained_variance": 1 - _energy(error) / _variance(y),
            "l0": mx.sum(on) / x.shape[0],
            "dead": mx.mean((silent >= plan.dead_after).astype(mx.float32)),
        }
        after = {
            "parameters": kind.constrain(new),
            "first": first,
            "second": second,
            "tracked": {
                "step": count,
                "silent": silent,
                # A step that goes on from here looks at the last but one.
                "dead_before": mx.sum(dead).astype(mx.int32),
                **kept,
            },
        }
        return after, stats

    return mx.compile(step) if compiled else step


def revival(
    plan: Plan,
    wiring: Wiring,
    params: Params,
    encoded: Encoded,
    error: mx.array,
    dead: mx.array,
    choose: int | None,
) -> mx.array:
    """What teaches dead features.

    How badly the strongest of them predict the error of the others, as squared error over the
    error's own variance (Gao et al. 2024); and, since a feature that no token turns on learns
    nothing from that, how far they are below what would turn them on (Conerly et al. 2024). Both
    are weighed so that they keep their part of the loss whatever `norm` is.

    Args:
        plan: Of the training.
        wiring: Of the dictionary.
        params: Parameters.
        encoded: Features of the batch.
        error: (N, d_out), of the others.
        dead: (F,), which are.
        choose: How many take part for each token; all of them if None.
    """
    wanted = mx.stop_gradient(error)
    reach = encoded.reach.astype(mx.float32)
    asleep = dead.astype(mx.float32)
    features = asleep * rectify(reach)
    if choose is not None:
        strength = mx.where(dead, mx.stop_gradient(reach), -mx.inf)
        indices, _ = top_k(strength, choose, ordered=False)
        chosen = mx.ones(indices.shape, mx.float32)
        features = scatter_features(chosen, indices, reach.shape[-1]) * features
    missed = wanted - wiring.decode(params, features.astype(encoded.reach.dtype))
    error_share = _energy(missed) / mx.maximum(_variance(wanted), 1e-12)
    below = mx.sum(asleep * mx.sum(rectify(-reach), axis=0)) / reach.shape[0]
    norm = plan.config.norm
    return norm**2 * mx.where(mx.any(dead), error_share, 0) + norm * below


def _variance(y: mx.array) -> mx.array:
    """Sum of squares around the mean of each dimension."""
    y = y.astype(mx.float32)
    return _energy(y - mx.mean(y, axis=0))


def _energy(x: mx.array) -> mx.array:
    """Sum of squares; by columns first, which a CPU does several times as fast as all at once."""
    return mx.sum(mx.sum(mx.square(x), axis=0))


def active(code: Code, n_features: int) -> mx.array:
    """For how many tokens each feature is on, (F,) int32."""
    if isinstance(code, mx.array):
        return mx.sum(code > 0, axis=0).astype(mx.int32)
    values, indices = code
    counts = mx.zeros(n_features, mx.int32)
    return counts.at[indices.reshape(-1)].add((values > 0).astype(mx.int32).reshape(-1))


def adamw(
    params: Params,
    slopes: Params,
    moments: tuple[Params, Params],
    rate: mx.array,
    count: mx.array,
    weight_decay: float,
    factor: mx.array | float = 1.0,
) -> tuple[Params, Params, Params]:
    """Parameters and both moments after a step of AdamW (Loshchilov and Hutter 2019).

    Args:
        params, slopes: Parameters and their gradients.
        moments: First and second.
        rate: Learning rate.
        count: Number of the step, from 1.
        weight_decay: On the encoder.
        factor: What gradients are multiplied by.
    """
    new: Params = {}
    first: Params = {}
    second: Params = {}
    steps = count.astype(mx.float32)
    one, two = (1 - mx.power(mx.array(beta), steps) for beta in BETAS)
    # What corrects the moments is the same for all numbers, so it goes into the rate and ε.
    spread = mx.sqrt(two)
    corrected, epsilon = rate * spread / one, EPSILON * spread
    parts = (1 - BETAS[0]) * factor, (1 - BETAS[1]) * factor**2
    for name, value in params.items():
        slope = slopes[name]
        first[name] = BETAS[0] * moments[0][name] + parts[0] * slope
        second[name] = BETAS[1] * moments[1][name] + parts[1] * mx.square(slope)
        if weight_decay and name == "encoder":
            value = value * (1 - rate * weight_decay)
        new[name] = value - corrected * (first[name] / (mx.sqrt(second[name]) + epsilon))
    return new, first, second


def shortening(slopes: Params, norm: float | None) -> mx.array | float:
    """What gradients are multiplied by, so that their joint norm is at most `norm`."""
    if norm is None:
        return 1.0
    # A checkpoint does not keep the order of names, and rounding depends on that of a sum.
    energy = mx.sum(mx.stack([_energy(slopes[name]) for name in sorted(slopes)]))
    return mx.minimum(norm / mx.maximum(mx.sqrt(energy), 1e-12), 1)


def learning_rate(plan: Plan, count: mx.array) -> mx.array:
    """The rate of step `count`, the first being 1: up, level, and down to the last step."""
    rate = plan.learning_rate * _rise(count, plan.warmup)
    if not plan.config.decay:
        return rate
    falling = max(1, round(plan.config.decay * plan.steps))
    left = (plan.steps - count + 1).astype(mx.float32) / falling
    return rate * mx.minimum(left, 1)


def _rise(count: mx.array, steps: int) -> mx.array:
    return mx.minimum(count.astype(mx.float32) / max(1, steps), 1)
