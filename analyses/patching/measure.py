"""A metric bound to a pair of runs: from logits of patched runs to one number each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel, Metric, registry
from mlxray.arrays import nested
from mlxray.display import counted
from mlxray.errors import AnalysisError, InputError, nearest
from mlxray.tokens import Batch

from ..datasets.targets import token_id
from ..metrics.lookup import get_metric
from .compare import check_apart

MetricLike = str | Metric | Callable[..., Any]

#: Of a numerical integral, or of random directions: more steps tell nothing new.
MOST_STEPS = 1000

#: Relative error of float32 logits after a forward pass, of which one rounding is a small part.
_PASS_ERROR = 1e-6

#: Draws of rounding errors, and of the directions in which a slope is looked for.
_DRAWS = 3

#: Length of these directions, in standard deviations of the logits.
_SMALL = 0.03

#: Share of a metric's change that turns its sign with the direction: far less of a distance from
#: the run itself, nearly all of a metric that has a slope.
_TURNS = 0.2


@dataclass(frozen=True)
class Measure:
    """What a patched run's logits are worth.

    Attributes:
        name: The metric's name.
        metric: Called as ``metric(patched, clean, corrupted, **options)``.
        clean, corrupted: (1, P, V) logits of the two runs at the positions that the metric gets
            (see `read_positions`).
        options: The metric's own keywords.
        by_row: Whether it takes ``per_example=True`` and then gives a lazy (N,), which can be
            differentiated.
        is_share: Whether it is a share of the gap between clean and corrupted: clean is 1 and
            corrupted 0, unless it was bound raw.
    """

    name: str
    metric: Callable[..., Any]
    clean: mx.array
    corrupted: mx.array
    options: Mapping[str, Any]
    by_row: bool
    is_share: bool = False

    def rows(self, logits: mx.array) -> mx.array:
        """(N, P, V) logits, or (N, V) of one position → (N,) values, evaluated.

        Raises:
            InputError: if the metric gives something that is not a finite number.
            AnalysisError: if the metric says that it is undefined here.
        """
        if logits.ndim == 2:
            logits = logits[:, None]
        if self.by_row:
            values = self._lazy(logits)
        else:
            values = mx.array([self._one(row[None]) for row in logits])
        if not mx.all(mx.isfinite(values)).item():
            if self.by_row:
                for row in logits:  # many a metric says why when it is asked for one number
                    self._one(row[None])
            raise InputError(f"metric {self.name!r} gave NaN or infinity.")
        return values

    def scalar(self, logits: mx.array) -> mx.array:
        """Sum over rows of (N, P, V) logits, lazy, to be differentiated.

        Raises:
            InputError: if the metric gives plain numbers, which have no gradient.
        """
        if self.by_row:
            return mx.sum(self._lazy(logits))
        return mx.sum(mx.stack([self._differentiable(row[None]) for row in logits]))

    def _differentiable(self, logits: mx.array) -> mx.array:
        value = self._ask(logits)
        if not isinstance(value, mx.array):
            raise InputError(
                f"metric {self.name!r} returns plain numbers; to be differentiated it returns an "
                "mx.array of one element, computed from the patched logits without .item() or "
                "float()."
            )
        return value.reshape(())

    def _lazy(self, logits: mx.array) -> mx.array:
        rows = self._ask(logits, per_example=True)
        if not isinstance(rows, mx.array) or rows.shape != logits.shape[:1]:
            kind = f"shape {rows.shape}" if isinstance(rows, mx.array) else type(rows).__name__
            raise InputError(
                f"metric {self.name!r} gives {kind} for {counted(logits.shape[0], 'patched run')}, "
                "not one number for each: give it the tokens of one pair of prompts."
            )
        return rows

    def _one(self, logits: mx.array) -> float:
        value = self._ask(logits)
        if isinstance(value, mx.array) and value.size != 1:
            raise InputError(
                f"metric {self.name!r} returns an array of shape {value.shape}, not one number."
            )
        return float(value)

    def _ask(self, logits: mx.array, **more: bool) -> Any:
        try:
            return self.metric(logits, self.clean, self.corrupted, **self.options, **more)
        except TypeError as error:
            raise InputError(f"metric {self.name!r}: {error}") from error

    # The two ends

    def pending(self) -> list[mx.array]:
        """Arrays that tell `ends` and `resolution`, to be evaluated with what comes before."""
        return [self._ends, self._noisy] if self.by_row else []

    @cached_property
    def _ends(self) -> mx.array:
        self._lazy(self.clean)  # one run alone: two rows would hide that a metric takes two
        return self._lazy(mx.concatenate([self.clean, self.corrupted]))

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The metric of the clean and of the corrupted run."""
        if self.by_row:
            clean, corrupted = nested(self._ends)
            if math.isfinite(clean) and math.isfinite(corrupted):
                return clean, corrupted
        # Which says what is wrong with numbers that are not finite.
        clean, corrupted = nested(self.rows(mx.concatenate([self.clean, self.corrupted])))
        return clean, corrupted

    @property
    def gap(self) -> float:
        """The metric of the clean run less that of the corrupted one."""
        clean, corrupted = self.ends
        return clean - corrupted

    @cached_property
    def resolution(self) -> float:
        """How far rounding of the two runs' logits moves the metric: a smaller gap is none.

        Found by adding rounding errors of the logits' dtype to both runs' logits.
        """
        moved: list[float] = nested(self._noisy if self.by_row else self.rows(self._with_noise))
        return max(abs(moved[i] - self.ends[i % 2]) for i in range(len(moved)))

    @cached_property
    def _noisy(self) -> mx.array:
        return self._lazy(self._with_noise)

    @property
    def _with_noise(self) -> mx.array:
        """Clean and corrupted logits, several times, each with other rounding errors."""
        error = max(mx.finfo(self.clean.dtype).eps / 2, _PASS_ERROR)
        exact = mx.concatenate([self.clean, self.corrupted]).astype(mx.float32)
        signs = _signs(exact.shape[1:])[:, None]
        # A token that the model rules out has minus infinity.
        noisy = mx.where(mx.isfinite(exact), exact * (1 + error * signs), exact)
        return noisy.reshape(-1, *exact.shape[1:])

    @cached_property
    def is_flat_at_clean(self) -> bool:
        """Whether it has no slope at the clean run, as a distance from it, which is least there.

        Found by moving the clean run's logits a little to and fro. Gradients do not show it: a
        norm's is of length 1 as soon as the logits differ by rounding.
        """
        exact = self.clean.astype(mx.float32)
        known = mx.isfinite(exact)
        size = mx.sqrt(mx.var(mx.where(known, exact, 0)))
        moves = _SMALL * size * _signs(exact.shape[1:])
        ways = mx.concatenate([mx.zeros_like(exact), moves, -moves])
        values: list[float] = nested(self.rows(mx.where(known, exact + ways, exact)))
        here, to, fro = values[0], values[1 : 1 + _DRAWS], values[1 + _DRAWS :]
        return all(
            abs(one - other) < _TURNS * abs(one + other - 2 * here)
            for one, other in zip(to, fro, strict=True)
        )

    def check_gap(self) -> None:
        """Refuse two runs that the metric does not tell apart.

        Raises:
            AnalysisError: if their gap is no more than rounding of the logits makes.
        """
        if abs(self.gap) <= self.resolution:
            raise AnalysisError(
                f"metric {self.name!r} finds both runs alike ({self.ends[0]:g} and "
                f"{self.ends[1]:g}): nothing to recover. Both give the same as far as the "
                f"rounding of {self.clean.dtype} logits allows to tell."
            )


