"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

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
    from ..results.save import ENDINGS

    if path.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(f"cannot write {path.name!r}: use one of {', '.join(ENDINGS)}.")
    full = path.expanduser()
    if not full.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(path.parent)!r}.")
    try:
        if full.is_dir():
            raise typer.BadParameter(f"{str(path)!r} is a folder: name a file in it.")
        _try_to_write(full)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise typer.BadParameter(f"cannot write {str(path)!r}: {reason}.") from None
    return full


def _try_to_write(path: Path) -> None:
    """Open a file for writing and leave everything as it was. Raises OSError."""
    if not path.exists():
        path.touch()
        path.unlink()
    elif path.is_file():
        path.open("ab").close()


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
