"""A model without the kernel: what a trace or a hook is compared with."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlxray import InterpretableModel

from .reference import forward

IDS = [3, 5, 7, 2]


def bare(model: InterpretableModel, ids: Any = IDS) -> mx.array:
    """Logits of the model as it is."""
    return model.model(mx.array([ids]))


def edited(model: InterpretableModel, edits: Any, ids: Any = IDS) -> np.ndarray:
    """Logits of the reference, with these edits in it."""
    return forward(model.model, ids, edits)[0]
