"""Cuts as edits, for runs and generations of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxray import InterpretableModel
from mlxray.checks.arguments import checked
from mlxray.conversation import TurnList

from .cuts import score_address, turn_cut, without
from .ways import check_attention_alone


@checked()
def cut_turns(
    model: InterpretableModel,
    turns: TurnList,
    cut: Sequence[int],
    *,
    layers: Sequence[int] | None = None,
    readers: str = "later",
    content_only: bool = False,
) -> dict[str, Any]:
    """Edits that hide turns from later tokens, for `trace`, `conversation_trace` and `generate`.

    ``model.generate(messages, interventions=cut_turns(model, turns, [0]))``

    Args:
        model: The model.
        turns: Of the conversation; see `detect_turns`.
        cut: Which turns to cut, as a list.
        layers: Layers that lose sight of them; None for all.
        readers, content_only: See `turn_cut`.

    Returns:
        Address → edit of the attention scores, in every one of the layers.

    Raises:
        PointAbsent: if a layer has no attention scores that can be edited.
        InputError: if `cut` or `layers` is no list, empty, or names one twice.
        TurnIndexError: (an IndexError) if there is no such turn.
        AnalysisError: with all layers, if a turn reaches later tokens by other ways.
    """
    if layers is None:
        check_attention_alone(model)
    cuts = [
        turn_cut(turns, index, readers=readers, content_only=content_only)
        for index in turns.indices(cut)
    ]
    edit = without(cuts)
    layout = model.layout
    return {score_address(layout, layer): edit for layer in model.layer_indices(layers)}
