"""What a command attaches to a model, and what it changes while the model runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import PANEL, load

if TYPE_CHECKING:
    from ..model import InterpretableModel

Attach = Annotated[
    list[str] | None,
    typer.Option(
        "--attach",
        metavar="[NAME=]PATH",
        help="A dictionary whose features become points: a folder, a file or a hub id. "
        "May be repeated.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        metavar="ADDRESS=NUMBER",
        help="Change a point while the model runs: = puts a number there, += and -= add, "
        "*= scales. May be repeated.",
        show_default=False,
    ),
]

_EDIT = re.compile(r"\s*(.+?)\s*([+*-]?=)\s*(.+?)\s*$", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)$", re.DOTALL)


def load_attached(name: str, words: Sequence[str] | None) -> InterpretableModel:
    """The model of that name, with what each word names attached: ``PATH``, or ``NAME=PATH``."""
    from .terminal import working

    model = load(name)
    for word in words or ():
        named = _NAMED.match(word)
        with working(f"attaching {word}"):
            if named is None or Path(word).exists():
                model.attach(word)
            else:
                model.attach(named[2], name=named[1])
    return model


def edits(words: Sequence[str] | None) -> list[tuple[str, Callable[..., Any]]]:
    """Pairs (address, edit) of words such as ``layers.3.features.42+=8``.

    Raises:
        BadParameter: if a word is none.
    """
    return [_edit(word) for word in words or ()]


def _edit(word: str) -> tuple[str, Callable[..., Any]]:
    import mlx.core as mx

    from .. import interventions

    match = _EDIT.match(word)
    try:
        number = float(match[3]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise typer.BadParameter(
            f"{word!r} is no edit: write ADDRESS=NUMBER, such as 'layers.3.mlp=0', "
            "'layers.3.features.42+=8' or 'L3H2*=0.5'.",
            param_hint="--edit",
        )
    address, sign = match[1], match[2]
    if sign == "*=":
        return address, interventions.scale(number)
    if sign == "=":
        return address, interventions.replace_with(number)
    return address, interventions.add_vector(mx.array(-number if sign == "-=" else number))
