"""What happens when something goes wrong: one line on stderr, how to fix it, and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from ..display import show_lines, show_text
from ..errors import (
    AdapterError,
    AddressError,
    InputError,
    LoadError,
    PluginError,
    SaveError,
    TokenizerMissing,
    nearest,
)
from ..machine.blas import missing_backend_message
from .terminal import errors, prepare_streams

FAILED, WRONG, INTERRUPTED, UNREAD = 1, 2, 130, 141

#: The user can fix these by giving something else; other errors are a failed run.
BAD_INPUT = (AdapterError, AddressError, InputError, LoadError, PluginError)


class GuardedGroup(TyperGroup):
    """A group of commands whose failures become one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that `args` name; the exit code unless `standalone_mode`."""
        words, debug = take_debug(sys.argv[1:] if args is None else args)

        def work() -> None:
            with self.make_context(prog_name or "mlxray", words, **extra) as context:
                self.invoke(context)

        status = guard(work, debug=debug)
        if standalone_mode:
            sys.exit(status)
        return status

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begin with; one that does not exist is answered in our words."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(
                f"there is no command {args[0]!r}. {nearest(args[0], self.list_commands(ctx))}"
            )
        return super().resolve_command(ctx, args)


def take_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without ``--debug``, which may stand anywhere before ``--``, and if it did."""
    words = list(words)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def guard(work: Callable[[], None], *, debug: bool) -> int:
    """Do `work`; the exit code that tells how it ended."""
    try:
        prepare_streams()
        with warnings_on_one_line():
            try:
                work()
            except typer.Exit as leaving:
                sys.stdout.flush()
                return leaving.exit_code
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        leave_stdout()
        return UNREAD
    except Exception as error:  # noqa: BLE001  (whatever a model or a plugin raises becomes one line)
        if debug:
            errors().out(show_lines(traceback.format_exc()), end="", highlight=False)
        else:
            say(message(error))
        return status_of(error)
    return 0


def message(error: BaseException) -> str:
    """One line that says what went wrong and how to fix it."""
    if is_usage(error):
        return usage_message(error)
    if isinstance(error, TokenizerMissing):
        return "text needs a tokenizer, and the model has none: add tokenizer.json to its folder."
    if isinstance(error, (*BAD_INPUT, SaveError)):
        return one_line(str(error))
    if isinstance(error, ImportError) and (advice := missing_backend_message(error)):
        return one_line(advice)
    text = one_line(str(error))
    kind = type(error).__name__
    return f"{kind}: {text} (--debug shows where)" if text else f"{kind} (--debug shows where)"


def status_of(error: BaseException) -> int:
    """The exit code of an error."""
    if is_usage(error):
        return int(error.exit_code)  # type: ignore[attr-defined]
    return WRONG if isinstance(error, BAD_INPUT) else FAILED


def is_usage(error: BaseException) -> bool:
    """Whether the command line's parser raised it; the class moved between typer's versions."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def usage_message(error: Any) -> str:
    """What the parser says, with how to fix it where it says nothing on that."""
    text = one_line(error.format_message()).rstrip(".")
    if "unexpected extra argument" in text:
        return f"{text}: put a text of several words in quotes."
    path = getattr(getattr(error, "ctx", None), "command_path", "")
    if text.endswith("?") or "Invalid value" in text or not path:
        return text if text.endswith("?") else f"{text}."
    return f"{text}. `{path} --help` shows what there is."


def one_line(text: str) -> str:
    """`text` on one line, control characters visible."""
    return show_text(" ".join(text.split()))


def say(text: str) -> None:
    """A line on stderr."""
    from rich.text import Text

    line = Text.assemble(("mlxray: ", "bold red"), text)
    errors().print(line, soft_wrap=True)


@contextlib.contextmanager
def warnings_on_one_line() -> Iterator[None]:
    """Warnings without the place in the code, which says nothing to a user of commands.

    What is deprecated concerns programmers alone.
    """

    def show(text: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
            say(f"warning: {one_line(str(text))}")

    with warnings.catch_warnings():
        warnings.showwarning = cast(Any, show)
        yield


def leave_stdout() -> None:
    """Write no more to stdout, the flush at the interpreter's end included."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
