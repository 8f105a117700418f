"""Messages: given as a list, or in a JSON file, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json

#: One entry of a conversation: ``{"role": "user", "content": "Hello"}``.
Message = Mapping[str, Any]
#: Messages, or the path of a JSON file that holds them.
Messages = Sequence[Message] | str | Path

_SHOWN = '{"role": "user", "content": "…"}'


def read_messages(conversation: Messages) -> list[dict[str, Any]]:
    """The messages of a conversation, as copies.

    Args:
        conversation: A list of messages, or the path of a JSON file with such a list (or with an
            object that has it under ``"messages"``).

    Content that a message with ``tool_calls`` lacks is empty.

    Raises:
        InputError: if the file cannot be read, there is no message, or one has no role or content.
    """
    if isinstance(conversation, (str, Path)):
        conversation = _from_file(Path(conversation))
    if isinstance(conversation, Mapping) or not isinstance(conversation, Sequence):
        kind = type(conversation).__name__
        raise InputError(f"a conversation is a list of {_SHOWN}; got {kind}.")
    if not conversation:
        raise InputError("the conversation is empty: give at least one message.")
    return [_checked(index, message) for index, message in enumerate(conversation)]


def _from_file(path: Path) -> Any:
    found = read_json(path.expanduser(), error=InputError)
    return found.get("messages") if isinstance(found, dict) else found


def _checked(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        kind = type(message).__name__
        raise InputError(f"message {index} is {kind}; a conversation is a list of {_SHOWN}.")
    made = dict(message)
    if made.get("tool_calls") and made.get("content") is None:
        made["content"] = ""
    for key in ("role", "content"):
        value = made.get(key)
        # A turn may be empty, its role may not.
        if not isinstance(value, str) or (key == "role" and not value):
            raise InputError(f"message {index} has no {key} that is text: write {_SHOWN}.")
    return made