def _signs(shape: Sequence[int]) -> mx.array:
    """(draws, *shape) of 1 and -1."""
    drawn = [mx.random.bernoulli(shape=shape, key=mx.random.key(i)) for i in range(_DRAWS)]
    return 1 - 2 * mx.stack(drawn).astype(mx.float32)


def bind(
    model: InterpretableModel,
    metric: MetricLike,
    clean: mx.array,
    corrupted: mx.array,
    options: Mapping[str, Any] | None = None,
    *,
    raw: bool = False,
    later: bool = False,
) -> Measure:
    """Bind a metric to the logits (P, V) of a clean and a corrupted run, and try it once.

    Keywords that end in ``_token`` may be text, such as ``" Paris"``; those that end in
    ``_tokens`` may hold text. Keywords of other registered metrics are left out where the metric
    was given by its name, so that one set of keywords serves several metrics.

    Args:
        model: The model.
        metric: Its name, or a function.
        clean, corrupted: Logits at the positions that `read_positions` names; (V,) for one.
        options: The metric's keywords.
        raw: Of a metric that is a share of the gap between the two runs, the change itself: what
            is averaged over pairs.
        later: Do not wait for the logits where the metric can be differentiated before they are
            there. Reading `Measure.ends` tries it.

    Raises:
        InputError: if it refuses its keywords or gives no finite number, or several of them, or a
            token given as text is several tokens.
        AnalysisError: if the metric says that it is undefined for these two runs.
        PluginError: if there is no metric of that name.
    """
    if wrong := [key for key in options or {} if not isinstance(key, str)]:
        raise InputError(f"the keywords of a metric are texts; got {wrong[0]!r}.")
    found = get_metric(metric)
    named = inspect.signature(function_of(found)).parameters
    name = str(getattr(found, "name", getattr(found, "__name__", repr(found))))
    given = {
        key: _ids(model, value) if key.endswith(("_token", "_tokens")) else value
        for key, value in _used(metric, name, named, options or {}).items()
    }
    is_share = "normalize" in named and bool(given.get("normalize", True))
    if is_share and raw:
        given["normalize"] = False
    measure = Measure(
        name,
        function_of(found),
        clean.reshape(1, -1, clean.shape[-1]),
        corrupted.reshape(1, -1, corrupted.shape[-1]),
        given,
        by_row="per_example" in named,
        is_share=is_share,
    )
    if not (later and measure.by_row):
        _ = measure.ends
    return measure


