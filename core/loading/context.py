"""How many positions a model has, or was trained for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlx.nn as nn

#: Names of it in the configurations of mlx-lm's models.
NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "model_max_length")


def context_of(model: nn.Module, table: int | None) -> int | None:
    """The context length of a model: generation ends there, and analyses warn of longer prompts.

    Args:
        model: With mlx-lm's ``args``; a nested ``text_config`` counts.
        table: Rows of its table of learned positions, if it has one: these end, whatever the
            configuration says.

    Returns:
        Tokens, extended as its RoPE scaling says; None if the model does not tell.
    """
    configured = _configured(getattr(model, "args", None))
    return min((n for n in (configured, table) if n is not None), default=None)


def _configured(arguments: Any) -> int | None:
    found = [_get(arguments, name) for name in NAMES]
    context = min((n for n in found if type(n) is int and n > 0), default=None)
    if context is None:
        inner = _get(arguments, "text_config")
        return None if inner is None else _configured(inner)
    scaling = _get(arguments, "rope_scaling") or _get(arguments, "rope_parameters")
    if not isinstance(scaling, Mapping):
        return context
    # One for each kind of layer, or one for all.
    several = [each for each in scaling.values() if isinstance(each, Mapping)] or [scaling]
    return max(extended(context, each) for each in several)


def extended(context: int, scaling: Mapping[str, Any]) -> int:
    """A context length as RoPE scaling extends it.

    The length before scaling stands in the scaling, and then the context that is told may be
    extended already; or it is the context that is told. Other kinds (llama3, longrope) tell the
    whole.
    """
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)):
        return context
    if not 1 < factor < math.inf:
        return context
    if type(before) is int and before > 0:
        return max(context, int(before * factor))
    kind = scaling.get("type") or scaling.get("rope_type")
    return int(context * factor) if kind in ("linear", "dynamic", "yarn") else context


def _get(arguments: Any, name: str) -> Any:
    if isinstance(arguments, Mapping):
        return arguments.get(name)
    return getattr(arguments, name, None)
