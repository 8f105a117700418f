"""Steering: directions from contrasting prompts, added, ablated, and swept over strengths."""

from __future__ import annotations

from .ablation import ablate_direction, ablate_stream, stream_writers
from .build import steering_vector
from .probe import Probe, contrast_probe, only_while
from .vector import SteeringVector
from .weight_edit import WeightEdit
from .weights import orthogonalize_weights

__all__ = [
    "Probe",
    "SteeringVector",
    "WeightEdit",
    "ablate_direction",
    "ablate_stream",
    "contrast_probe",
    "only_while",
    "orthogonalize_weights",
    "steering_vector",
    "stream_writers",
]
