"""What token ids stand for as text, whatever made the tokenizer.

Three things go wrong when a tokenizer's own `decode` is taken at its word: a model's head may have
rows that the tokenizer has no token for; a token may hold a part of a character; and a tokenizer
may write spaces as marks that its decoder does not turn back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

#: A byte that stands alone in a SentencePiece vocabulary.
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: How SentencePiece writes a space.
_SPACE = "\u2581"


class Pieces:
    """Text of ids and of single tokens.

    Args:
        tokenizer: Any object with ``decode``; more is used where it has more.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._entry = _entries(tokenizer)
        self._decode = _decoder(tokenizer)

    def known(self, ids: Sequence[int]) -> list[int]:
        """The ids that have a token; all where the tokenizer cannot tell."""
        if self._entry is None:
            return list(ids)
        return [token for token in ids if self._entry(token) is not None]

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included; ids without a token have none."""
        return self.joined(self.known(ids))

    def joined(self, known: Sequence[int]) -> str:
        """The same where every id has a token."""
        return self._decode(list(known)) if known else ""

    def is_byte(self, token: int) -> bool:
        """Whether a token is one byte, which makes text only together with its neighbours."""
        entry = None if self._entry is None else self._entry(token)
        return isinstance(entry, str) and _BYTE.fullmatch(entry) is not None

    def piece(self, token: int) -> str:
        """One token as text, with the space that it carries; parts of characters as ``<0xE6>``."""
        text = self.text([token])
        entry = None if self._entry is None else self._entry(token)
        if entry is None:
            return text
        if isinstance(entry, str) and entry.startswith(_SPACE) and not text.startswith(" "):
            return " " + text
        return _in_bytes(entry) if "\ufffd" in text else text


def _entries(tokenizer: Any) -> Callable[[int], Any] | None:
    """An id's entry in the vocabulary; None without one."""
    for name in ("convert_ids_to_tokens", "id_to_token"):
        own = getattr(tokenizer, name, None)
        if callable(own):
            return partial(_entry, own)
    return None


def _entry(own: Callable[[int], Any], token: int) -> Any:
    try:
        return own(token)
    except (IndexError, KeyError, ValueError, OverflowError):  # how other tokenizers say None
        return None


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None and hasattr(tokenizer, "id_to_token"):
        backend = tokenizer  # of the library `tokenizers`, not wrapped
    if backend is not None:
        before = _state(backend, "pre_tokenizer") + _state(backend, "normalizer")
        after = _state(backend, "decoder")
        if '"ByteLevel"' in before and '"ByteLevel"' not in after:
            return partial(_decode_bytes, backend)
        if _SPACE in before and "Metaspace" not in after and _SPACE not in after:
            return lambda ids: str(tokenizer.decode(ids)).replace(_SPACE, " ")
    options: dict[str, Any] = {}
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        options["clean_up_tokenization_spaces"] = False  # it takes spaces out of the text
    if backend is tokenizer and backend is not None:
        options["skip_special_tokens"] = False
    return lambda ids: str(tokenizer.decode(ids, **options))


def _state(backend: Any, part: str) -> str:
    """A part of a tokenizer as JSON; empty without one."""
    found = getattr(backend, part, None)
    return "" if found is None else bytes(found.__getstate__()).decode()


def _decode_bytes(backend: Any, ids: Sequence[int]) -> str:
    added = backend.get_added_tokens_decoder()
    made = b"".join(
        str(added[token].content).encode() if token in added else _bytes_of(backend, token)
        for token in ids
    )
    return made.decode("utf-8", "replace")


def _bytes_of(backend: Any, token: int) -> bytes:
    entry = str(backend.id_to_token(token))
    return _from_letters(entry) or entry.encode()


@cache
def _letters() -> dict[str, int]:
    """The letter that byte-level vocabularies write for each byte, as GPT-2 introduced it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _from_letters(entry: str) -> bytes | None:
    letters = _letters()
    found = [letters.get(letter, -1) for letter in entry]
    return None if -1 in found else bytes(found)


def _in_bytes(entry: Any) -> str:
    """A vocabulary's entry that is no whole text: characters, and bytes of others."""
    known = entry if isinstance(entry, bytes) else _from_letters(entry)
    if known is None or (isinstance(entry, str) and _BYTE.fullmatch(entry)):
        return str(entry)
    # Python keeps each byte that is no text as a lone surrogate.
    text = known.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)
