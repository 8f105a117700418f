"""Which backend draws attention."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlxray.errors import InputError, PluginError, nearest

from .config import AttentionVisualizationConfig
from .panels import Panels

#: Backends, called as the packages that they need, in the order in which "auto" tries them.
BACKENDS = ("circuitsvis", "plotly", "matplotlib")

#: Other spellings that are accepted.
ALIASES = {"circuitsviz": "circuitsvis"}


def draw_panels(panels: Panels, config: AttentionVisualizationConfig) -> Any:
    """Draw with the backend that `config` names.

    Returns:
        A matplotlib or plotly figure, or HTML for circuitsvis.

    Raises:
        InputError: if there is no such backend.
        PluginError: if its package is not installed.
    """
    name = _first_installed() if config.backend == "auto" else config.backend
    name = ALIASES.get(name, name)
    if name not in BACKENDS:
        raise InputError(f"there is no backend {name!r}. {nearest(str(name), ['auto', *BACKENDS])}")
    _require(name)
    return import_module(f".maps_{name}", __package__).draw(panels, config)


def _first_installed() -> str:
    for name in BACKENDS:
        try:
            import_module(name)
        except ImportError:
            continue
        return name
    return "matplotlib"


def _require(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise PluginError(
            f"backend {name!r} needs a package that cannot be imported ({error}): "
            f"`pip install {name}`, or choose another backend: "
            + ", ".join(repr(other) for other in BACKENDS if other != name)
            + "."
        ) from error
