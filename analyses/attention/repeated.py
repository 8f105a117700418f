"""A prompt of random tokens, repeated: where induction shows, and nothing else can help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxray import InterpretableModel
from mlxray.errors import InputError

#: Tokens of a block where the model's context has room for as many.
BLOCK = 50


@dataclass(frozen=True)
class RepeatedPrompt:
    """Random tokens, several times over.

    Attributes:
        ids: The whole prompt.
        start: Where the first block begins: 1 behind a beginning-of-sequence token, or 0.
        period: Length of a block.
    """

    ids: list[int]
    start: int
    period: int


def repeated_random_tokens(
    model: InterpretableModel,
    n_random_tokens: int | None,
    n_repeats: int,
    seed: int | Sequence[int],
    candidates: Sequence[int] | None = None,
) -> RepeatedPrompt:
    """Draw a block of random tokens and repeat it.

    Special tokens are not drawn. Tokens of a block differ from one another where there are
    enough. The prompt begins with the token that every text of this tokenizer begins with,
    if there is one, since models attend strangely without it.

    Args:
        model: The model.
        n_random_tokens: Tokens of a block; None for `BLOCK`, or as many as the context has room
            for.
        n_repeats: How often it comes.
        seed: Of the drawing; several numbers for a series of prompts.
        candidates: Ids to draw from; `ordinary_tokens` if left out.

    Raises:
        InputError: if the prompt would not fit the model, or a number is too small or none.
    """
    import numpy as np

    first, context = _beginning(model), model.context
    if n_random_tokens is None:
        room = BLOCK if context is None else (context - len(first)) // max(n_repeats, 1)
        n_random_tokens = min(BLOCK, room)
    if n_random_tokens < 2 or n_repeats < 2:
        raise InputError(
            "induction needs a block of at least 2 tokens and at least 2 repeats; got "
            f"n_random_tokens={n_random_tokens}, n_repeats={n_repeats}"
            + (f" in a context of {context}." if context is not None else ".")
        )
    for number in seed if isinstance(seed, Sequence) else [seed]:
        if not hasattr(number, "__index__") or number < 0:
            raise InputError(f"seed is an integer, at least 0; got {number!r}.")
    if context is not None and len(first) + n_random_tokens * n_repeats > context:
        fits = (context - len(first)) // n_repeats
        raise InputError(
            f"{n_repeats} × {n_random_tokens} random tokens do not fit the model's context of "
            f"{context}: pass n_random_tokens={fits} or fewer."
        )
    candidates = ordinary_tokens(model) if candidates is None else candidates
    drawn = np.random.default_rng(seed).choice(
        candidates, n_random_tokens, replace=n_random_tokens > len(candidates)
    )
    return RepeatedPrompt(first + drawn.tolist() * n_repeats, len(first), n_random_tokens)


def _beginning(model: InterpretableModel) -> list[int]:
    bos = model.tokens.bos_id
    if model.tokenizer is None or bos is None:
        return []
    return [bos] if model.encode("a")[0] == bos else []


def ordinary_tokens(model: InterpretableModel) -> list[int]:
    """Ids of the vocabulary that are not special: what the tokenizer names so, or added so.

    Raises:
        InputError: if the size of the vocabulary is unknown.
    """
    sizes = [size for size in (model.tokens.vocabulary, model.vocab_size) if size]
    if not sizes:
        raise InputError("the size of the vocabulary is unknown: wrap the model with a tokenizer.")
    tokenizer = model.tokenizer
    special = set(getattr(tokenizer, "all_special_ids", None) or ())
    special |= {
        getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad", "unk")
    }
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special |= {i for i, token in added.items() if getattr(token, "special", True)}
    return [i for i in range(min(sizes)) if i not in special]
