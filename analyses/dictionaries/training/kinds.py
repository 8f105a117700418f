"""What makes the kinds of dictionaries differ in training: features, penalties, thresholds."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlxray.arrays import number

from ..types.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .gradients import jump, nested_decode, open_gates, rectify, select, select_batch
from .plan import Plan
from .wiring import Code, Params, Wiring

#: Weight of the old value in the running mean of batch_topk's threshold.
THRESHOLD_DECAY = 0.999


class Encoded(NamedTuple):
    """Features of a batch.

    Attributes:
        code: The features.
        reach: (N, F): how far each feature is above what would turn it on, apart from any
            competition; dead features are revived along it.
        penalty: What sparsity costs, without its coefficient.
        gates: (N, F): of gated, how far its gates are open; they reconstruct too.
    """

    code: Code
    reach: mx.array
    penalty: mx.array
    gates: mx.array | None = None


class Kind:
    """Base: a bias of the encoder, and no thresholds.

    Args:
        plan: Of the training.
        wiring: Of the dictionary.
    """

    #: Norm of the decoder's rows at first. If it is 1 it stays so; otherwise rows are free in
    #: training, and get norm 1 when the dictionary is finished.
    decoder_norm = 1.0
    #: Power of the activations' scale with which the penalty grows; the squared error's is 2.
    penalty_power = 1

    def __init__(self, plan: Plan, wiring: Wiring) -> None:
        self.plan = plan
        self.wiring = wiring

    def initial(self) -> Params:
        """First values of the parameters that belong to the kind."""
        return {"encoder_bias": mx.zeros(self.wiring.n_features)}

    def initial_tracked(self) -> Params:
        """First values of what is tracked, not trained."""
        return {}

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        """Features of pre-activations that have no bias yet, (N, F)."""
        raise NotImplementedError

    def reconstruction_loss(
        self, params: Params, encoded: Encoded, x: mx.array, y: mx.array
    ) -> tuple[mx.array, mx.array]:
        """Squared error per token, mean over tokens; and the error itself (N, d_out)."""
        output = self.wiring.decode(params, encoded.code) + self.wiring.rest(params, x)
        error = y.astype(mx.float32) - output.astype(mx.float32)
        return _energy(error), error

    def extra_loss(
        self, params: Params, encoded: Encoded, x: mx.array, y: mx.array
    ) -> mx.array | float:
        """A loss of the kind's own."""
        return 0.0

    def track(self, tracked: Params, code: Code, step: mx.array) -> Params:
        """What is tracked, after a step."""
        return tracked

    def constrain(self, params: Params) -> Params:
        """Parameters within their bounds, after a step."""
        return params

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        """The finished activation function.

        Args:
            params: Trained parameters.
            tracked: What was tracked.
            unit: What biases and thresholds are divided by, to be in units of the activations.
        """
        return ReLU()

    def _biased(self, params: Params, projected: mx.array) -> mx.array:
        return projected + params["encoder_bias"].astype(projected.dtype)


class ReLUKind(Kind):
    """ReLU and an L1 penalty; decoder rows have norm 1, so nothing is gained by small features."""

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        pre = self._biased(params, projected)
        features = rectify(pre)
        return Encoded(features, pre, _l1(features))


class GatedKind(Kind):
    """A gate and a magnitude that share the encoder (Rajamanoharan et al. 2024a)."""

    def initial(self) -> Params:
        names = ("gate_bias", "magnitude_bias", "log_magnitude")
        return {name: mx.zeros(self.wiring.n_features) for name in names}

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        own = {n: params[n].astype(projected.dtype) for n in self.initial()}
        gate = projected + own["gate_bias"]
        magnitude = projected * mx.exp(own["log_magnitude"]) + own["magnitude_bias"]
        gates = rectify(gate)
        features = open_gates(mx.stop_gradient(gates), magnitude)
        return Encoded(features, gate, _l1(gates), gates)

    def extra_loss(
        self, params: Params, encoded: Encoded, x: mx.array, y: mx.array
    ) -> mx.array | float:
        """The gates' own reconstruction.

        The paper keeps it from training the decoder. Where it does train it, more of the features
        that are known are found in the same number of steps.
        """
        assert encoded.gates is not None
        output = self.wiring.decode(params, encoded.gates)
        error = (y - output - self.wiring.rest(params, x)).astype(mx.float32)
        return _energy(error)

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        gate, magnitude = params["gate_bias"] / unit, params["magnitude_bias"] / unit
        return Gated(gate, magnitude, params["log_magnitude"])


