"""Features of sparse dictionaries: where they are active, what they write, what they do."""

from __future__ import annotations

from .causal.circuit import feature_circuit
from .causal.patching import feature_patching
from .examples import get_top_texts_for_feature, max_activating_examples
from .histogram import feature_activation_histogram
from .logits import feature_logits
from .text import get_top_features_for_text

__all__ = [
    "feature_activation_histogram",
    "feature_circuit",
    "feature_logits",
    "feature_patching",
    "get_top_features_for_text",
    "get_top_texts_for_feature",
    "max_activating_examples",
]
