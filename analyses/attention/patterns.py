"""Attention patterns: what the model's own softmax gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx

from mlxray import Analysis, Command, InterpretableModel, Trace, analysis, hookimpl
from mlxray.arrays import evaluate, truth
from mlxray.checks.arguments import checked
from mlxray.errors import AnalysisError, InputError, PointAbsent
from mlxray.run.run import Run
from mlxray.run.wrapped import WrappedModel
from mlxray.tokens import Batch

from ..prompts import one_prompt
from .attention_result import AttentionResult

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


@analysis(result=AttentionResult)
def attention_patterns(
    model: InterpretableModel, text: Any, layers: Sequence[int] | None = None
) -> AttentionResult:
    """Which tokens each head looks at: the probabilities of the model's own softmax.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        layers: Layers to read; None for all that have attention.

    Returns:
        A mapping: ``result[layer]`` is (H, S, S), query position × key position.

    Raises:
        InputError: for several prompts, or an empty list of layers.
        PointAbsent: if a layer has no attention that can be seen.
        AnalysisError: if a pattern holds NaN.
    """
    batch, tokens = one_prompt(model, text)
    patterns = model.get_attention_patterns(batch, attention_layers(model, layers))
    for layer, pattern in patterns.items():
        if truth(mx.isnan(pattern).any()):
            raise AnalysisError(
                f"the attention pattern of layer {layer} holds NaN: the model's weights, or an "
                "edit, are at fault."
            )
    return AttentionResult(tokens, {layer: pattern[0] for layer, pattern in patterns.items()})


@checked("trace")
def get_attention_patterns(
    trace: Trace, layers: Sequence[int] | None = None
) -> dict[int, np.ndarray[Any, Any]]:
    """Attention patterns of a trace: layer → (B, H, S, S) float32 as numpy arrays.

    All layers together cost one more run, whose output is checked against the trace's.

    Args:
        trace: A completed trace.
        layers: Layers to read; None for all that have attention.

    Raises:
        InputError: if `trace` is no trace, or the list of layers is empty.
        PointAbsent: if a layer has no attention that can be seen.
    """
    import numpy as np

    if not isinstance(trace, Trace):
        kind = type(trace).__name__
        raise InputError(
            f"expected a trace, got {kind}; for a prompt use model.get_attention_patterns(text)."
        )
    wanted = attention_layers(trace.model, layers)
    found = trace.activations.fetch([("pattern", layer) for layer in wanted])
    return {layer: np.array(p) for layer, p in zip(wanted, found, strict=True)}


def attention_layers(model: WrappedModel, layers: Sequence[int] | None) -> list[int]:
    """`layers` checked; None is every layer whose attention can be seen.

    Raises:
        PointAbsent: if there is none, with the reason of the first layer.
    """
    if layers is not None:
        return model.layer_indices(layers)
    statuses = [s for s in model.points() if s.point == "pattern" and s.layer is not None]
    found = [s.layer for s in statuses if s.available and s.layer is not None]
    if not found:
        raise PointAbsent("pattern", statuses[0].detail)
    return found


def reduce_patterns(
    model: InterpretableModel,
    batch: Batch,
    layers: Sequence[int],
    reduce: Callable[[mx.array], dict[str, mx.array]],
) -> dict[int, dict[str, mx.array]]:
    """Numbers of each layer's pattern, from one run and with one pattern in memory at a time.

    Args:
        model: The model.
        batch: The prompts.
        layers: Layers to read.
        reduce: (B, H, S, S) → named arrays, lazy.

    Raises:
        PointAbsent: if a layer has no attention that can be seen.
    """
    run = Run(model.layout, watch=[("pattern", layer) for layer in layers])
    run.execute(batch.ids)
    found = {layer: reduce(run.read(("pattern", layer))) for layer in layers}
    run.forget()
    for numbers in found.values():
        evaluate(numbers)
    return found


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Attention patterns."""
    return [attention_patterns]


def _load_command() -> Callable[..., Any]:
    from .command import attention

    return attention


@hookimpl
def mlxray_commands() -> list[Command]:
    """``mlxray attention``."""
    return [Command("attention", _load_command)]
