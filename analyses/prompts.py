"""What analyses of one prompt begin with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.tokens import Batch


def one_prompt(model: InterpretableModel, inputs: Any) -> tuple[Batch, list[str]]:
    """The prompt's tokens, as ids and as text.

    Args:
        model: The model.
        inputs: Text, token ids, or an array (S,) or (1, S).

    Raises:
        InputError: if there are several prompts, or they cannot be run.
    """
    batch = model.tokens.batch(inputs)
    if len(batch.lengths) != 1:
        raise InputError(
            f"this analysis reads one prompt and got {len(batch.lengths)}; call it once for each."
        )
    warn_past_context(model, batch.lengths[0])
    return batch, token_texts(model, batch.rows()[0])


def warn_past_context(model: InterpretableModel, tokens: int, what: str = "the prompt") -> None:
    """Warn of a prompt longer than what the model was trained for.

    Not refused: with rotary positions it can be run, and what becomes of it may be the question.
    """
    limit = model.context
    if limit is not None and tokens > limit:
        warnings.warn(
            f"{what} has {tokens} tokens; this model's context is {limit}. What it does with "
            "more may mean nothing.",
            stacklevel=3,
        )


def token_texts(model: InterpretableModel, ids: Sequence[int]) -> list[str]:
    """Token ids as text; without a tokenizer, the ids themselves: ``"#17"``."""
    if model.tokenizer is None:
        return [f"#{i}" for i in ids]
    return [model.token_to_str(i) for i in ids]
