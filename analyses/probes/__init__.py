"""Probes and subspaces: what can be read off activations, erased from them, and interchanged."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .alignment.interchange import Interchange as Interchange
    from .alignment.subspace import Subspace as Subspace
    from .alignment_result import AlignmentResult as AlignmentResult
    from .erasure.eraser import Eraser as Eraser
    from .erasure.leace import fit_eraser as fit_eraser
    from .erasure.leace import oracle_erased as oracle_erased
    from .erasure_result import ErasureResult as ErasureResult
    from .linear.probe import LinearProbe as LinearProbe
    from .probe_result import ProbeResult as ProbeResult
    from .training import train_probes as train_probes

#: Public name → the module that has it; imported when first asked for, so that a result type or an
#: eraser can be had without everything else.
_HOMES = {
    "AlignmentResult": "alignment_result",
    "Eraser": "erasure.eraser",
    "ErasureResult": "erasure_result",
    "Interchange": "alignment.interchange",
    "LinearProbe": "linear.probe",
    "ProbeResult": "probe_result",
    "Subspace": "alignment.subspace",
    "fit_eraser": "erasure.leace",
    "oracle_erased": "erasure.leace",
    "train_probes": "training",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
