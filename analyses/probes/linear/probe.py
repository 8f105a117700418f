"""A linear probe: directions and thresholds that read a label off an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate, held, nested, number
from mlxray.errors import InputError, nearest

from ...steering.probe import Probe
from ..examples.features import flat
from ..examples.labels import Label


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A label as a linear function of the activation at one address.

    Attributes:
        address: Where it reads.
        position: Which token of a prompt it was fitted to.
        kind: How it was fitted.
        weights: (classes, …) float32; (1, …) for numbers. Behind the first axis it is shaped like
            the activation without its axes of batch and tokens.
        bias: (classes,) float32.
        classes: The labels; None if it predicts numbers.

    Raises:
        InputError: if these do not fit each other, or are not finite.
    """

    address: str
    position: str | int
    kind: str
    weights: mx.array
    bias: mx.array
    classes: tuple[Label, ...] | None

    def __post_init__(self) -> None:
        weights, bias = (held(mx.array(v, dtype=mx.float32)) for v in (self.weights, self.bias))
        evaluate(weights, bias)
        outputs = 1 if self.classes is None else len(self.classes)
        if weights.ndim < 2 or weights.shape[0] != outputs or bias.shape != (outputs,):
            raise InputError(
                f"a probe of {outputs} outputs has weights ({outputs}, …) and bias ({outputs},); "
                f"got {weights.shape} and {bias.shape}."
            )
        if not number(mx.all(mx.isfinite(weights)) & mx.all(mx.isfinite(bias))):
            raise InputError(f"the probe at {self.address!r} has weights that are not finite.")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", bias)

    def scores(self, activation: mx.array) -> mx.array:
        """Of each token of an activation at the address: (B, S, classes) float32, lazy.

        Raises:
            EditError: if the activation has another shape.
        """
        shape = self.weights.shape[1:]
        rows = flat(activation, self.address, shape, "the probe")
        return rows @ self.weights.reshape(len(self.bias), -1).T + self.bias

    def predict(self, rows: mx.array) -> list[Any]:
        """The label, or the number, of each row (N, …).

        Raises:
            InputError: if the rows have another shape.
        """
        if rows.shape[1:] != self.weights.shape[1:]:
            raise InputError(
                f"the probe at {self.address!r} reads {self.weights.shape[1:]} for each example; "
                f"got rows of {rows.shape[1:]}."
            )
        table = rows.astype(mx.float32).reshape(rows.shape[0], -1)
        scores = table @ self.weights.reshape(len(self.bias), -1).T + self.bias
        if self.classes is None:
            found: list[Any] = nested(scores[:, 0])
            return found
        return [self.classes[code] for code in nested(mx.argmax(scores, axis=-1))]

    def direction(self, label: Label | None = None) -> mx.array:
        """The unit vector along which the score of a label grows against the others'.

        Args:
            label: Of several classes, which; the second one of two if left out.

        Raises:
            InputError: if there is no such label, it must be chosen, or nothing depends on the
                activation.
        """
        vector = self.weights[self._code(label)]
        if self.classes is not None:
            rest = (mx.sum(self.weights, axis=0) - vector) / (len(self.classes) - 1)
            vector = vector - rest
        length = number(mx.linalg.norm(vector.reshape(-1)))
        if length == 0:
            raise InputError(f"the probe at {self.address!r} depends on no direction: it is zero.")
        unit = vector / length
        evaluate(unit)
        return unit

    def condition(self, label: Label | None = None) -> Probe:
        """When the probe tells a label: a `Probe` for `only_while`, of two classes.

        Args:
            label: Which of the two; the second one if left out.

        Raises:
            InputError: if there are not two classes, or it depends on no direction.
        """
        if self.classes is None or len(self.classes) != 2:
            actual = "numbers" if self.classes is None else f"{len(self.classes)} classes"
            raise InputError(f"a condition needs a probe of two classes; this one tells {actual}.")
        code = self._code(label)
        other = 1 - code
        direction = self.direction(label)
        difference = (self.weights[code] - self.weights[other]).reshape(-1)
        threshold = number((self.bias[other] - self.bias[code]) / mx.linalg.norm(difference))
        return Probe(self.address, direction, threshold)

    def _code(self, label: Label | None) -> int:
        if self.classes is None:
            if label is not None:
                raise InputError(f"this probe predicts numbers and has no label {label!r}.")
            return 0
        if label is None and len(self.classes) == 2:
            return 1
        if label not in self.classes:
            asked = "choose a label" if label is None else f"there is no label {label!r}"
            raise InputError(f"{asked}. {nearest(str(label), map(str, self.classes))}")
        return self.classes.index(label)
