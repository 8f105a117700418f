"""The first half of a harvest: texts become rows of tokens on the disk, and the plan is fixed.

Tokens take a small part of the room that their activations will. With them on the disk the work is
counted before it begins, and any process can compute any shard without reading the texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mlxray import InterpretableModel
from mlxray.checks.arguments import whole_number
from mlxray.errors import InputError

from .manifest import LABELS, context_path, context_tensors
from .packing import PADDING, Contexts, Packer, stacked
from .plan import Data, Plan, write_plan
from .shard_file import ShardReader, ShardWriter
from .texts import Document, Fingerprint


class _Reading:
    """Documents on their way to tokens, hashed and counted."""

    def __init__(self, model: InterpretableModel, documents: Iterator[Document]) -> None:
        self._model = model
        self._documents = documents
        self.fingerprint = Fingerprint()
        self.blank = 0
        self.whole = False

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for number, document in enumerate(self._documents):
            self.fingerprint.add(document)
            if not document or (isinstance(document, str) and not document.strip()):
                self.blank += 1
                continue
            yield number, self._ids(number, document)
        self.whole = True

    def _ids(self, number: int, document: Document) -> list[int]:
        if isinstance(document, str):
            try:
                return self._model.encode(document)
            except InputError as error:
                error.args = (f"document {number}: {error}",)
                raise
        ids = [whole_number(token, f"document {number}: a token id") for token in document]
        limit = self._model.tokens.vocabulary
        limit = 2**31 if limit is None else limit
        if wrong := [token for token in ids if not 0 <= token < limit]:
            raise InputError(
                f"document {number} holds token id {wrong[0]}, outside the vocabulary "
                f"(0 to {limit - 1})."
            )
        return ids


def prepare(
    model: InterpretableModel,
    plan: Plan,
    documents: Iterator[Document],
    folder: Path | None,
    owner: int = 0,
) -> Plan:
    """Read the texts, write the contexts of every shard, and complete the plan.

    Args:
        model: The model.
        plan: From `planned`.
        documents: The texts; read once, no further than `max_tokens` asks for.
        folder: Of the store; None only counts.
        owner: Rank of this process. All of them write the same.

    Raises:
        InputError: if the texts do not fill one row; or as `Tokens.encode`.
        SaveError: if the system cannot write.
    """
    reading = _Reading(model, documents)
    packer = Packer(plan.context, plan.begin, plan.packing)
    limit = None if plan.max_tokens is None else plan.max_tokens // plan.context
    rows = tokens = 0
    held = []
    with closing(packer.rows(iter(reading))) as made:
        for row in made:
            held.append(row)
            rows += 1
            tokens += sum(document != PADDING for document in row.documents)
            if len(held) == plan.rows_per_shard:
                _write(folder, plan, rows, stacked(held), owner)
                held = []
            if rows == limit:
                break
    if held:
        _write(folder, plan, rows, stacked(held), owner)
    if not rows:
        count = reading.fingerprint.documents
        raise InputError(
            f"too little text: {count} document(s) with {packer.dropped} tokens do not fill one "
            f"row of context={plan.context}. Give more text or a smaller context"
            + (", or packing='documents'." if packer.packed else ".")
        )
    data = Data(
        sha256=reading.fingerprint.hexdigest(),
        documents=reading.fingerprint.documents,
        blank=reading.blank,
        tokens=tokens,
        dropped=packer.dropped,
        whole=reading.whole,
    )
    plan = replace(plan, rows=rows, data=data)
    if folder is not None:
        write_plan(folder, plan)
    return plan


def _write(folder: Path | None, plan: Plan, rows: int, contexts: Contexts, owner: int) -> None:
    if folder is None:
        return
    shard = (rows - 1) // plan.rows_per_shard
    tensors = context_tensors(replace(plan, rows=rows), shard)
    writer = ShardWriter(context_path(folder, shard), tensors, owner)
    try:
        for name in LABELS[:3]:
            writer.write(name, getattr(contexts, name))
        writer.finish()
    finally:
        writer.abandon()  # does nothing to a finished file


def read_contexts(folder: Path, plan: Plan, shard: int) -> Contexts:
    """The rows of tokens of a shard."""
    reader = ShardReader(context_path(folder, shard), context_tensors(plan, shard))
    count = len(plan.rows_of(shard))
    return Contexts(*(reader.rows(name, 0, count) for name in LABELS[:3]))


def check_data(plan: Plan, documents: Iterator[Document], folder: Path) -> None:
    """Refuse to go on with other texts than those that the plan was made from.

    Raises:
        InputError: if the documents differ.
    """
    data = plan.data
    if data is None:
        return
    seen = Fingerprint()
    for document in islice(documents, data.documents):
        seen.add(document)
    more = data.whole and next(documents, None) is not None
    if more or seen.hexdigest() != data.sha256:
        here = f"more than {seen.documents}" if more else f"{seen.documents}, not the same,"
        raise InputError(
            f"{str(folder)!r} holds a store of other texts: {data.documents} documents there, "
            f"{here} here. Give the same texts, or choose another folder."
        )
