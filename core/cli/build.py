"""A command for a registered analysis: its options are the function's own parameters."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..display import show_lines, show_text
from ..plugins.kinds import Analysis
from .docstrings import split_docstring
from .edits import Attach, load_attached
from .options import POCKET, Json, ModelName, Rows, Save, from_stdin
from .parameters import PROMPT, Parameter, parameters_of
from .show import ROWS, check_drawable, run_analysis, show_result

#: The options of every analysis: annotation and default.
_COMMON: dict[str, tuple[Any, Any]] = {
    "model": (ModelName, POCKET),
    "attach": (Attach, None),
    "json": (Json, False),
    "save": (Save, None),
    "rows": (Rows, None),
}
_PREFIX = "common_"
_PROMPT = f"{_PREFIX}prompt"


def analysis_command(analysis: Analysis[..., Any]) -> Any:
    """The command ``mlxray run NAME``, as typer makes it from a function."""
    parameters = parameters_of(analysis)

    def run(**given: Any) -> None:
        common = {name: given.pop(_PREFIX + name) for name in _COMMON}
        for parameter in filter(lambda p: p.prompt, parameters):
            given[parameter.name] = _one_of(given[parameter.name], given.pop(_PROMPT), parameter)
        values = read_values(analysis.name, parameters, given)
        check_drawable(analysis.result, common["save"])
        make = partial(load_attached, common["model"], common["attach"])
        result = run_analysis(analysis, make, **values)
        rows = common["rows"]
        show_result(
            result,
            json=common["json"],
            save=common["save"],
            limit=ROWS if rows is None else rows,
            drawing={} if rows is None else None,
        )

    declared = [_declare(p) for p in parameters]
    declared += [_declare_prompt(p) for p in parameters if p.prompt]
    for name, (annotation, default) in _COMMON.items():
        declared.append(
            inspect.Parameter(
                _PREFIX + name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotation,
            )
        )
    run.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in declared}
    description, _ = split_docstring(analysis.fn.__doc__)
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(
        analysis.name,
        help=escape(show_lines(description)) or "(no description)",
        context_settings={"help_option_names": ["-h", "--help"]},
    )(run)
    return typer.main.get_command(app)


def read_values(
    analysis: str, parameters: list[Parameter], given: dict[str, Any]
) -> dict[str, Any]:
    """The arguments for the analysis, from the words that stood on the command line.

    Raises:
        BadParameter: if a word cannot be read, or only Python can give the value.
    """
    values = {}
    for parameter in parameters:
        words = given[parameter.name]
        shown = _shown(parameter)
        if parameter.reader is None:
            if words is not None or parameter.required:
                raise typer.BadParameter(
                    f"{parameter.kind} cannot be written on a command line; in Python: "
                    f"model.{analysis}(…, {parameter.name}=…).",
                    param_hint=shown,
                )
        elif isinstance(words, bool):
            values[parameter.name] = words
        elif words or (_given(words) and not parameter.required):
            written = [words] if isinstance(words, str) else words
            if parameter.positional and parameter.reader.shown == "TEXT":
                written = [from_stdin(word) for word in written]
            try:
                values[parameter.name] = parameter.reader.value(written)
            except ValueError as error:
                raise typer.BadParameter(f"{error}.", param_hint=shown) from None
        elif parameter.required:  # not every version of typer sees that itself
            raise typer.BadParameter("it is needed.", param_hint=shown)
    return values


def _given(words: Any) -> bool:
    """Whether anything stood on the command line; an empty text is something."""
    return words is not None and words != []


def _shown(parameter: Parameter) -> str:
    """What a message calls the parameter."""
    name = parameter.name.upper() if parameter.positional else parameter.option
    return f"{name} or {PROMPT}" if parameter.prompt else name


def _one_of(words: Any, prompt: Any, parameter: Parameter) -> Any:
    """What stood without a name, or behind ``--prompt``.

    Raises:
        BadParameter: if there are both.
    """
    if _given(words) and _given(prompt):
        raise typer.BadParameter(
            "give it once, in one of the two ways.", param_hint=_shown(parameter)
        )
    return words if _given(words) else prompt


def _declare_prompt(parameter: Parameter) -> inspect.Parameter:
    """``--prompt``, as typer reads it."""
    many = parameter.reader is not None and parameter.reader.many
    kind: Any = list[str] | None if many else str | None
    help_text = f"Another way to give {parameter.name.upper()}."
    help_text += " May be repeated." if many else ""
    made = typer.Option(PROMPT, metavar="TEXT", help=help_text, show_default=False)
    return inspect.Parameter(
        _PROMPT, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, made]
    )


def _declare(parameter: Parameter) -> inspect.Parameter:
    """A parameter as typer reads it: words, or a flag, or nothing."""
    reader, sentences = parameter.reader, [parameter.help] if parameter.help else []
    kind: Any = list[str] | None if reader and reader.many else str | None
    names, metavar = [parameter.option], reader.shown if reader else "PYTHON"
    must = parameter.required and reader is not None and not parameter.prompt
    if reader is None:
        sentences = [f"Only from Python: {parameter.kind}.", *sentences]
    elif parameter.positional:
        kind = list[str] if reader.many else str
        kind = kind if must else kind | None
    elif reader.flag:
        kind = bool | None
        names = [f"{parameter.option}/--no-{parameter.option[2:]}"]
    elif reader.many and not reader.commas:
        sentences.append("May be repeated.")
    if not parameter.required and parameter.default is not None and parameter.default is not False:
        sentences.append(f"(default: {show_text(str(parameter.default), 60)})")
    help_text = escape(show_text(" ".join(sentences)))
    made: Any
    if parameter.positional:
        made = typer.Argument(metavar=parameter.name.upper(), help=help_text, show_default=False)
    elif reader is not None and reader.flag:
        made = typer.Option(*names, help=help_text, metavar="", show_default=False)
    else:
        made = typer.Option(*names, metavar=metavar, help=help_text, show_default=False)
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if must else None,
        annotation=Annotated[kind, made],
    )
