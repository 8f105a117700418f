"""Fonts that have the glyphs: matplotlib draws boxes, and a warning each, for those it lacks."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlxray.errors import nearest

_BOX = "□"
#: Tried first, since each covers many scripts in one plain style.
_WIDE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Hiragino Sans",
    "PingFang SC",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Noto Sans",
    "Noto Emoji",
    "Noto Sans Symbols",
    "Noto Sans Symbols 2",
)


@dataclass(frozen=True)
class Typeface:
    """The fonts for the texts of one picture.

    Attributes:
        families: For matplotlib, which takes each glyph from the first that has it.
        missing: Characters that none of them has.
    """

    families: tuple[str, ...]
    missing: frozenset[str]

    def text(self, label: str) -> str:
        """`label` with a box for each character that cannot be drawn."""
        return "".join(self._glyph(c) for c in label) if self.missing else label

    def _glyph(self, character: str) -> str:
        if character not in self.missing:
            return character
        return "" if unicodedata.category(character) in ("Mn", "Me", "Cf") else _BOX

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of a matplotlib text: these fonts, and nothing read as TeX."""
        return {"fontfamily": list(self.families), "parse_math": False, "usetex": False}


def typeface(labels: Iterable[str], font_family: str | None = None) -> Typeface:
    """The fonts for `labels`: matplotlib's own, and installed ones for what it lacks.

    Args:
        labels: All texts of the picture that come from a vocabulary or a user.
        font_family: Put first. One that is not installed is warned about and left out.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    families = list(matplotlib.rcParams["font.family"])
    if font_family is not None:
        installed = {entry.name for entry in fontManager.ttflist}
        generic = ("serif", "sans-serif", "cursive", "fantasy", "monospace")
        if font_family in installed or font_family in generic:
            families.insert(0, font_family)
        else:
            warnings.warn(
                f"font {font_family!r} is not installed; drawing without it. "
                f"{nearest(font_family, installed)}",
                stacklevel=2,
            )
    found = _cover(tuple(families), frozenset("".join(labels)) - {"\n"})
    if found.missing:
        some = " ".join(sorted(found.missing)[:8])
        warnings.warn(
            f"no installed font draws {len(found.missing)} of the characters ({some}); they show "
            "as □. Install a font that has them (Noto Sans CJK, Noto Emoji), or use "
            'backend="plotly", where the browser chooses.',
            stacklevel=2,
        )
    return found


@lru_cache(maxsize=64)
def _cover(families: tuple[str, ...], characters: frozenset[str]) -> Typeface:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    missing = set(characters)
    for family in families:
        missing -= _drawn(findfont(FontProperties(family=[family])), missing)
    if not missing:
        return Typeface(families, frozenset())
    chosen = list(families)
    plain = [e for e in fontManager.ttflist if e.style == "normal" and _usable(e.name)]
    rank = {name: i for i, name in enumerate(_WIDE)}
    plain.sort(key=lambda e: (rank.get(e.name, len(rank)), _heaviness(e.weight), e.name))
    for entry in plain:
        if not missing:
            break
        if entry.name in chosen:
            continue
        drawn = _drawn(entry.fname, missing)
        if drawn:
            missing -= drawn
            chosen.append(entry.name)
    return Typeface(tuple(chosen), frozenset(missing))


def _drawn(path: str, characters: Iterable[str]) -> set[str]:
    """Those of `characters` that the font file has; none if it cannot be read."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
    except (OSError, RuntimeError):
        return set()
    return {c for c in characters if font.get_char_index(ord(c))}


def _usable(name: str) -> bool:
    # Colour fonts hold bitmaps, which matplotlib does not draw; "Last Resort" draws everything,
    # as the picture of a missing glyph.
    return "Color" not in name and "LastResort" not in name.replace(" ", "").replace(".", "")


def _heaviness(weight: int | str) -> int:
    if isinstance(weight, str):
        weight = {"normal": 400, "regular": 400, "book": 400}.get(weight, 500)
    return abs(weight - 400)
