"""Which tokens end a text: all that a checkpoint names, wherever it names them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import LoadError

#: Files of a checkpoint that may name them; ``tokenizer_config.json`` is the tokenizer's to read.
FILES = ("config.json", "generation_config.json")


def checkpoint_stops(folder: Path) -> list[int]:
    """The ids that a checkpoint's files name as ``eos_token_id``, one or a list in each.

    Raises:
        LoadError: if a file cannot be read, or names something else than ids.
    """
    found: set[int] = set()
    for name in FILES:
        path = folder / name
        if not path.exists():
            continue
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise LoadError(f"{str(path)!r} cannot be read: {error}") from error
        for part in (facts, facts.get("text_config") if isinstance(facts, dict) else None):
            if isinstance(part, dict):
                found |= _ids(part.get("eos_token_id"), path)
    return sorted(found)


def _ids(value: Any, path: Path) -> set[int]:
    if value is None:
        return set()
    several = value if isinstance(value, list) else [value]
    if not all(type(each) is int and each >= 0 for each in several):
        raise LoadError(
            f"{str(path)!r}: eos_token_id is a token id or a list of them; got {value!r}."
        )
    return set(several)


def tokenizer_stops(tokenizer: Any) -> frozenset[int]:
    """The ids that a tokenizer ends a text with: its own token, and those that it was given."""
    several = getattr(tokenizer, "eos_token_ids", None)
    found = [*several] if isinstance(several, Iterable) else [several]
    found.append(getattr(tokenizer, "eos_token_id", None))
    return frozenset(i for i in found if type(i) is int)
