"""What registers (analyses, metrics, visualizers, …) and the decorators that make it."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..arrays import arrays_of, evaluate
from ..checks.annotations import shown
from ..checks.arguments import Arguments
from ..errors import InputError, PluginError
from ..points.dropout import refuse_dropout
from ..points.layout import Layout
from .result import Result

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


class Analysis(Generic[P, R]):
    """A method, ready to register; calling it runs it and notes how it was called.

    A model with dropout in training mode is refused, and what the result holds is evaluated.

    Attributes:
        name: As in ``model.NAME(…)`` and ``mlxray run NAME``.
        fn: The function; its first parameter is the model.
        result: Type of what it returns.
        method_defaults: Defaults of ``model.NAME(…)`` that differ from those of the function.
    """

    fn: Callable[P, R]
    name: str
    result: type[Result]

    def __init__(
        self,
        fn: Callable[P, R],
        name: str,
        result: type[Result],
        method_defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.fn = fn
        self.name = name
        self.result = result
        self.method_defaults = dict(method_defaults or {})
        self.arguments = Arguments(fn)
        self.signature = self.arguments.signature
        functools.update_wrapper(self, fn)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.fn) or "").partition("\n")[0]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        bound = self.arguments.bind(*args, **kwargs)
        self._need_model(*bound.args[:1])
        model = next(iter(bound.arguments.values()), None)
        if isinstance(layout := getattr(model, "layout", None), Layout):
            refuse_dropout(layout)
        started = time.perf_counter()
        result = self.fn(*bound.args, **bound.kwargs)
        if not isinstance(result, Result):
            raise TypeError(
                f"analysis {self.name!r} returned {type(result).__name__}; "
                "an analysis returns an AnalysisResult."
            )
        bound.apply_defaults()
        given = list(bound.arguments.items())[1:]
        result.metadata.setdefault("analysis", self.name)
        if isinstance(name := getattr(next(iter(bound.arguments.values())), "name", None), str):
            result.metadata.setdefault("model", name)
        if isinstance(source := getattr(model, "loaded_from", None), str):
            result.metadata.setdefault("loaded_from", source)
        result.metadata.setdefault("parameters", dict(given))
        result.metadata.setdefault("seconds", time.perf_counter() - started)
        from .registry import registry

        # A lazy array belongs to this thread, and keeps alive what it would be computed from.
        plain: frozenset[str] = getattr(result, "plain_fields", frozenset())
        evaluate(arrays_of({k: v for k, v in vars(result).items() if k not in plain}))
        registry.notify("mlxray_analysis_finished", result=result)
        return result

    def of(self, model: Any) -> Callable[..., R]:
        """The analysis as a method of a model, with the defaults that it has as one."""
        defaults = self.method_defaults

        @functools.wraps(self.fn)
        def method(*args: Any, **kwargs: Any) -> R:
            if not defaults:
                return self(model, *args, **kwargs)
            given = self.signature.bind_partial(model, *args, **kwargs).arguments
            missing = {k: v for k, v in defaults.items() if k not in given}
            return self(model, *args, **kwargs, **missing)

        # Without this the function's own would be found, which takes the model.
        del method.__wrapped__
        method.__signature__ = self._method_signature  # type: ignore[attr-defined]
        return method

    @functools.cached_property
    def _method_signature(self) -> inspect.Signature:
        parameters = [
            p.replace(default=self.method_defaults.get(p.name, p.default))
            for p in list(self.signature.parameters.values())[1:]
        ]
        return self.signature.replace(parameters=parameters)

    def _need_model(self, model: Any = None) -> None:
        if not hasattr(model, "layout"):
            raise InputError(
                f"{self.name} takes an InterpretableModel first; got {shown(model)}. "
                f"Write InterpretableModel(…).{self.name}(…)."
            )

    def __repr__(self) -> str:
        return f"<analysis {self.name}{self.signature}>"


@overload
def analysis(fn: Callable[P, R], /) -> Analysis[P, R]: ...


@overload
def analysis(
    *,
    name: str | None = None,
    result: type[Result] = Result,
    method_defaults: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], Analysis[P, R]]: ...


def analysis(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    result: type[Result] = Result,
    method_defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Mark a function of a model as an analysis.

    Args:
        name: Registered name; the function's own if left out.
        result: Type of the result, so that pictures can be offered before it runs.
        method_defaults: Defaults of ``model.NAME(…)`` where they differ from the function's.
    """

    def mark(function: Callable[..., Any]) -> Analysis[..., Any]:
        return Analysis(function, name or function.__name__, result, method_defaults)

    return mark(fn) if fn is not None else mark


