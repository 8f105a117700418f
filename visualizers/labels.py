"""How a token is written on a picture. Vocabularies hold everything: one place deals with it."""

from __future__ import annotations

import html
import unicodedata

_VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "\\r"}
#: Zero-width joiner and non-joiner: part of emoji and of Persian words, invisible at an edge.
_JOINERS = "\u200c\u200d"
#: Categories that draw nothing, or reorder or break what stands around them.
_ESCAPED = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}


def token_label(text: str, width: int | None = None) -> str:
    r"""A token as one visible, unambiguous line.

    Spaces show as ``␣``, line breaks as ``⏎``, tabs as ``⇥``; what draws nothing, controls the
    terminal or turns the writing direction shows as an escape (``\x1b``, ``\u202e``); a combining
    mark at the start stands on ``◌``; the empty token is ``∅``.

    Args:
        text: The token.
        width: Columns at most (East Asian wide characters take two); the rest becomes ``…``.

    >>> token_label(" Paris\n")
    '␣Paris⏎'
    """
    if not text:
        return "∅"
    last = len(text) - 1
    label = "".join(_character(c, inside=0 < i < last) for i, c in enumerate(text))
    if unicodedata.category(label[0]).startswith("M"):
        label = "◌" + label
    return label if width is None else clip(label, width)


def text_label(text: str, width: int | None = None) -> str:
    """Text that need not be a token as one line: as `token_label`, but inner spaces stay."""
    inner = text.strip(" ")
    if not inner:
        return token_label(text, width)
    start = len(text) - len(text.lstrip(" "))
    words = " ".join(token_label(word) if word else "" for word in inner.split(" "))
    label = "␣" * start + words + "␣" * (len(text) - start - len(inner))
    return label if width is None else clip(label, width)


def clip(label: str, width: int) -> str:
    """The start of `label` that fits into `width` columns, with ``…`` where something is cut."""
    longest = 4 * width  # marks that pile up on one letter take no columns
    if columns(label) <= width and len(label) <= longest:
        return label
    room, kept = width - 1, ""
    for character in label[:longest]:
        room -= columns(character)
        if room < 0:
            break
        kept += character
    return kept + "…"


def columns(label: str) -> int:
    """Columns that `label` takes in a font of even widths."""
    return sum(
        0
        if unicodedata.combining(c) or c in _JOINERS
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in label
    )


def plotly_text(text: str) -> str:
    """Plain text for plotly, which reads tags, entities and TeX in every label."""
    escaped = html.escape(isolate(text), quote=False)
    return escaped.replace("$", "&#36;").replace("\n", "<br>")


def html_text(text: str) -> str:
    """Plain text for an HTML page."""
    return html.escape(isolate(text), quote=True)


def isolate(text: str) -> str:
    """Keep right-to-left text from reordering what stands beside it."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text


def _character(character: str, *, inside: bool) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    if character in _JOINERS and inside:
        return character
    if unicodedata.category(character) not in _ESCAPED:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
