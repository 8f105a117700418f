"""Conversations: turns as token spans, and runs of a model on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..generation.chat import Message
from .detect import Dialogue, detect_turns, read_dialogue
from .messages import Messages, read_messages
from .turns import Turn, TurnList

if TYPE_CHECKING:
    from .trace import ConversationTrace as ConversationTrace

__all__ = [
    "ConversationTrace",
    "Dialogue",
    "Message",
    "Messages",
    "Turn",
    "TurnList",
    "detect_turns",
    "read_dialogue",
    "read_messages",
]


def __getattr__(name: str) -> Any:
    # Later: the trace needs much of the kernel, which the model imports before this.
    if name == "ConversationTrace":
        from .trace import ConversationTrace

        return ConversationTrace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
