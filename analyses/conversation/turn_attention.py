"""Attention between turns, as a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.conversation.result import ConversationResult


@analysis(result=ConversationResult)
def conversation_attention(
    model: InterpretableModel,
    conversation: Any,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    *,
    keys: str = "sum",
    content_only: bool = False,
) -> ConversationResult:
    """How much each turn of a conversation attends to each.

    Args:
        model: The model, with a tokenizer that has a chat template.
        conversation: Messages, or the path of a JSON file with them.
        layers: Layers to average over; None for all that have attention.
        heads: Heads to average over; None for all.
        keys: "sum": what all tokens of a turn get together. "mean": what one of them gets.
        content_only: Leave the template's tokens out.

    Raises:
        InputError: for a conversation that cannot be run, or whose turns cannot be told apart.
        PointAbsent: if a layer has no attention that can be seen.
    """
    with model.conversation_trace(conversation) as trace:
        return trace.to_result(layers, heads, keys=keys, content_only=content_only)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Attention between turns."""
    return [conversation_attention]
