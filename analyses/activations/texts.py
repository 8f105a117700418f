"""Where texts come from: a list, a text file, JSON lines, a data set of the library `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlxray.errors import InputError, LoadError, nearest
from mlxray.storage.files import check_file

#: A document: text, or token ids.
Document = str | Sequence[int]
#: A path, ``"datasets:NAME"``, or documents, each possibly the field of a mapping.
Texts = str | Path | Iterable[Document | Mapping[str, Any]]

#: How a text file falls into documents; the names are those of the library `datasets`.
SPLITS = ("paragraph", "line", "document")
JSON_LINES = (".jsonl", ".ndjson")
HUB = "datasets:"


def documents(texts: Texts, *, field: str = "text", split: str = "paragraph") -> Iterator[Document]:
    """The documents of a source, one by one; the source is never in memory as a whole.

    Args:
        texts: A list (or any iterable) of texts, of token ids, or of mappings such as the rows of
            a data set; the path of a text file or of JSON lines (``.jsonl``, ``.ndjson``); or
            ``"datasets:NAME"`` or ``"datasets:NAME:SPLIT"``, streamed by the library `datasets`.
        field: Which field of a mapping is the text.
        split: What a document of a text file is: a ``"paragraph"`` (they are separated by empty
            lines), a ``"line"``, or the whole ``"document"``.

    Raises:
        LoadError: if a file cannot be read.
        InputError: if a line or a row has no text, with its number.
    """
    if split not in SPLITS:
        raise InputError(f"split={split!r}: it is one of {', '.join(SPLITS)}.")
    if isinstance(texts, (str, Path)):
        if str(texts).startswith(HUB):
            return _of_rows(_data_set(str(texts)[len(HUB) :]), field, str(texts))
        path = Path(texts).expanduser()
        try:
            check_file(path)
        except LoadError as error:
            hint = " If this is a text, put it into a list." if " " in str(texts) else ""
            raise LoadError(f"{error}{hint}") from error
        if path.suffix.lower() in JSON_LINES:
            return _of_rows(_json_lines(path), field, str(path))
        return _of_file(path, split)
    if isinstance(texts, (Mapping, bytes)) or not isinstance(texts, Iterable):
        raise InputError(
            f"texts are a list of texts, a file or a data set; got {type(texts).__name__}."
        )
    return _of_rows(texts, field, "the texts")


def _of_rows(rows: Iterable[Any], field: str, source: str) -> Iterator[Document]:
    for number, row in enumerate(rows):
        value = row
        if isinstance(row, Mapping):
            if field not in row:
                raise InputError(
                    f"{source}, document {number}: there is no field {field!r}. "
                    f"{nearest(field, map(str, row))}"
                )
            value = row[field]
        value = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(value, (str, list, tuple)):
            kind = type(value).__name__
            raise InputError(f"{source}, document {number}: expected text, got {kind}.")
        yield value


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{str(path)!r}, line {number}: not JSON: {error}.") from error


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r}, line {number}: not UTF-8: {error}.") from error
    except OSError as error:
        raise LoadError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def _of_file(path: Path, split: str) -> Iterator[str]:
    if split == "document":
        yield "".join(_lines(path))
        return
    held: list[str] = []
    for line in _lines(path):
        if line.strip() and split == "paragraph":
            held.append(line)
        elif line.strip():
            yield line.rstrip("\r\n")
        elif held:
            yield "".join(held).rstrip("\r\n")
            held = []
    if held:
        yield "".join(held).rstrip("\r\n")


def _data_set(name: str) -> Iterable[Any]:
    name, _, part = name.partition(":")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            f"{HUB}{name} needs the library datasets: pip install datasets."
        ) from error
    try:
        found: Iterable[Any] = load_dataset(name, split=part or "train", streaming=True)
    except (OSError, ValueError, LookupError) as error:
        raise LoadError(f"cannot load the data set {name!r}: {error}") from error
    return found


class Fingerprint:
    """A hash of the documents seen so far, the same whatever file or list they came from."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.documents = 0

    def add(self, document: Document) -> None:
        """Count one more document."""
        text = isinstance(document, str)
        # Half a character (a lone surrogate) has no UTF-8, and the tokenizer will refuse it.
        content = document if text else " ".join(map(str, document))
        data = str(content).encode("utf-8", "surrogatepass")
        self._hash.update(b"%s %d\n" % (b"text" if text else b"ids", len(data)))
        self._hash.update(data)
        self.documents += 1

    def hexdigest(self) -> str:
        """The hash of all documents so far."""
        return self._hash.hexdigest()
