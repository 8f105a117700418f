"""The Jacobian lens: a layer's stream, carried on to the last layer by the mean Jacobian."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .concept_edit_result import ConceptEditResult as ConceptEditResult
    from .directions import direction as direction
    from .edits import steering as steering
    from .edits import swapping as swapping
    from .fit import estimate_jacobian_lens as estimate_jacobian_lens
    from .jacobian_lens_result import JacobianLens as JacobianLens
    from .jacobian_lens_result import merged as merged

#: Public name → the module that has it; imported when first asked for.
_HOMES = {
    "ConceptEditResult": "concept_edit_result",
    "JacobianLens": "jacobian_lens_result",
    "direction": "directions",
    "estimate_jacobian_lens": "fit",
    "merged": "jacobian_lens_result",
    "steering": "edits",
    "swapping": "edits",
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
