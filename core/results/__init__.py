"""Result types: what analyses return and visualizers draw."""

from .attention import AttentionResult
from .attribution import AttributionMapResult, AttributionResult, Certificate
from .base import AnalysisResult, TableResult, plain
from .circuit import CircuitResult, EdgeScoresResult
from .heads import HeadScore, HeadScoresResult
from .lens import LensResult
from .patching import PatchingResult
from .path import PathResult
from .tuned_lens import TunedLens

__all__ = [
    "AnalysisResult",
    "AttentionResult",
    "AttributionMapResult",
    "AttributionResult",
    "Certificate",
    "CircuitResult",
    "EdgeScoresResult",
    "HeadScore",
    "HeadScoresResult",
    "LensResult",
    "PatchingResult",
    "PathResult",
    "TableResult",
    "TunedLens",
    "plain",
]
