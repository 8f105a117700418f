"""Where output goes: results to stdout, all else to stderr, never markup from foreign text."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..display import show_text

if TYPE_CHECKING:
    from rich.console import Console

#: From almost nothing to certain; viridis, as in the pictures.
_RAMP = ((53, 42, 100), (49, 104, 142), (38, 145, 133), (94, 201, 98), (243, 229, 53))
#: Below this a value gets no colour, so that what matters stands out.
FAINT = 0.05

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def prepare_streams() -> None:
    """Let no token of a vocabulary be something that a stream's encoding cannot take."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output() -> Console:
    """Stdout; strings are printed as they are."""
    return _console(stderr=False)


def errors() -> Console:
    """Stderr, for progress, notes and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextlib.contextmanager
def working(text: str = "") -> Iterator[None]:
    """Keep stdout for results: what is printed in this block goes to stderr, as progress should.

    Args:
        text: Shown at a terminal meanwhile.
    """
    with contextlib.ExitStack() as stack:
        if text and sys.stderr.isatty():
            stack.enter_context(errors().status(show_text(text)))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def print_json(content: Any) -> None:
    """JSON on stdout: `content` itself if it is text already.

    Control characters and what the stream cannot take are written as escapes, so that the text
    is safe in a terminal and the same to a parser.
    """
    text = content if isinstance(content, str) else json.dumps(content, indent=2, allow_nan=False)
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    whole = encoding.startswith("utf")
    safe = (c if _safe(c, whole) else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write("".join(safe) + "\n")


def _safe(character: str, whole: bool) -> bool:
    return character == "\n" or (character.isprintable() and (whole or character.isascii()))


def heat(value: float) -> str:
    """Rich style for a share of one: the background says how much."""
    if value < FAINT:
        return "dim"
    red, green, blue = _ramp(value)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 120
    return f"{'#ffffff' if dark else '#000000'} on rgb({red},{green},{blue})"


def heat_color(value: float) -> str:
    """Rich colour for a share of one, for bars and shades."""
    return "dim" if value < FAINT else "rgb({},{},{})".format(*_ramp(value))


def _ramp(value: float) -> tuple[int, ...]:
    place = min(max(value, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    pairs = zip(_RAMP[low], _RAMP[low + 1], strict=True)
    return tuple(round(a + (b - a) * (place - low)) for a, b in pairs)


def bar(value: float, width: int) -> str:
    """A share of one as a bar of at most `width` cells."""
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    return _EIGHTHS[8] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def short_name(model: str) -> str:
    """A model's name without the folders, or the owner, before it."""
    return show_text(model.rstrip("/").rpartition("/")[2] or model, 40)


def percent(value: float) -> str:
    """A share of one, at most four characters wide: ``<1%`` is not nothing."""
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"
