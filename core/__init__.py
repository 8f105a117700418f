"""mlxray: look inside language models on MLX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import blas as _blas

# Before mlx.core is first imported, or it would keep the slow BLAS that it carries on Linux.
_blas.preload()

if TYPE_CHECKING:
    from . import interventions as interventions
    from .adapter import Adapter as Adapter
    from .adapter import AdapterFinder as AdapterFinder
    from .adapter import FusedAttention as FusedAttention
    from .adapter import OwnSoftmax as OwnSoftmax
    from .cache import ActivationCache as ActivationCache
    from .errors import MlxrayError as MlxrayError
    from .hookspecs import hookimpl as hookimpl
    from .hookspecs import hookspec as hookspec
    from .model import HookedModel as HookedModel
    from .model import InterpretableModel as InterpretableModel
    from .plugins import Analysis as Analysis
    from .plugins import DictionaryFormat as DictionaryFormat
    from .plugins import Explainer as Explainer
    from .plugins import Metric as Metric
    from .plugins import Visualizer as Visualizer
    from .plugins import analysis as analysis
    from .plugins import metric as metric
    from .plugins import visualizer as visualizer
    from .registries import registry as registry
    from .resolver import ModuleResolver as ModuleResolver
    from .results import AnalysisResult as AnalysisResult
    from .results import TableResult as TableResult
    from .results import TunedLens as TunedLens
    from .trace import Trace as Trace
    from .utilities import batch_get_activations as batch_get_activations
    from .utilities import collect_activations as collect_activations
    from .utilities import get_activations as get_activations

__version__ = "0.1.0"

#: Public name → the module that has it; imported when first asked for.
_HOMES = {
    "ActivationCache": "cache",
    "Adapter": "adapter",
    "AdapterFinder": "adapter",
    "Analysis": "plugins",
    "AnalysisResult": "results",
    "DictionaryFormat": "plugins",
    "Explainer": "plugins",
    "FusedAttention": "adapter",
    "HookedModel": "model",
    "InterpretableModel": "model",
    "Metric": "plugins",
    "MlxrayError": "errors",
    "ModuleResolver": "resolver",
    "OwnSoftmax": "adapter",
    "TableResult": "results",
    "Trace": "trace",
    "TunedLens": "results",
    "Visualizer": "plugins",
    "analysis": "plugins",
    "batch_get_activations": "utilities",
    "collect_activations": "utilities",
    "get_activations": "utilities",
    "hookimpl": "hookspecs",
    "hookspec": "hookspecs",
    "metric": "plugins",
    "registry": "registries",
    "visualizer": "plugins",
}

__all__ = ["__version__", "interventions", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    try:
        if name in _HOMES:
            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        elif name == "interventions":
            value = import_module(".interventions", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    except ImportError as error:
        if (message := _blas.missing_backend_message(error)) is None:
            raise
        raise ImportError(message) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
