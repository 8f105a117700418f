"""Result types: what analyses return and visualizers draw."""

from .attention import AttentionResult
from .attribution import AttributionMapResult, AttributionResult, Certificate
from .base import AnalysisResult, TableResult, plain
from .circuit import CircuitResult, EdgeScoresResult
from .curve import CircuitCurveResult
from .dla import DLAResult
from .generation import GenerationResult
from .heads import DetectedHeadsResult, HeadScore, HeadScoresResult, HeadTypesResult
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
    "CircuitCurveResult",
    "CircuitResult",
    "DLAResult",
    "DetectedHeadsResult",
    "EdgeScoresResult",
    "GenerationResult",
    "HeadScore",
    "HeadScoresResult",
    "HeadTypesResult",
    "LensResult",
    "PatchingResult",
    "PathResult",
    "TableResult",
    "TunedLens",
    "plain",
]
