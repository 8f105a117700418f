"""Result types: what analyses return and visualizers draw."""

from .attention import AttentionResult
from .base import AnalysisResult, TableResult, plain
from .heads import HeadScore, HeadScoresResult
from .lens import LensResult
from .patching import PatchingResult

__all__ = [
    "AnalysisResult",
    "AttentionResult",
    "HeadScore",
    "HeadScoresResult",
    "LensResult",
    "PatchingResult",
    "TableResult",
    "plain",
]
