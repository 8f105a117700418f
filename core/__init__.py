"""mlxray: look inside language models on MLX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import moved as _moved
from .machine import blas as _blas

# Before mlx.core is first imported, or it would keep the slow BLAS that it carries on Linux.
_blas.preload()

_moved.moved(
    {
        f"{__name__}.adapter": f"{__name__}.points.adapter",
        f"{__name__}.blas": f"{__name__}.machine.blas",
        f"{__name__}.hookspecs": f"{__name__}.plugins.hookspecs",
        f"{__name__}.layout": f"{__name__}.points.layout",
        f"{__name__}.proxies": f"{__name__}.run.proxies",
        f"{__name__}.registries": f"{__name__}.plugins.registry",
        f"{__name__}.tail": f"{__name__}.run.tail",
        f"{__name__}.trace": f"{__name__}.run.trace",
    }
)

if TYPE_CHECKING:
    from . import interventions as interventions
    from .errors import MlxrayError as MlxrayError
    from .model import HookedModel as HookedModel
    from .model import InterpretableModel as InterpretableModel
    from .plugins.hookspecs import hookimpl as hookimpl
    from .plugins.hookspecs import hookspec as hookspec
    from .plugins.kinds import Analysis as Analysis
    from .plugins.kinds import Attachable as Attachable
    from .plugins.kinds import Command as Command
    from .plugins.kinds import DictionaryFormat as DictionaryFormat
    from .plugins.kinds import Explainer as Explainer
    from .plugins.kinds import Metric as Metric
    from .plugins.kinds import Visualizer as Visualizer
    from .plugins.kinds import analysis as analysis
    from .plugins.kinds import metric as metric
    from .plugins.kinds import visualizer as visualizer
    from .plugins.registry import registry as registry
    from .points.adapter import Adapter as Adapter
    from .points.adapter import AdapterFinder as AdapterFinder
    from .points.adapter import FusedAttention as FusedAttention
    from .points.adapter import OwnSoftmax as OwnSoftmax
    from .resolver import ModuleResolver as ModuleResolver
    from .results.base import AnalysisResult as AnalysisResult
    from .results.table import TableResult as TableResult
    from .run.cache import ActivationCache as ActivationCache
    from .run.trace import Trace as Trace
    from .utilities import batch_get_activations as batch_get_activations
    from .utilities import collect_activations as collect_activations
    from .utilities import get_activations as get_activations

__version__ = "0.1.0"

#: Public name → the module that has it; imported when first asked for.
_HOMES = {
    "ActivationCache": "run.cache",
    "Adapter": "points.adapter",
    "AdapterFinder": "points.adapter",
    "Analysis": "plugins.kinds",
    "Attachable": "plugins.kinds",
    "AnalysisResult": "results.base",
    "Command": "plugins.kinds",
    "DictionaryFormat": "plugins.kinds",
    "Explainer": "plugins.kinds",
    "FusedAttention": "points.adapter",
    "HookedModel": "model",
    "InterpretableModel": "model",
    "Metric": "plugins.kinds",
    "MlxrayError": "errors",
    "ModuleResolver": "resolver",
    "OwnSoftmax": "points.adapter",
    "TableResult": "results.table",
    "Trace": "run.trace",
    "Visualizer": "plugins.kinds",
    "analysis": "plugins.kinds",
    "batch_get_activations": "utilities",
    "collect_activations": "utilities",
    "get_activations": "utilities",
    "hookimpl": "plugins.hookspecs",
    "hookspec": "plugins.hookspecs",
    "metric": "plugins.kinds",
    "registry": "plugins.registry",
    "visualizer": "plugins.kinds",
}

__all__ = ["__version__", "interventions", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    try:
        if name in _HOMES:
            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        elif name == "interventions":
            value = import_module(".interventions", __name__)
        elif name[:1].isupper():  # the result type of a registered analysis, such as TunedLens
            value = getattr(import_module(".results", __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    except ImportError as error:
        if (message := _blas.missing_backend_message(error)) is None:
            raise
        raise ImportError(message) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names alone: what completion offers."""
    private = {name for name in globals() if name.startswith("_")}
    return sorted({*private, *__all__})