@dataclass(frozen=True)
class Metric:
    """A number of a patched run, registered under a name and other spellings of it.

    Called as ``metric(patched_logits, clean_logits, corrupted_logits, **its own keywords)``.
    """

    name: str
    fn: Callable[..., Any]
    aliases: tuple[str, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def metric(
    *, name: str | None = None, aliases: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Metric]:
    """Mark a function of three arrays of logits as a metric."""

    def mark(fn: Callable[..., Any]) -> Metric:
        return Metric(name or fn.__name__, fn, aliases)

    return mark


@dataclass(frozen=True)
class Visualizer:
    """A picture of one type of result.

    Attributes:
        name: Unique in the registry.
        result: Type that it draws (and its subclasses, unless they have their own).
        backend: ``"matplotlib"``, ``"plotly"``, ``"html"``, ``"terminal"``, …
        fn: ``fn(result, **options)`` → a figure of the backend: HTML text for ``"html"``; for
            ``"terminal"`` what rich can print, in lines of at most the option ``width``.
    """

    name: str
    result: type[Result]
    backend: str
    fn: Callable[..., Any]

    def __call__(self, result: Result, **options: Any) -> Any:
        try:
            inspect.signature(self.fn).bind(result, **options)
        except TypeError as error:
            known = [*inspect.signature(self.fn).parameters][1:]
            raise TypeError(f"{self.name}: {error}. Options: {', '.join(known)}.") from None
        try:
            drawn = self.fn(result, **options)
        except (SystemExit, GeneratorExit) as error:
            raise PluginError(f"visualizer {self.name!r} ended with {error!r}.") from error
        if drawn is None:
            raise PluginError(f"visualizer {self.name!r} returned None, not what it drew.")
        return drawn


def visualizer(
    result: type[Result], *, backend: str = "matplotlib", name: str | None = None
) -> Callable[[Callable[..., Any]], Visualizer]:
    """Mark a function of a result as its picture."""

    def mark(fn: Callable[..., Any]) -> Visualizer:
        return Visualizer(name or fn.__name__, result, backend, fn)

    return mark


@dataclass(frozen=True)
class Command:
    """A command of its own on the command line: ``mlxray NAME``.

    Attributes:
        name: The word on the command line.
        load: Returns the function that typer makes the command from, so that typer and what the
            command needs are imported when the command is asked for.
    """

    name: str
    load: Callable[[], Callable[..., Any]]


@dataclass(frozen=True)
class Explainer:
    """Who labels features: ``explain(examples)`` → a short description."""

    name: str
    explain: Callable[..., Any]


@dataclass(frozen=True)
class DictionaryFormat:
    """A file format of sparse dictionaries.

    Attributes:
        name: As in ``load_dictionary(…, format=NAME)``.
        recognises: Whether a folder, or a file, is one dictionary of this format.
        load: Reads what `recognises` recognised; raises LoadError where it cannot be read.
        files: Patterns of the names in a dictionary's folder. By the first one a dictionary is
            found on the hub (a pattern with ``*``: each such file is one, which the others stand
            beside), and nothing but these files is fetched from there.
        save: Writes a dictionary into a folder that exists; None if the format is only read.
    """

    name: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path], Any]
    files: tuple[str, ...] = ()
    save: Callable[[Any, Path], None] | None = None


@dataclass(frozen=True)
class Attachable:
    """What can be attached to a model by the name of a file: ``model.attach("folder")``.

    Attributes:
        name: What it is, such as ``"dictionary"``.
        recognises: Whether a path, or a hub id, may be one; asked where several are registered.
        load: A path or hub id → an object with ``derived_points()``; raises LoadError where it
            cannot be read.
    """

    name: str
    recognises: Callable[[str], bool]
    load: Callable[[str], Any]
