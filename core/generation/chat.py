"""Messages as a chat template takes them, and what it says when it does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError

#: One entry of a chat: ``{"role": "user", "content": "Hello"}``.
Message = Mapping[str, Any]

SHOWN = '{"role": "user", "content": "…"}'

#: Types of the parts of a content that are text, in either of OpenAI's forms.
_TEXT_PARTS = ("text", "input_text", "output_text")


def whole_message(index: int, message: Any) -> dict[str, Any]:
    """A message, checked, as a copy that templates understand.

    Content in parts becomes one text, and a tool call's arguments that are JSON in a string, as
    OpenAI sends them, the object that templates go through. Content that a message with
    ``tool_calls`` lacks is empty.

    Raises:
        InputError: if it has no role, or content that is no text; `index` says which one it is.
    """
    if not isinstance(message, Mapping):
        kind = type(message).__name__
        raise InputError(f"message {index} is {kind}; a conversation is a list of {SHOWN}.")
    made = dict(message)
    if isinstance(made.get("content"), (list, tuple)):
        made["content"] = _joined(index, made["content"])
    if made.get("tool_calls"):
        made["tool_calls"] = _calls(made["tool_calls"])
        if made.get("content") is None:
            made["content"] = ""
    for key in ("role", "content"):
        value = made.get(key)
        # A turn may be empty, its role may not.
        if not isinstance(value, str) or (key == "role" and not value):
            raise InputError(f"message {index} has no {key} that is text: write {SHOWN}.")
        check_characters(value, f"the {key} of message {index}")
    return made


def _joined(index: int, parts: Sequence[Any]) -> str:
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind not in _TEXT_PARTS:
            raise InputError(
                f"message {index} has a part of type {kind!r}; only text can be run. Leave it out."
            )
        if not isinstance(text, str):
            raise InputError(
                f'message {index} has a part without text: write {{"type": "text", "text": "…"}}.'
            )
        texts.append(text)
    return "".join(texts)


def _calls(calls: Any) -> Any:
    """Tool calls with their arguments as objects; what is in another form stays as it is."""
    if not isinstance(calls, (list, tuple)):
        return calls
    return [_call(each) if isinstance(each, Mapping) else each for each in calls]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(call)
    if isinstance(made.get("function"), Mapping):
        made["function"] = _call(made["function"])
    arguments = made.get("arguments")
    if isinstance(arguments, str):
        try:
            found = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return made
        if isinstance(found, dict):
            made["arguments"] = found
    return made


def check_characters(text: str, what: str) -> None:
    """See that a text is made of characters.

    Raises:
        InputError: if it holds half of a surrogate pair, which JSON and file names can bring in.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} cannot be encoded: character {error.start} is a lone surrogate, "
            f"{text[error.start]!r}. Replace it."
        ) from error


def template_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of what a template wrote, without further special tokens.

    Raises:
        InputError: if it cannot be encoded, or nothing comes of it.
    """
    check_characters(text, "what the chat template wrote")
    try:
        found = tokenizer.encode(text, add_special_tokens=False)
    except TypeError:  # a tokenizer that adds none
        found = tokenizer.encode(text)
    ids = [int(i) for i in getattr(found, "ids", found)]
    if not ids:
        raise InputError("the tokenizer makes no tokens of this conversation.")
    return ids


def has_template(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    if not callable(getattr(tokenizer, "apply_chat_template", None)):
        return False
    if hasattr(tokenizer, "has_chat_template"):
        return bool(tokenizer.has_chat_template)
    return getattr(tokenizer, "chat_template", True) is not None


def template_error(error: Exception, where: str) -> InputError:
    """Why a chat template made nothing of messages, in the template's own words.

    Args:
        error: What rendering raised.
        where: The messages meant: ``"message 2, of role 'user'"``.
    """
    kinds = {c.__name__ for c in type(error).__mro__ if c.__module__.startswith("jinja2")}
    said = str(error) or type(error).__name__
    if "TemplateSyntaxError" in kinds:
        return InputError(f"the chat template itself is broken, whatever the messages: {said}")
    if "UndefinedError" in kinds:
        return InputError(f"the chat template needs something that {where} lacks: {said}")
    if "SecurityError" in kinds:
        return InputError(f"the chat template does what templates may not do: {said}")
    if "TemplateError" in kinds:
        return InputError(f"the chat template refuses {where}: {said}")
    if isinstance(error, ImportError):
        return InputError(f"chat templates cannot be rendered here: {said}")
    return InputError(f"the chat template fails at {where}: {type(error).__name__}: {said}")
