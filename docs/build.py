"""Runs the documentation, and keeps what it shows current.

    python docs/build.py [--check] [PAGE …]

In a page, Python blocks run in order and share their names. A text block that follows one shows
what it printed, or what it raised where a comment `raises` stands before it. Console blocks show
what `$ mlxray …` prints. A table between the comments `table: NAME` and `end` comes from
`generated.py`. Without `--check`, what is no longer so is written anew; numbers with decimals may
differ in their last digits from machine to machine and stay.
"""

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import generated  # beside this file
from sybil.document import Document
from sybil.evaluators.python import PythonEvaluator
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser

import mlxray
import mlxray.cli

DOCS = Path(__file__).resolve().parent
RAISES = re.compile(r"<!-- raises -->\s*\Z")
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?|\bexact\b")
#: Errors up to this size may be none on another processor.
ROUNDING = 1e-5


def pages() -> list[Path]:
    """The pages of the documentation and README."""
    return [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


@dataclass(frozen=True)
class Shown:
    """A stretch of a page that shows something: what stands there and what should."""

    start: int
    end: int
    now: str
    made: str

    @property
    def current(self) -> bool:
        """Whether the two say the same."""
        return same(self.now, self.made)


def same(now: str, made: str) -> bool:
    """Whether two texts agree; numbers with decimals, and percentages, nearly.

    Such a number may differ by one in its last digit, or by two percent, and one such as 3e-07,
    the size of an error, by a factor of a hundred; "exact" may be an error that rounding makes. A
    line of `now` that holds only an ellipsis stands for any lines.
    """
    first, *rest = re.split(r"^…\n", now, flags=re.MULTILINE)
    if not rest:
        return _agree(first, made)
    lines = made.splitlines(keepends=True)
    for number, part in enumerate((first, *rest)):
        size = part.count("\n")
        places = range(len(lines) - size + 1)
        if number == 0 or (number == len(rest) and part):
            places = places[:1] if number == 0 else places[-1:]
        found = (i for i in places if _agree(part, "".join(lines[i : i + size])))
        if (place := next(found, None)) is None:
            return False
        lines = lines[place + size :]
    return True


def _agree(now: str, made: str) -> bool:
    if _shape(now) != _shape(made):
        return False
    return all(map(_near, NUMBER.findall(now), NUMBER.findall(made)))


def _shape(text: str) -> list[str]:
    """The words, without their numbers, the lengths of rules and of bars."""
    return re.sub("─+", "─", re.sub("[▏▎▍▌▋▊▉█]+", "█", NUMBER.sub("#", text))).split()


def _near(now: str, made: str) -> bool:
    if now == made:
        return True
    if "exact" in (now, made):
        (other,) = {now, made} - {"exact"}
        return "e-" in other and 0 <= float(other) <= ROUNDING
    if not re.search(r"[.e%]", now + made):
        return False
    digits, _, exponent = now.rstrip("%").partition("e")
    step = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    a, b = float(now.rstrip("%")), float(made.rstrip("%"))
    if "e-" in now and "e-" in made:  # the size of an error
        return 0.01 <= a / b <= 100
    return abs(a - b) <= max(1.01 * step, 0.02 * abs(a))


def examine(text: str, name: str) -> list[Shown]:
    """Run a page's blocks in order, in an empty folder; what the page shows."""
    document = Document(text, name)
    document.namespace["__name__"] = "__main__"
    for language in ("python", "text", "console"):
        for region in CodeBlockParser(language, lambda example: None)(document):
            document.add(region)
    found: list[Shown] = []
    python = PythonEvaluator()
    printed, end = "", -1
    with _empty_folder():
        for example in document.examples():
            follows = end >= 0 and not text[end : example.start].strip()
            language = example.region.lexemes["arguments"]
            if language == "python":
                printed, end = _printed(python, example), example.end
            elif language == "console":
                found.append(_shown(example, "".join(map(_console, _commands(example.parsed)))))
            elif follows:
                found.append(_shown(example, printed))
    return found


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _shown(example: Example, made: str) -> Shown:
    text = example.document.text
    start = example.start + example.parsed.offset
    end = text.rindex("\n", 0, example.end) + 1  # of the block's content: the closing fence begins
    return Shown(start, end, text[start:end], made.rstrip() + "\n")


def _printed(python: Callable[[Example], None], example: Example) -> str:
    raises = RAISES.search(example.document.text[: example.start])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if not raises:
            python(example)
            return printed.getvalue()
        try:
            python(example)
        except Exception as error:  # noqa: BLE001  (the page shows which)
            lines = f"{type(error).__name__}: {error}".splitlines()
            return "\n".join(textwrap.fill(line, 96, break_on_hyphens=False) for line in lines)
    raise AssertionError(f"{example.path}, line {example.line}: nothing was raised")


def _commands(block: str) -> list[str]:
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def _console(command: str) -> str:
    """What a command prints, as if it had been typed."""
    program, *arguments = shlex.split(command)
    if program != "mlxray":
        raise ValueError(f"not a command of mlxray: {command}")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    plain = mock.patch.dict(os.environ, {"COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb"})
    with plain, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        mlxray.cli.main(arguments)
    stream.seek(0)
    lines = (f"$ {command}", *stream.read().splitlines())
    return "".join(f"{line.rstrip()}\n" for line in lines)


def with_tables(text: str) -> str:
    """`text` with its tables made anew."""
    return TABLE.sub(lambda match: f"{match[1]}{getattr(generated, match[2])()}{match[3]}", text)


def renewed(text: str, shown: list[Shown]) -> str:
    """`text` with what is not current written anew."""
    for part in sorted(shown, key=lambda part: -part.start):
        if not part.current:
            text = text[: part.start] + part.made + text[part.end :]
    return text


def difference(page: Path, text: str, new: str) -> str:
    """A unified diff of a page and what it should be; empty if it is current."""
    name = page.relative_to(DOCS.parent).as_posix()
    lines = text.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, name, f"{name} (made now)"))


def build(page: Path) -> tuple[str, str]:
    """A page as it is and as it should be."""
    text = page.read_text(encoding="utf-8")
    try:
        filled = with_tables(text)
        return text, renewed(filled, examine(filled, str(page)))
    finally:
        mlxray.registry.reload()  # a page may register plugins


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    check = "--check" in arguments
    chosen = [Path(a).resolve() for a in arguments if a != "--check"] or pages()
    stale = 0
    for page in chosen:
        text, new = build(page)
        found = difference(page, text, new)
        stale += bool(found)
        sys.stdout.write(found)
        if found and not check:
            page.write_text(new, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
