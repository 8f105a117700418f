"""Attention: patterns, scores and kinds of heads.

The reference's ``visualization`` module is this one and `mlxray.visualizers`: what computes is
here, what draws is there.
"""

from __future__ import annotations

from .circuits import ov_circuit
from .copying import copying_scores
from .detectors import AttentionPatternDetector, detect_head_types, detect_induction_heads
from .heads import head_scores
from .heads_result import HeadScore
from .patterns import attention_patterns, get_attention_patterns
from .scores import (
    copying_score,
    current_token_score,
    first_token_score,
    induction_score,
    previous_token_score,
)

__all__ = [
    "AttentionPatternDetector",
    "HeadScore",
    "attention_patterns",
    "copying_score",
    "copying_scores",
    "current_token_score",
    "detect_head_types",
    "detect_induction_heads",
    "first_token_score",
    "get_attention_patterns",
    "head_scores",
    "induction_score",
    "ov_circuit",
    "previous_token_score",
]
