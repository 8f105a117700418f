"""Features of sparse dictionaries: where they are active, what they write, what they do."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .causal.circuit import feature_circuit as feature_circuit
    from .causal.patching import feature_patching as feature_patching
    from .examples import get_top_texts_for_feature as get_top_texts_for_feature
    from .examples import max_activating_examples as max_activating_examples
    from .histogram import feature_activation_histogram as feature_activation_histogram
    from .logits import feature_logits as feature_logits
    from .text import get_top_features_for_text as get_top_features_for_text

#: Public name → the module that has it; imported when first asked for, so that a result type can
#: be registered without the methods.
_HOMES = {
    "feature_activation_histogram": "histogram",
    "feature_circuit": "causal.circuit",
    "feature_logits": "logits",
    "feature_patching": "causal.patching",
    "get_top_features_for_text": "text",
    "get_top_texts_for_feature": "examples",
    "max_activating_examples": "examples",
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
