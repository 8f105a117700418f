"""Options and arguments that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .terminal import errors

if TYPE_CHECKING:
    from ..model import InterpretableModel

T = TypeVar("T")

POCKET = "pocket"
#: What `pocket` is asked where the user gives no prompt.
PROMPT = "The capital of France is"


def _writable(path: Path | None) -> Path | None:
    """Refuse before the work what could not be saved after it."""
    if path is None:
        return None
    from ..errors import SaveError
    from ..results.save import ENDINGS
    from ..storage.files import check_writable

    if path.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(f"cannot write {path.name!r}: use one of {', '.join(ENDINGS)}.")
    full = path.expanduser()
    try:
        check_writable(full)
    except SaveError as error:
        raise typer.BadParameter(str(error)) from None
    return full


def _writable_page(path: Path | None) -> Path | None:
    """The same where there is no picture."""
    if path is not None and path.suffix.lower() not in (".html", ".json", ".md"):
        raise typer.BadParameter(f"cannot write {path.name!r}: use one of .json, .md, .html.")
    return _writable(path)


def from_stdin(text: str) -> str:
    """The text itself, or the standard input for ``-``; the line break at its end is not meant.

    Raises:
        BadParameter: if the standard input is empty, or no text.
    """
    if text != "-":
        return text
    if sys.stdin is None or sys.stdin.isatty():
        errors().print("reading the prompt from the keyboard; Ctrl-D ends it", style="dim")
    try:
        read = sys.stdin.read() if sys.stdin is not None else ""
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"the standard input is no text: {error}.") from None
    read = read.removesuffix("\n").removesuffix("\r")
    if not read:
        raise typer.BadParameter("the standard input is empty.")
    return read


PANEL = "Model and output"

Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON and nothing else.", metavar="", rich_help_panel=PANEL),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Write a page (.html), a picture (.png .svg .pdf), a report (.md) or data (.json).",
        callback=_writable,
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
SavePage = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Write a page (.html), a report (.md) or data (.json).",
        callback=_writable_page,
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows",
        min=0,
        metavar="INT",
        help="Print a table of at most this many rows; 0 for all.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Prompt = Annotated[
    str,
    typer.Argument(
        help="The text that the model reads; - reads it from the standard input.",
        callback=from_stdin,
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="pocket (the embedded model), a local folder, or a hub id.",
        rich_help_panel=PANEL,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]", help="pocket (the embedded model), a local folder, or a hub id."
    ),
]
AdapterName = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME",
        help="A registered adapter; chosen by the model's type if left out.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="INT,…", help="Only these layers, such as 0,5,-1."),
]


def load(name: str, adapter: str | None = None) -> InterpretableModel:
    """The model of that name."""
    from ..model import InterpretableModel
    from .terminal import working

    with working(f"loading {name}"):
        return InterpretableModel(name, adapter=adapter)


def listed(words: list[str] | None, read: Callable[[str], T], option: str) -> list[T] | None:
    """The values of an option that may be given several times or separated by commas.

    Raises:
        BadParameter: if one cannot be read.
    """
    if not words:
        return None
    found = []
    for word in ",".join(words).split(","):
        try:
            found.append(read(word.strip()))
        except ValueError:
            raise typer.BadParameter(
                f"{word!r} is not a number; write {option} 0,1,2.", param_hint=option
            ) from None
    return found
