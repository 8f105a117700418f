"""Binding prompts as tokens: one token per word, prompts that align, and answers that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxray import InterpretableModel
from mlxray.errors import InputError

from .pairs import Pair
from .schemas import BindingSchema


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids.

    Attributes:
        pair: The prompts as text.
        base, counterfactual, control: Token ids, equal in number.
        candidates: Token of each possible answer, by group.
        absent: Token of the control's own answer.
    """

    pair: Pair
    base: list[int]
    counterfactual: list[int]
    control: list[int]
    candidates: list[int]
    absent: int


def usable_words(model: InterpretableModel, schema: BindingSchema) -> dict[str, tuple[str, ...]]:
    """Role → those of its words that are one token of this model behind a space.

    Of the role that a prompt begins with, words that are not one token there too are left out.
    """
    first = next((r for r in schema.words if schema.fact.startswith(f"{{{r}}}")), None)
    found = {}
    for role, words in schema.words.items():
        kept = [word for word in dict.fromkeys(words) if _is_token(model, word)]
        if role == first and not schema.prefix:
            kept = [word for word in kept if len(_without_bos(model, word)) == 1]
        found[role] = tuple(kept)
    return found


def _is_token(model: InterpretableModel, word: str) -> bool:
    return bool(word.strip()) and len(model.tokens.continuation(f" {word}")) == 1


def _without_bos(model: InterpretableModel, text: str) -> list[int]:
    ids = model.encode(text)
    return ids[1:] if ids[0] == model.tokens.bos_id else ids


def encode_pairs(model: InterpretableModel, pairs: Sequence[Pair]) -> list[EncodedPair]:
    """Pairs as token ids, checked.

    Raises:
        InputError: if a prompt is longer than the model's context, if the prompts of a pair differ
            in length, if an answer is not one token behind its prompt, or if two words are the
            same token.
    """
    limit = model.context
    found = []
    for pair in pairs:
        prompts = (pair.base, pair.counterfactual, pair.control)
        ids = [model.encode(prompt) for prompt in prompts]
        longest = max(map(len, ids))
        if limit is not None and longest > limit:
            raise InputError(
                f"a prompt with {len(pair.candidates)} groups has {longest} tokens; this model "
                f"takes {limit}. Pass fewer entities."
            )
        if len({len(row) for row in ids}) > 1:
            raise InputError(
                "prompts of one pair differ in length, so their positions do not correspond: "
                f"{[len(row) for row in ids]} tokens in {list(prompts)}."
            )
        candidates = [_answer(model, pair.base, ids[0], word) for word in pair.candidates]
        absent = _answer(model, pair.control, ids[2], pair.absent)
        if len({*candidates, absent}) <= len(candidates):
            raise InputError(f"two of the words {[*pair.candidates, pair.absent]} are one token.")
        found.append(EncodedPair(pair, ids[0], ids[1], ids[2], candidates, absent))
    return found


def _answer(model: InterpretableModel, prompt: str, ids: list[int], word: str) -> int:
    whole = model.encode(f"{prompt} {word}")
    if whole[: len(ids)] != ids or len(whole) != len(ids) + 1:
        rest = whole[len(ids) :] if whole[: len(ids)] == ids else whole
        raise InputError(
            f"the answer {word!r} is {len(rest)} tokens behind its prompt "
            f"({[model.token_to_str(i) for i in rest]}); answers are one token. Give the schema "
            "words that this model has as tokens."
        )
    return whole[-1]
