"""Pairs of prompts from files: CSV with a header, or JSON Lines, with named columns.

A file is checked before anything is made of it: its size, its encoding, its columns. What is
wrong raises an InputError that names the file and the line.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlxray.errors import InputError, nearest
from mlxray.storage.files import read_file

from .pairs import PairSet, PromptPair

#: Files larger than this are refused where the caller sets no limit.
MAX_BYTES = 64 << 20

Row = tuple[int, dict[str, Any]]


def read_pairs(
    path: str | Path,
    *,
    clean: str = "clean",
    corrupted: str = "corrupted",
    correct: str | None = "correct",
    incorrect: str | None = "incorrect",
    metadata: Sequence[str] | Literal["rest"] = (),
    answers: Literal["text", "ids"] = "text",
    name: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> PairSet:
    """Read pairs of prompts from a ``.csv`` or ``.jsonl`` file.

    Args:
        path: The file, in UTF-8.
        clean, corrupted, correct, incorrect: Names of the columns (of JSON keys); None where the
            file has no such answers. JSON answers are a text, an id, or a list of either.
        metadata: Other columns to keep, or ``"rest"`` for all. A column that is neither is an
            error, so that a misspelt name is not passed over.
        answers: What a CSV's answers are: texts as they follow the prompt, or token ids (of the
            model that the file was made for: nothing can tell whether they are yours).
        name: Of the set; the file's name if None.
        max_bytes: Largest file to read.

    Raises:
        InputError: if the file cannot be read as such; names the line.
    """
    source = Path(path)
    named = [column for column in (clean, corrupted, correct, incorrect) if column is not None]
    pairs = []
    for line, row in read_rows(source, named, metadata, max_bytes=max_bytes):
        fields = {
            "correct": _answers(row[correct], answers, source, line) if correct else (),
            "incorrect": _answers(row[incorrect], answers, source, line) if incorrect else (),
        }
        rest = {key: value for key, value in row.items() if key not in named}
        pairs.append(
            make_pair(source, line, clean=row[clean], corrupted=row[corrupted], **fields, rest=rest)
        )
    return PairSet(pairs, name or source.stem)


def make_pair(
    source: Path,
    line: int,
    *,
    clean: Any,
    corrupted: Any,
    correct: Any,
    incorrect: Any,
    rest: Mapping[str, Any],
) -> PromptPair:
    """A `PromptPair` whose errors name the file and the line."""
    try:
        return PromptPair(clean, corrupted, correct, incorrect, {**rest, "line": line})
    except InputError as error:
        raise at(source, line, str(error)) from error


def at(source: Path, line: int, fault: str) -> InputError:
    """An error at a line of a file."""
    return InputError(f"{source.name}, line {line}: {fault}")


def read_rows(
    source: Path,
    needed: Sequence[str],
    others: Sequence[str] | Literal["rest"] = (),
    *,
    max_bytes: int = MAX_BYTES,
) -> Iterator[Row]:
    """Rows of a CSV or JSONL file: (line number, column → value).

    Args:
        needed: Columns that every row must have.
        others: Columns that it may have, or ``"rest"``.
        max_bytes: Largest file to read.

    Raises:
        InputError: as `read_pairs`.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}
    read = readers.get(source.suffix.lower())
    if read is None:
        raise InputError(f"{source.name!r}: pairs are read from {', '.join(readers)}.")
    known = {*needed, *others}
    for line, row in read(source, read_text(source, max_bytes)):
        missing = [column for column in needed if column not in row]
        if missing:
            raise at(source, line, f"no column {missing[0]!r}. {nearest(missing[0], row)}")
        unknown = [key for key in row if others != "rest" and key not in known]
        if unknown:
            raise at(
                source,
                line,
                f"unknown column {unknown[0]!r:.80}. {nearest(unknown[0], [*needed, *others])} "
                'Pass metadata="rest" to keep all others.',
            )
        yield line, row


def read_text(source: Path, max_bytes: int = MAX_BYTES) -> str:
    """A text file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: if it is no file, too large, empty, or not UTF-8.
    """
    data = read_file(source, max_bytes, InputError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise at(source, line, f"not UTF-8 (byte {data[error.start]:#04x}).") from error
    if not text.strip():
        raise InputError(f"{source.name} is empty.")
    return text


def _csv_rows(source: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise at(source, line, f"not CSV: {error}.") from error
        if not cells:
            continue
        if header is None:
            header = cells
            twice = [name for name, number in Counter(header).items() if number > 1]
            if twice:
                raise at(source, line, f"two columns are called {min(twice)!r:.80}.")
            continue
        if len(cells) != len(header):
            raise at(source, line, f"{len(cells)} cells under {len(header)} column names.")
        yield line, dict(zip(header, cells, strict=True))


def _json_rows(source: Path, text: str) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        row = parse_json(source, line, content)
        if not isinstance(row, dict):
            raise at(source, line, f"a JSON {type(row).__name__}; a row is an object.")
        yield line, row


def parse_json(source: Path, line: int, content: str) -> Any:
    """JSON of one line (or of a whole file, `line` being its first).

    Raises:
        InputError: if it is not; a key that occurs twice is an error too.
    """

    def once(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise at(source, line, "a key occurs twice.")
        return found

    try:
        return json.loads(content, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise at(source, line + error.lineno - 1, f"not JSON: {error.msg}.") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise at(source, line, f"not JSON that can be read: {error}.") from error


def _answers(value: Any, kind: str, source: Path, line: int) -> Any:
    if kind not in ("text", "ids"):
        raise InputError(f"answers={kind!r}: {nearest(str(kind), ('text', 'ids'))}")
    if kind == "ids" and isinstance(value, str):
        return as_integer(value, source, line)
    return value


def as_integer(value: Any, source: Path, line: int) -> int:
    """A whole number from a cell.

    Raises:
        InputError: if it is something else.
    """
    text = str(value).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise at(source, line, f"{text!r:.80} is not a whole number.")
    return int(text)
