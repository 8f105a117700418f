"""Messages: given as a list, or in a JSON file, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..generation.chat import SHOWN, Message, whole_message
from ..storage.files import read_json

#: Messages, or the path of a JSON file that holds them.
Messages = Sequence[Message] | str | Path


def read_messages(conversation: Messages) -> list[dict[str, Any]]:
    """The messages of a conversation, as copies.

    Args:
        conversation: A list of messages, or the path of a JSON file with such a list (or with an
            object that has it under ``"messages"``).

    Each is made whole by `whole_message`: content in parts becomes one text, and so on.

    Raises:
        InputError: if the file cannot be read, there is no message, or one has no role or content.
    """
    if isinstance(conversation, (str, Path)):
        conversation = _from_file(Path(conversation))
    if isinstance(conversation, Mapping) or not isinstance(conversation, Sequence):
        kind = type(conversation).__name__
        raise InputError(f"a conversation is a list of {SHOWN}; got {kind}.")
    if not conversation:
        raise InputError("the conversation is empty: give at least one message.")
    return [whole_message(index, message) for index, message in enumerate(conversation)]


def _from_file(path: Path) -> Any:
    found = read_json(path.expanduser(), error=InputError)
    return found.get("messages") if isinstance(found, dict) else found