class JumpReLUKind(Kind):
    """A learned threshold for each feature, in float32, and a penalty on L0.

    The penalty does not depend on the decoder's norm, so that is free; features that begin small
    and grow as they serve find known ones better (`tests/benchmarks/synth_sae_bench.py`).
    """

    decoder_norm = 0.1
    penalty_power = 0

    def __init__(self, plan: Plan, wiring: Wiring) -> None:
        super().__init__(plan, wiring)
        self._jump = jump(plan.config.bandwidth * plan.config.norm)

    def initial(self) -> Params:
        first = self.plan.config.initial_threshold * self.plan.config.norm
        threshold = mx.full((self.wiring.n_features,), first)
        return {**super().initial(), "threshold": threshold}

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        # The threshold itself is trained, not its logarithm, which Adam hardly moves.
        pre = self._biased(params, projected).astype(mx.float32)
        features, l0 = self._jump(pre, params["threshold"])
        target = self.plan.config.target_l0
        penalty = mx.mean(l0 if target is None else mx.square(l0 / target - 1))
        reach = pre - mx.stop_gradient(params["threshold"])
        return Encoded(features.astype(projected.dtype), reach, penalty)

    def constrain(self, params: Params) -> Params:
        return {**params, "threshold": mx.maximum(params["threshold"], 0)}

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        return JumpReLU(params["threshold"] / unit)


class TopKKind(Kind):
    """The k largest of each token."""

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        pre = self._biased(params, projected)
        return Encoded(select(pre, self.plan.k), pre, mx.array(0.0))

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        return TopK(self.plan.k)


class BatchTopKKind(Kind):
    """The k · N largest of N tokens; alone, a token is held against their mean threshold.

    The running mean weighs old values by .999 a step. It is divided by the sum of its weights, so
    that it is right after few steps too, and starts after the warm-up, whose thresholds are of
    another dictionary.
    """

    def initial_tracked(self) -> Params:
        return {"threshold_sum": mx.array(0.0), "threshold_weight": mx.array(0.0)}

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        pre = self._biased(params, projected)
        layers = self.wiring.n_features // self.plan.config.n_features
        kept = self.plan.k * layers * pre.shape[0]
        return Encoded(select_batch(pre, kept), pre, mx.array(0.0))

    def track(self, tracked: Params, code: Code, step: mx.array) -> Params:
        assert isinstance(code, mx.array)
        positive = mx.where(code > 0, code, mx.inf)
        # By columns first, which a CPU does several times as fast as all at once.
        smallest = mx.min(mx.min(positive, axis=0)).astype(mx.float32)
        counts = (step > self.plan.warmup) & (smallest < mx.inf)
        new = (1 - THRESHOLD_DECAY) * mx.stack([mx.where(counts, smallest, 0), mx.array(1.0)])
        old = mx.stack([tracked["threshold_sum"], tracked["threshold_weight"]])
        total, weight = mx.where(counts, THRESHOLD_DECAY * old + new, old)
        return {"threshold_sum": total, "threshold_weight": weight}

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        total, weight = number(tracked["threshold_sum"]), number(tracked["threshold_weight"])
        mean = total / weight if weight else 0.0
        return BatchTopK(self.plan.k, mean / unit)


class MatryoshkaKind(BatchTopKKind):
    """A batch_topk whose first features, for several prefixes, reconstruct by themselves.

    Bussmann et al. 2025. The loss is the mean over the prefixes.
    """

    def reconstruction_loss(
        self, params: Params, encoded: Encoded, x: mx.array, y: mx.array
    ) -> tuple[mx.array, mx.array]:
        assert isinstance(encoded.code, mx.array)
        output = self.wiring.rest(params, x)
        losses = []
        decode = nested_decode(self.plan.config.prefixes or ())
        for written in decode(encoded.code, params["decoder"].astype(encoded.code.dtype)):
            output = output + written
            error = y.astype(mx.float32) - output.astype(mx.float32)
            losses.append(_energy(error))
        return mx.mean(mx.stack(losses)), error


KINDS: dict[str, type[Kind]] = {
    "relu": ReLUKind,
    "gated": GatedKind,
    "jumprelu": JumpReLUKind,
    "topk": TopKKind,
    "batch_topk": BatchTopKKind,
    "matryoshka": MatryoshkaKind,
}


def _l1(features: mx.array) -> mx.array:
    return _per_token(features.astype(mx.float32))


def _energy(error: mx.array) -> mx.array:
    return _per_token(mx.square(error))


def _per_token(x: mx.array) -> mx.array:
    """The sum of a token, mean over tokens."""
    # By columns first, which a CPU does several times as fast as by rows.
    return mx.sum(mx.sum(x, axis=0)) / x.shape[0]
