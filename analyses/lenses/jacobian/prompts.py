"""The prompts that a Jacobian lens is fitted on: cut to one length, those too short left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from mlxray import InterpretableModel
from mlxray.errors import InputError

from ...activations.texts import Texts, documents
from ...prompts import warn_past_context


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids, none too short.

    Attributes:
        rows: Ids of each prompt.
        short: Texts that were left out because they are too short.
    """

    rows: list[list[int]]
    short: int

    def digest(self, first: int) -> str:
        """A hash of the first prompts, so that a fit is continued on the same ones."""
        return sha256(repr(self.rows[:first]).encode()).hexdigest()


def read_prompts(
    model: InterpretableModel,
    texts: Texts,
    *,
    max_prompts: int,
    max_tokens: int,
    skip_first: int,
    field: str,
    split: str,
) -> Prompts:
    """The first `max_prompts` texts that are long enough, cut to `max_tokens`.

    Raises:
        InputError: if none is long enough, or `max_tokens` can hold none that is.
        LoadError: if a file cannot be read.
    """
    least = skip_first + 2
    context = model.tokens.context
    if max_tokens < least:
        raise InputError(
            f"max_tokens={max_tokens} leaves no position: the first {skip_first} and the last one "
            f"are not counted. It is at least {least}."
        )
    if context is not None and max_tokens > context:
        raise InputError(
            f"max_tokens={max_tokens}, but the model has positions for {context} tokens: "
            f"pass max_tokens={context} or fewer."
        )
    warn_past_context(model, max_tokens, f"a prompt (max_tokens={max_tokens})")
    rows: list[list[int]] = []
    short = longest = 0
    for document in documents(texts, field=field, split=split):
        ids = _ids(model, document)[:max_tokens]
        longest = max(longest, len(ids))
        if len(ids) < least:
            short += 1
            continue
        rows.append(ids)
        if len(rows) == max_prompts:
            break
    if not rows:
        why = f"the longest of {short} has {longest}" if short else "there is no text"
        raise InputError(
            f"Too little text: a prompt needs at least {least} tokens, since the first "
            f"{skip_first} and the last one are not counted, and {why}. Give longer texts, or a "
            "smaller skip_first."
        )
    return Prompts(rows, short)


def _ids(model: InterpretableModel, document: str | Sequence[int]) -> list[int]:
    if isinstance(document, str):
        return model.encode(document) if document.strip() else []
    return model.tokens.batch([list(document)]).rows()[0] if len(document) else []
