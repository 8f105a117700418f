"""Texts with their labels: two lists, a list of mappings, or a table in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxray.errors import InputError, nearest

from ...datasets.pair_files import at, read_rows

#: Files that have rows with named columns.
ENDINGS = (".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Fields:
    """Names of the columns of a file, or of the keys of mappings.

    Attributes:
        text, label: The text and its label.
        group, type: What becomes `groups` and `types` of a probe; None where there are none.
    """

    text: str = "text"
    label: str = "label"
    group: str | None = None
    type: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Texts and what is known of each.

    Attributes:
        texts: Anything that is a prompt.
        labels: One for each.
        groups, types: The same, or None.
    """

    texts: Any
    labels: Any
    groups: Any
    types: Any


def labelled(texts: Any, labels: Any, groups: Any, types: Any, fields: Fields) -> Labelled:
    """Examples from what a user gave.

    Args:
        texts: A list of prompts; or, without `labels`, a list of mappings or the path of a
            ``.jsonl`` or ``.csv`` file with the columns that `fields` names.
        labels, groups, types: One for each text; those of a file or of mappings are its columns'.
        fields: Names of the columns.

    Raises:
        InputError: if labels are missing or given twice, or a row lacks a column.
    """
    named = isinstance(texts, str) and labels is None and Path(texts).suffix.lower() in ENDINGS
    from_file = isinstance(texts, Path) or named
    rows = _rows(Path(texts).expanduser(), fields) if from_file else texts
    mappings = (
        isinstance(rows, Sequence)
        and not isinstance(rows, str)
        and bool(rows)
        and all(isinstance(row, Mapping) and "role" not in row for row in rows)
    )
    if not mappings:
        if labels is None:
            raise InputError(
                "there are no labels: give labels=[…], one for each text, or a .jsonl or .csv "
                "file with a column of labels."
            )
        return Labelled(texts, labels, groups, types)
    if labels is not None:
        raise InputError("labels are given twice: in the texts' own fields and as labels=….")
    for name, value in (("groups", groups), ("types", types)):
        if value is not None:
            raise InputError(f"{name} of a file are one of its columns: {name[:-1]}_field=….")
    return Labelled(
        _column(rows, fields.text),
        _column(rows, fields.label),
        None if fields.group is None else _column(rows, fields.group),
        None if fields.type is None else _column(rows, fields.type),
    )


def _rows(path: Path, fields: Fields) -> list[dict[str, Any]]:
    needed = [n for n in (fields.text, fields.label, fields.group, fields.type) if n is not None]
    rows = []
    for line, row in read_rows(path, needed, "rest"):
        for name in needed:
            if row[name] is None or row[name] == "":
                raise at(path, line, f"{name!r} is empty.")
        rows.append(row)
    if not rows:
        raise InputError(f"{path.name} holds no examples.")
    return rows


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    for place, row in enumerate(rows):
        if name not in row:
            raise InputError(
                f"example {place} has no field {name!r}. {nearest(name, map(str, row))}"
            )
    return [row[name] for row in rows]
