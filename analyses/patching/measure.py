"""A metric bound to a pair of runs: from logits of patched runs to one number each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel, Metric
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ..datasets.targets import token_id
from ..metrics.lookup import get_metric

MetricLike = str | Metric | Callable[..., Any]


@dataclass(frozen=True)
class Measure:
    """What a patched run's logits are worth.

    Attributes:
        name: The metric's name.
        metric: Called as ``metric(patched, clean, corrupted, **options)``.
        clean, corrupted: (1, 1, V) logits of the two runs at the position that is measured.
        options: The metric's own keywords.
        by_row: Whether it takes ``per_example=True`` and then gives a lazy (N,), which can be
            differentiated.
    """

    name: str
    metric: Callable[..., Any]
    clean: mx.array
    corrupted: mx.array
    options: Mapping[str, Any]
    by_row: bool

    def rows(self, logits: mx.array) -> mx.array:
        """(N, V) logits → (N,) values, evaluated.

        Raises:
            InputError: if the metric gives something that is not a finite number.
        AnalysisError: if the metric says that it is undefined here.
        """
        if self.by_row:
            values = self._lazy(logits)
        else:
            values = mx.array([self._one(row[None, None]) for row in logits])
        if not mx.all(mx.isfinite(values)).item():
            if self.by_row:
                for row in logits:  # many a metric says why when it is asked for one number
                    self._one(row[None, None])
            raise InputError(f"metric {self.name!r} gave NaN or infinity.")
        return values

    def scalar(self, logits: mx.array) -> mx.array:
        """Sum over rows of (N, V) logits, lazy, to be differentiated.

        Raises:
            InputError: if the metric has no form that can be differentiated.
        """
        if not self.by_row:
            raise InputError(
                f"metric {self.name!r} gives plain numbers; to be differentiated it takes "
                "per_example=True and then returns an array with one value for each row."
            )
        return mx.sum(self._lazy(logits))

    def _lazy(self, logits: mx.array) -> mx.array:
        rows: mx.array = self.metric(
            logits[:, None], self.clean, self.corrupted, **self.options, per_example=True
        )
        return rows

    def _one(self, logits: mx.array) -> float:
        return float(self.metric(logits, self.clean, self.corrupted, **self.options))


def bind(
    model: InterpretableModel,
    metric: MetricLike,
    clean: mx.array,
    corrupted: mx.array,
    options: Mapping[str, Any] | None = None,
) -> Measure:
    """Bind a metric to the logits (V,) of a clean and a corrupted run, and try it once.

    Keywords that end in ``_token`` may be text, such as ``" Paris"``; those that end in
    ``_tokens`` may hold text.

    Raises:
        InputError: if it refuses its keywords or gives no finite number, or a token given as
            text is several tokens.
        AnalysisError: if the metric says that it is undefined for these two runs.
        PluginError: if there is no metric of that name.
    """
    found = get_metric(metric)
    fn = found.fn if isinstance(found, Metric) else found
    name = str(getattr(found, "name", getattr(found, "__name__", repr(found))))
    by_row = "per_example" in inspect.signature(fn).parameters
    shaped = clean.reshape(1, 1, -1), corrupted.reshape(1, 1, -1)
    given = {
        key: _ids(model, value) if key.endswith(("_token", "_tokens")) else value
        for key, value in (options or {}).items()
    }
    measure = Measure(name, fn, *shaped, given, by_row)
    try:
        measure.rows(mx.stack([clean.reshape(-1), corrupted.reshape(-1)]))
    except TypeError as error:
        raise InputError(f"metric {name!r}: {error}") from error
    return measure


def _ids(model: InterpretableModel, value: Any) -> Any:
    """The same value with ids in place of text."""
    if isinstance(value, str):
        return token_id(model, value)
    if isinstance(value, (list, tuple)):
        return [_ids(model, each) for each in value]
    return value


def last_logits(model: InterpretableModel, batch: Batch, position: int = -1) -> mx.array:
    """Logits (V,) of one prompt at a position, evaluated."""
    logits = model.run_with_hooks(batch)
    return logits[0, batch.index(0, position)]
