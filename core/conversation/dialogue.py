"""A conversation as one model receives it."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..run.wrapped import WrappedModel
from .detect import Dialogue, read_dialogue
from .messages import Messages


def model_dialogue(
    model: WrappedModel, conversation: Messages, *, add_generation_prompt: bool = False
) -> Dialogue:
    """A conversation as tokens that the model has room for; see `read_dialogue`.

    Raises:
        InputError: also if it is longer than the model's context.
    """
    dialogue = read_dialogue(
        model.tokenizer, conversation, add_generation_prompt=add_generation_prompt
    )
    count, limit = len(dialogue.ids), model.context
    if limit is not None and count > limit:
        raise InputError(
            f"the conversation has {count} tokens; this model's context is {limit}. Shorten it."
        )
    model.tokens.batch(list(dialogue.ids))
    return dialogue


def describe(dialogue: Dialogue) -> list[dict[str, Any]]:
    """The turns of a conversation as plain data."""
    return [
        {
            "index": turn.index,
            "role": turn.role,
            "content": dialogue.messages[turn.index]["content"],
            "full_start": turn.full_start,
            "full_end": turn.full_end,
            "content_start": turn.content_start,
            "content_end": turn.content_end,
        }
        for turn in dialogue.turns
    ]
