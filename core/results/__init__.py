"""Result types: what analyses return and visualizers draw."""

from .ablation import AblationResult
from .attention import AttentionResult
from .attribution import AttributionMapResult, AttributionResult, Certificate
from .base import AnalysisResult, TableResult, plain
from .binding import BindingResult
from .binding_run import BindingMixture, BindingRun
from .circuit import CircuitResult, EdgeScoresResult
from .conversation import ConversationResult, TurnEffectsResult
from .curve import CircuitCurveResult
from .dla import DLAResult
from .generation import GenerationResult
from .heads import DetectedHeadsResult, HeadScore, HeadScoresResult, HeadTypesResult
from .induction import HeadAblation, InductionResult
from .lens import LensResult
from .lens_comparison import LensComparisonResult, Reading
from .patching import PatchingResult
from .path import PathResult
from .steering import SteeringCell, SteeringSweepResult
from .tuned_lens import TunedLens

__all__ = [
    "AblationResult",
    "AnalysisResult",
    "AttentionResult",
    "AttributionMapResult",
    "AttributionResult",
    "BindingMixture",
    "BindingResult",
    "BindingRun",
    "Certificate",
    "CircuitCurveResult",
    "CircuitResult",
    "ConversationResult",
    "DLAResult",
    "DetectedHeadsResult",
    "EdgeScoresResult",
    "GenerationResult",
    "HeadAblation",
    "HeadScore",
    "HeadScoresResult",
    "HeadTypesResult",
    "InductionResult",
    "LensComparisonResult",
    "LensResult",
    "PatchingResult",
    "PathResult",
    "Reading",
    "SteeringCell",
    "SteeringSweepResult",
    "TableResult",
    "TunedLens",
    "TurnEffectsResult",
    "plain",
]
