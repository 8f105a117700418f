"""From a prompt of any kind, a chat included, to token ids that the model has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from ..errors import InputError, TokenizerMissing
from ..run.wrapped import WrappedModel
from .chat import Message, has_template, template_error, template_ids, whole_message

Prompt = str | Sequence[int] | mx.array | Sequence[Message]


def prompt_ids(model: WrappedModel, prompt: Prompt) -> list[int]:
    """Token ids of one prompt.

    Args:
        model: The model.
        prompt: Text, ids, an array (S,) or (1, S), or a chat: a list of messages.

    Raises:
        InputError: if it is empty, holds several prompts, is longer than the model's context, or
            is a chat that the template refuses.
        TokenizerMissing: for text without a tokenizer.
    """
    rows = [chat_ids(model, prompt)] if is_chat(prompt) else model.tokens.batch(prompt).rows()
    if len(rows) > 1:
        raise InputError(f"generate() takes one prompt; got {len(rows)}. Use generate_batch().")
    (ids,) = rows
    limit = model.context
    if limit is not None and len(ids) > limit:
        raise InputError(
            f"the prompt has {len(ids)} tokens; this model's context is {limit}. Shorten it."
        )
    return ids


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of messages."""
    return (
        isinstance(prompt, (list, tuple))
        and bool(prompt)
        and any(isinstance(message, Mapping) for message in prompt)
    )


def chat_ids(
    model: WrappedModel, messages: Any, *, add_generation_prompt: bool = True
) -> list[int]:
    """Token ids of a chat as the tokenizer's own template renders it, and of nothing else.

    Args:
        model: The model.
        messages: ``{"role": …, "content": …}``, in order.
        add_generation_prompt: End where the assistant's answer begins.

    Raises:
        InputError: if there is no template, a message is not whole, or the template refuses it.
        TokenizerMissing: without a tokenizer.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise TokenizerMissing
    messages = [whole_message(index, message) for index, message in enumerate(messages)]
    if not has_template(tokenizer):
        raise InputError("this tokenizer has no chat template: give the prompt as text.")
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except Exception as error:
        roles = ", ".join(str(m["role"]) for m in messages)
        raise template_error(error, f"these messages (roles {roles})") from error
    if not text:
        raise InputError("the chat template made an empty prompt of these messages.")
    return model.tokens.batch(template_ids(tokenizer, text)).rows()[0]
