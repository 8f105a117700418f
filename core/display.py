"""Tokens and other foreign text as people may see them: in terminals, tables and pictures.

A vocabulary holds whatever its training text held: spaces, line breaks, terminal escape
sequences, marks that turn the reading direction round. Shown as they are, they mislead or take
over the terminal. What is returned here has one line and no invisible character; markup (HTML,
Markdown, rich, mathtext) is for the one who writes it to escape.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

SPACE = "␣"
EMPTY = "∅"
ELLIPSIS = "…"

#: White space that is common enough to have a mark of its own; fonts lack one for the return.
_MARKS = {" ": SPACE, "\n": "⏎", "\r": "\\r", "\t": "⇥"}
_TAKEN = frozenset((*_MARKS.values(), EMPTY))
#: Characters that Unicode counts as printable, and that leave no ink.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
#: Zero-width joiner and non-joiner: part of emoji and of Persian words.
_JOINERS = "\u200c\u200d"
#: What a combining mark needs to stand on where no letter comes before it.
_GROUND = "◌"
#: A character may bring marks that take no cell; a text must not be made of them alone.
_CHARACTERS_PER_CELL = 4


def show_token(text: str, width: int | None = None) -> str:
    r"""A token with every space and control character visible.

    Args:
        text: The token's text.
        width: Most terminal cells that it may take (wide characters take two); None for no limit.

    Returns:
        One line; a token that holds a mark itself (``␣``, ``⏎``, …) shows its code instead.

    >>> show_token(" the")
    '␣the'
    >>> print(show_token("[red]" + chr(27) + "[31m"))
    [red]\x1b[31m
    """
    shown, letter = [], False
    clipped = _clip(text, width)
    for index, character in enumerate(clipped):
        mark = _MARKS.get(character)
        if not letter and unicodedata.category(character).startswith("M"):
            shown.append(_GROUND)
        if mark is None:
            mark = _code(character) if character in _TAKEN else _visible(clipped, index)
        letter = character not in _MARKS
        shown.append(mark)
    return fit("".join(shown) or EMPTY, width)


def show_text(text: str, width: int | None = None) -> str:
    """Text on one line: spaces at its ends, line breaks and control characters are visible.

    Args:
        text: Any text; what is not a string is turned into one by the caller.
        width: As in `show_token`.

    >>> show_text("two words ")
    'two words␣'
    """
    clipped = _clip(text, width)
    inner = clipped.strip(" ")
    before = clipped.find(inner) if inner else len(clipped)
    after = len(clipped) - before - len(inner)
    ground = _GROUND if inner and unicodedata.category(inner[0]).startswith("M") else ""
    marks = (" " if c == " " else _MARKS.get(c) or _visible(inner, i) for i, c in enumerate(inner))
    shown = "".join(marks)
    return fit(SPACE * before + ground + shown + SPACE * after, width)


def show_lines(text: str) -> str:
    """Text of several lines, kept as it is but for control characters."""
    return "".join(c if c == "\n" else _visible(text, i) for i, c in enumerate(text))


def counted(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "layer"), counted(2, "layer")
    ('1 layer', '2 layers')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def fit(text: str, width: int | None) -> str:
    """`text` cut to at most `width` terminal cells, with an ellipsis where something is cut."""
    from rich.cells import cell_len

    if width is None or (cell_len(text) <= width and len(text) <= width * _CHARACTERS_PER_CELL):
        return text
    kept = ""
    for character in text[: width * _CHARACTERS_PER_CELL]:
        if cell_len(kept + character + ELLIPSIS) > width:
            break
        kept += character
    return kept + ELLIPSIS if width > 0 else ""


def _clip(text: str, width: int | None) -> str:
    """Enough of a text to fill `width`, so that a long one costs no more than a short one."""
    return text if width is None else text[: width * _CHARACTERS_PER_CELL + 1]


def _visible(text: str, index: int) -> str:
    """A character of a text, or its code if nobody would see it."""
    character = text[index]
    # Joiners show in what they join, which is no script in ASCII.
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    if character in _JOINERS and len(around) == 2 and not any(c.isascii() for c in around):
        return character
    if character == " " or (character.isprintable() and character not in _BLANK):
        return character
    return _code(character)


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def layer_ranges(layers: Iterable[int]) -> str:
    """Layers for people: ``0-3, 5``."""
    ranges: list[list[int]] = []
    for layer in sorted(layers):
        if ranges and layer == ranges[-1][1] + 1:
            ranges[-1][1] = layer
        else:
            ranges.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
