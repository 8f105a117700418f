"""Which backend draws attention."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlxray.errors import InputError, PluginError, nearest

from .config import AttentionVisualizationConfig
from .panels import Panels

#: Backend → the package that it needs, in the order in which "auto" tries them.
BACKENDS = {"circuitsviz": "circuitsvis", "plotly": "plotly", "matplotlib": "matplotlib"}


def draw_panels(panels: Panels, config: AttentionVisualizationConfig) -> Any:
    """Draw with the backend that `config` names.

    Returns:
        A matplotlib or plotly figure, or HTML for circuitsviz.

    Raises:
        InputError: if there is no such backend.
        PluginError: if its package is not installed.
    """
    name = _first_installed() if config.backend == "auto" else config.backend
    if name not in BACKENDS:
        raise InputError(f"there is no backend {name!r}. {nearest(str(name), ['auto', *BACKENDS])}")
    _require(name)
    return import_module(f".maps_{name}", __package__).draw(panels, config)


def _first_installed() -> str:
    for name, package in BACKENDS.items():
        try:
            import_module(package)
        except ImportError:
            continue
        return name
    return "matplotlib"


def _require(name: str) -> None:
    package = BACKENDS[name]
    try:
        import_module(package)
    except ImportError as error:
        raise PluginError(
            f"backend {name!r} needs a package that cannot be imported ({error}): "
            f"`pip install {package}`, or choose another backend: "
            + ", ".join(repr(other) for other in BACKENDS if other != name)
            + "."
        ) from error