def function_of(metric: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a registered metric, or the function itself."""
    return metric.fn if isinstance(metric, Metric) else metric


def _used(
    metric: MetricLike,
    name: str,
    named: Mapping[str, inspect.Parameter],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The keywords that a metric takes, of those given for it.

    Raises:
        InputError: for a keyword that neither it nor any other registered metric has.
    """
    if not isinstance(metric, str) or any(p.kind is p.VAR_KEYWORD for p in named.values()):
        return dict(options)
    others = {keyword for each in registry.all("metric") for keyword in _keywords(each.fn)}
    for keyword in options:
        if keyword == "position" and keyword in named:
            raise InputError("give position= to the method itself, not to the metric.")
        if keyword not in named and keyword not in others:
            known = [key for key, p in named.items() if p.kind is p.KEYWORD_ONLY]
            raise InputError(
                f"metric {name!r} has no keyword {keyword!r}. {nearest(keyword, known)}"
            )
    return {key: value for key, value in options.items() if key in named}


@lru_cache(maxsize=256)
def _keywords(fn: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(fn).parameters.items()
    return tuple(name for name, p in parameters if p.kind is p.KEYWORD_ONLY)


def _ids(model: InterpretableModel, value: Any) -> Any:
    """The same value with ids in place of text."""
    if isinstance(value, str):
        return token_id(model, value)
    if isinstance(value, (list, tuple)):
        return [_ids(model, each) for each in value]
    return value


def read_positions(metric: MetricLike, batch: Batch, position: int = -1) -> list[int]:
    """The positions of one prompt whose logits a metric gets, from the front.

    A registered metric that takes ``position`` compares one position and gets that one. Every
    other metric is a function of all logits and gets all of them, up to the position that is
    measured: each at its own place, and that one the last.

    Raises:
        InputError: if the position does not exist.
        PluginError: if there is no metric of that name.
    """
    at = batch.index(0, position)
    found = get_metric(metric)
    if isinstance(found, Metric) and "position" in inspect.signature(found.fn).parameters:
        return [at]
    return list(range(at + 1))


def measure_of(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    metric: MetricLike,
    options: Mapping[str, Any] | None = None,
    position: int = -1,
    *,
    raw: bool = False,
) -> Measure:
    """Run a clean and a corrupted prompt and bind a metric to their logits.

    Raises:
        InputError, PluginError: See `bind`.
        AnalysisError: if both prompts give the same logits at the position.
    """
    at = read_positions(metric, batches[0], position)
    clean, corrupted = (model.run_with_hooks(batch)[0, mx.array(at)] for batch in batches)
    check_apart(batches, position, clean, corrupted, at)
    return bind(model, metric, clean, corrupted, options, raw=raw)


__all__ = [
    "Measure",
    "MetricLike",
    "bind",
    "function_of",
    "measure_of",
    "read_positions",
]
