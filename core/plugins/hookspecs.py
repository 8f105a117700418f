"""What a plugin may provide: the hook specifications, which double as a tutorial.

A plugin is a module or an object with functions marked `hookimpl`. Its package announces it in
the entry-point group ``mlxray``::

    [project.entry-points.mlxray]
    entropy = "mlxray_entropy"

Every hook returns a list, so one plugin may provide several things, and none of them is loaded
before somebody asks a registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ..points.adapter import Adapter, AdapterFinder
    from .kinds import (
        Analysis,
        Attachable,
        Command,
        DictionaryFormat,
        Explainer,
        Metric,
        Visualizer,
    )
    from .result import Result

hookspec = pluggy.HookspecMarker("mlxray")
hookimpl = pluggy.HookimplMarker("mlxray")


@hookspec
def mlxray_adapters() -> list[Adapter | AdapterFinder]:  # type: ignore[empty-body]
    """Families of models, as variations of a base adapter.

    Example::

        @hookimpl
        def mlxray_adapters():
            return [replace(LLAMA, name="my-model", model_types=("my_model",), mlp="ffn")]
    """


@hookspec
def mlxray_analyses() -> list[Analysis[..., Any]]:  # type: ignore[empty-body]
    """Methods: functions of a model, marked `analysis`, that return a result.

    Example::

        @analysis
        def entropy_by_layer(model, text: str) -> TableResult: ...

        @hookimpl
        def mlxray_analyses():
            return [entropy_by_layer]
    """


@hookspec
def mlxray_metrics() -> list[Metric]:  # type: ignore[empty-body]
    """Numbers that say how much of the clean behaviour a patched run has.

    Example::

        @metric()
        def top_token_kept(patched_logits, clean_logits, corrupted_logits) -> float: ...

        @hookimpl
        def mlxray_metrics():
            return [top_token_kept]
    """


@hookspec
def mlxray_visualizers() -> list[Visualizer]:  # type: ignore[empty-body]
    """Pictures of a type of result.

    Example::

        @visualizer(TableResult, backend="matplotlib")
        def bars(result, *, figsize=(8, 4)): ...

        @hookimpl
        def mlxray_visualizers():
            return [bars]
    """


@hookspec
def mlxray_explainers() -> list[Explainer]:  # type: ignore[empty-body]
    """Those who label features: a named callable from examples to a label.

    Example::

        @hookimpl
        def mlxray_explainers():
            return [Explainer("echo", lambda examples: examples[0]["text"])]
    """


@hookspec
def mlxray_dictionary_formats() -> list[DictionaryFormat]:  # type: ignore[empty-body]
    """File formats of sparse dictionaries: who recognises, reads and writes them.

    Example::

        @hookimpl
        def mlxray_dictionary_formats():
            return [DictionaryFormat("mine", recognises=is_mine, load=load_mine)]
    """


@hookspec
def mlxray_attachables() -> list[Attachable]:  # type: ignore[empty-body]
    """What ``model.attach("path")`` and ``--attach`` read, to give points of their own to a model.

    Example::

        @hookimpl
        def mlxray_attachables():
            return [Attachable("subspace", recognises=is_mine, load=load_mine)]
    """


@hookspec
def mlxray_commands() -> list[Command]:  # type: ignore[empty-body]
    """Commands of the command line; each registered analysis has ``mlxray run NAME`` without one.

    Example::

        def load_entropy():
            from .command import entropy  # a function with typer's options
            return entropy

        @hookimpl
        def mlxray_commands():
            return [Command("entropy", load_entropy)]
    """


@hookspec
def mlxray_model_loaded(model: Any) -> None:
    """A model was wrapped. For trackers; what this raises is warned about and goes no further.

    Example::

        @hookimpl
        def mlxray_model_loaded(model):
            tracker.log(layers=len(model.layers))
    """


@hookspec
def mlxray_analysis_finished(result: Result) -> None:
    """An analysis returned. For trackers; what this raises is warned about and goes no further.

    Example::

        @hookimpl
        def mlxray_analysis_finished(result):
            tracker.log(result.summary())
    """
