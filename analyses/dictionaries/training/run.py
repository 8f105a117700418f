"""The training of one dictionary: its state, its steps, its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlxray.arrays import evaluate, number, on_gpu, start_evaluating
from mlxray.errors import AnalysisError, LoadError

from .checkpoint import flat_state, nested_state
from .finish import finish
from .kinds import KINDS
from .plan import Plan
from .step import Dead, Stats, StepFunction, first_state, make_step
from .training_result import TrainingResult
from .wiring import CrossLayer, Flat, Wiring, first_scale

#: Multiplications by encoders and decoders in a whole training. One with fewer takes about a minute
#: on a core, of which compiled steps save a tenth; compiling them takes seconds there.
COMPILE_ABOVE = 2**40
#: The same on CUDA, where compiling took more than a minute, once on a machine, and saved a fifth
#: of a step's 5 ms at 4096 tokens, 512 → 8192. Metal compiles at once.
COMPILE_ABOVE_ON_CUDA = 2**48
CURVES = ("loss", "explained_variance", "l0", "dead")


class Run:
    """One dictionary in training.

    Args:
        plan: What it will do.
        first: The first batch, which tells the scales of the points; or None, and
        saved: the arrays of a checkpoint.

    Attributes:
        started: Steps that were begun, all of which but the last few are done.

    Raises:
        LoadError: if the checkpoint lacks arrays, or they have other shapes.
    """

    def __init__(
        self,
        plan: Plan,
        first: Mapping[str, mx.array] | None,
        saved: Mapping[str, mx.array] | None = None,
    ) -> None:
        self.plan = plan
        self.wiring = make_wiring(plan)
        self.kind = KINDS[plan.config.kind](plan, self.wiring)
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        key = mx.random.key(plan.config.seed)
        scale = first_scale(plan.config.kind, plan.d_in, plan.config.n_features)
        if saved is None:
            assert first is not None
            norm = plan.config.norm
            self.scales = (
                norm * joined_scales(first, plan.reads),
                norm * joined_scales(first, plan.writes),
            )
            mean = mx.mean(joined(first, plan.writes) * self.scales[1], axis=0)
            self.state = first_state(self.kind, self.wiring, key, scale, mean)
        else:
            blank = first_state(self.kind, self.wiring, key, scale, mx.zeros(plan.d_out))
            scales = {"scale.reads": mx.zeros(plan.d_in), "scale.writes": mx.zeros(plan.d_out)}
            _check_saved({**flat_state(blank), **scales}, saved)
            self.scales = saved["scale.reads"], saved["scale.writes"]
            self.state = nested_state(saved)
            for name in CURVES:
                self.curves[name] = [float(v) for v in np.array(saved[f"curve.{name}"])]
        evaluate(self.state, self.scales)
        self.started = int(number(self.state["tracked"]["step"]))
        # Step → how many features were dead after it. A step looks at the last but one, which is
        # known while the one between is still being computed.
        tracked = self.state["tracked"]
        now = int(number(mx.sum(tracked["silent"] >= plan.dead_after)))
        before = int(number(tracked["dead_before"]))
        self._dead = {self.started - 1: before, self.started: now}
        self._unread: list[Stats] = []
        self._steps: dict[Dead, StepFunction] = {}

    def advance(self, batch: Mapping[str, mx.array], *, record: bool) -> dict[str, float]:
        """Take a step, and tell how it went.

        Raises:
            AnalysisError: if the loss is not finite.
        """
        self.start(batch)
        return self.read(record=record)

    def start(self, batch: Mapping[str, mx.array]) -> None:
        """Begin a step.

        On a GPU this returns while the step is computed, so that the next one can be prepared.
        """
        self.started += 1
        dead = Dead.of(self._dead.pop(self.started - 2), self.plan)
        if dead not in self._steps:
            self._steps[dead] = make_step(
                self.plan,
                self.kind,
                self.wiring,
                revive=dead,
                compiled=worth_compiling(self.plan, len(batch[self.plan.reads[0]])),
            )
        x = joined(batch, self.plan.reads) * self.scales[0]
        y = x
        if self.plan.writes != self.plan.reads:
            y = joined(batch, self.plan.writes) * self.scales[1]
        self.state, stats = self._steps[dead](self.state, x, y)
        if on_gpu():
            start_evaluating(self.state, stats)
        else:
            evaluate(self.state, stats)
        self._unread.append(stats)

    def read(self, *, record: bool) -> dict[str, float]:
        """How the first step went that was started and not read yet.

        Raises:
            AnalysisError: if its loss is not finite.
        """
        step = self.started - len(self._unread) + 1
        stats = self._unread.pop(0)
        measured = {name: number(stats[name]) for name in CURVES}
        self._dead[step] = round(measured["dead"] * self.wiring.n_features)
        if not math.isfinite(measured["loss"]):
            raise AnalysisError(
                f"the loss is {measured['loss']} at step {step}, in training {self.described}: "
                f"lower learning_rate ({self.plan.learning_rate:.3g}), or look for numbers in "
                "the data that are not finite."
            )
        if record:
            for name, value in measured.items():
                self.curves[name].append(value)
        return measured

    @property
    def described(self) -> str:
        """Kind, size and points in a phrase."""
        points = ", ".join(self.plan.reads)
        if self.plan.writes != self.plan.reads:
            points += " → " + ", ".join(self.plan.writes)
        config = self.plan.config
        return f"{config.kind} dictionary of {config.n_features} features ({points})"

    def check_finite(self) -> None:
        """See that every parameter is finite.

        Raises:
            AnalysisError: if not.
        """
        sound = [mx.all(mx.isfinite(p)) for p in self.state["parameters"].values()]
        if not mx.all(mx.stack(sound)).item():
            raise AnalysisError(
                f"parameters are not finite after step {self.started}, in training "
                f"{self.described}: lower learning_rate ({self.plan.learning_rate:.3g})."
            )

    def to_arrays(self) -> dict[str, mx.array]:
        """All that a checkpoint keeps of it."""
        curves = {
            f"curve.{name}": mx.array(np.array(values, np.float32))
            for name, values in self.curves.items()
        }
        scales = {"scale.reads": self.scales[0], "scale.writes": self.scales[1]}
        return {**flat_state(self.state), **scales, **curves}

    def result(
        self, recorded: Sequence[int], batch_size: int, notes: dict[str, Any]
    ) -> TrainingResult:
        """The finished dictionary with its curves."""
        self.check_finite()
        metadata = {"training": {**notes, **self.plan.to_json()}}
        dictionary = finish(self.plan, self.kind, self.wiring, self.state, self.scales, metadata)
        return TrainingResult(
            described=self.described,
            steps=self.plan.steps,
            tokens=self.plan.steps * batch_size,
            recorded=list(recorded),
            curves=self.curves,
            _dictionary=dictionary,
            metadata={"parameters": self.plan.to_json(), **notes},
        )


def make_wiring(plan: Plan) -> Wiring:
    """The linear maps that a plan asks for."""
    if plan.cross_layer:
        return CrossLayer(len(plan.reads), plan.widths[plan.reads[0]], plan.config.n_features)
    same = plan.reads == plan.writes
    return Flat(
        plan.d_in,
        plan.d_out,
        plan.config.n_features,
        tied=same,
        centred=same and len(plan.reads) == 1,
        skip=plan.config.skip,
    )


def worth_compiling(plan: Plan, batch_size: int) -> bool:
    """Whether compiling takes less time than it saves; the same in every part of a training."""
    products = plan.steps * batch_size * (plan.d_in + plan.d_out) * plan.all_features
    if not on_gpu():
        return products >= COMPILE_ABOVE
    return mx.metal.is_available() or products >= COMPILE_ABOVE_ON_CUDA


def joined(batch: Mapping[str, mx.array], points: Sequence[str]) -> mx.array:
    """Rows of several points side by side, float32."""
    rows = [batch[point].astype(mx.float32) for point in points]
    return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=-1)


def joined_scales(batch: Mapping[str, mx.array], points: Sequence[str]) -> mx.array:
    """What each dimension is multiplied by, so that each point's mean squared norm is 1.

    Raises:
        AnalysisError: if all activations of a point are zero, or one is not finite.
    """
    scales = []
    for point in points:
        rows = batch[point].astype(mx.float32)
        energy = number(mx.mean(mx.sum(mx.square(rows), axis=-1)))
        if not 0 < energy < math.inf:
            fault = "all zero" if energy == 0 else "not all finite"
            raise AnalysisError(f"the activations of {point!r} are {fault}: nothing to learn.")
        scales.append(mx.full((rows.shape[-1],), 1 / math.sqrt(energy)))
    return mx.concatenate(scales)


def _check_saved(wanted: Mapping[str, mx.array], saved: Mapping[str, mx.array]) -> None:
    shapes = {name: tuple(array.shape) for name, array in saved.items()}
    for name, array in wanted.items():
        if shapes.get(name) != tuple(array.shape):
            found = shapes.get(name, "missing")
            raise LoadError(
                f"the checkpoint is damaged: {name} is {found}; expected {tuple(array.shape)}."
            )
    lengths = {name: shapes.get(f"curve.{name}") for name in CURVES}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        raise LoadError(f"the checkpoint is damaged: its curves have the shapes {lengths}.")
