"""What makes the kinds of dictionaries differ in training: features, penalties, thresholds."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlxray.arrays import number

from ..types.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .gradients import jump, select, step
from .largest import kth_largest
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
    """

    code: Code
    reach: mx.array
    penalty: mx.array


class Kind:
    """Base: a bias of the encoder, and no thresholds.

    Args:
        plan: Of the training.
        wiring: Of the dictionary.
    """

    #: Norm of the decoder's rows at first. If it is 1 it stays so; otherwise rows are free in
    #: training, and get norm 1 when the dictionary is finished.
    decoder_norm = 1.0

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
        return mx.mean(mx.sum(mx.square(error), axis=-1)), error

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
        features = mx.maximum(pre, 0)
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
        features = mx.where(gate > 0, mx.maximum(magnitude, 0), 0)
        return Encoded(features, gate, _l1(mx.maximum(gate, 0)))

    def extra_loss(
        self, params: Params, encoded: Encoded, x: mx.array, y: mx.array
    ) -> mx.array | float:
        """The gates' own reconstruction.

        The paper keeps it from training the decoder. Where it does train it, more of the features
        that are known are found in the same number of steps.
        """
        output = self.wiring.decode(params, mx.maximum(encoded.reach, 0))
        error = (y - output - self.wiring.rest(params, x)).astype(mx.float32)
        return mx.mean(mx.sum(mx.square(error), axis=-1))

    def activation(self, params: Params, tracked: Params, unit: float) -> Activation:
        gate, magnitude = params["gate_bias"] / unit, params["magnitude_bias"] / unit
        return Gated(gate, magnitude, params["log_magnitude"])


class JumpReLUKind(Kind):
    """A learned threshold for each feature, in float32, and a penalty on L0.

    The penalty does not depend on the decoder's norm, so that is free; features that begin small
    and grow as they serve find known ones better (`tests/benchmarks/synth_sae_bench.py`).
    """

    decoder_norm = 0.1

    def __init__(self, plan: Plan, wiring: Wiring) -> None:
        super().__init__(plan, wiring)
        self._jump = jump(plan.config.bandwidth)
        self._step = step(plan.config.bandwidth)

    def initial(self) -> Params:
        threshold = mx.full((self.wiring.n_features,), self.plan.config.initial_threshold)
        return {**super().initial(), "threshold": threshold}

    def encode(self, params: Params, projected: mx.array) -> Encoded:
        # The threshold itself is trained, not its logarithm, which Adam hardly moves.
        pre = self._biased(params, projected).astype(mx.float32)
        features = self._jump(pre, params["threshold"])
        l0 = mx.sum(self._step(pre, params["threshold"]), axis=-1)
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
        positive = mx.maximum(pre, 0)
        layers = self.wiring.n_features // self.plan.config.n_features
        kept = self.plan.k * layers * pre.shape[0]
        threshold = kth_largest(mx.stop_gradient(positive).reshape(-1), kept)
        features = mx.where(positive >= threshold, positive, 0)
        return Encoded(features, pre, mx.array(0.0))

    def track(self, tracked: Params, code: Code, step: mx.array) -> Params:
        assert isinstance(code, mx.array)
        positive = mx.where(code > 0, code, mx.inf)
        smallest = mx.min(positive).astype(mx.float32)
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
        losses, start = [], 0
        for end in self.plan.config.prefixes or ():
            part = {"decoder": params["decoder"][start:end]}
            output = output + self.wiring.decode(part, encoded.code[:, start:end])
            error = y.astype(mx.float32) - output.astype(mx.float32)
            losses.append(mx.mean(mx.sum(mx.square(error), axis=-1)))
            start = end
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
    return mx.mean(mx.sum(features.astype(mx.float32), axis=-1))
