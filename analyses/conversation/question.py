"""What is measured: an answer that follows a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.conversation import Dialogue, read_messages
from mlxray.conversation.dialogue import model_dialogue
from mlxray.errors import InputError
from mlxray.generation.chat import template_ids
from mlxray.loading.stops import tokenizer_stops

#: Most tokens of an answer that the model writes itself.
LONGEST = 20


@dataclass(frozen=True)
class Question:
    """A conversation that ends where the assistant speaks, and what it says.

    Attributes:
        dialogue: The conversation; its tokens end where the answer begins.
        answer: Ids of the answer.
        text: The answer as text.
    """

    dialogue: Dialogue
    answer: tuple[int, ...]
    text: str

    @property
    def ids(self) -> mx.array:
        """(1, S): the conversation and all of the answer but its last token."""
        return mx.array([[*self.dialogue.ids, *self.answer[:-1]]], dtype=mx.int32)

    @property
    def first(self) -> int:
        """The position whose logits give the answer's first token."""
        return len(self.dialogue.ids) - 1

    @property
    def positions(self) -> list[int]:
        """Positions whose logits give the answer's tokens."""
        return list(range(self.first, self.first + len(self.answer)))

    def logprob(self, logits: mx.array) -> mx.array:
        """Log-probability of the whole answer in nats, from logits (n, V) at `positions`; lazy."""
        rows = logits.astype(mx.float32)
        chosen = mx.take_along_axis(rows, mx.array(self.answer)[:, None], axis=-1)[:, 0]
        return mx.sum(chosen - mx.logsumexp(rows, axis=-1))


def pose(model: InterpretableModel, conversation: Any, answer: str | None) -> Question:
    """The question of a conversation.

    Args:
        model: The model.
        conversation: Messages, or the path of a JSON file with them. If the last is the
            assistant's, it is the answer.
        answer: The answer as text; None for the last message, or for what the model would write.

    Raises:
        InputError: if the conversation cannot be run, the answer is given twice or empty, or
            there is no room for it.
    """
    messages = read_messages(conversation)
    if messages[-1]["role"] == "assistant":
        if answer is not None:
            raise InputError(
                "the conversation ends with the assistant's answer: leave out answer=, or that."
            )
        answer = messages.pop()["content"]
        if not messages:
            raise InputError("the conversation is only an answer: give what was said before it.")
    dialogue = model_dialogue(model, messages, add_generation_prompt=True)
    if answer is None:
        ids, text = _own(model, dialogue)
    else:
        ids, text = _given(model, dialogue, answer), answer
    limit, length = model.context, len(dialogue.ids) + len(ids) - 1
    if limit is not None and length > limit:
        raise InputError(
            f"the conversation and its answer have {length} tokens; "
            f"this model's context is {limit}."
        )
    return Question(dialogue, tuple(ids), text)


def _own(model: InterpretableModel, dialogue: Dialogue) -> tuple[list[int], str]:
    written = model.generate(list(dialogue.ids), max_tokens=LONGEST)
    ids = list(written.tokens)
    if written.finish_reason == "stop" and ids[-1] in tokenizer_stops(model.tokenizer):
        ids.pop()
    if not ids:
        raise InputError("the model answers nothing here: give answer=.")
    return ids, written.text


def _given(model: InterpretableModel, dialogue: Dialogue, answer: str) -> list[int]:
    if not isinstance(answer, str) or not answer:
        raise InputError(f"an answer is text of at least one token; got {answer!r}.")
    before = list(dialogue.ids)
    whole = template_ids(model.tokenizer, dialogue.text + answer)
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole[len(before) :]
    # Its first token would join the prompt's last one, which is fixed.
    return template_ids(model.tokenizer, answer)
