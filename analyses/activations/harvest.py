"""Harvesting: activations at chosen points over many texts, into a store on the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from mlxray import Command, InterpretableModel, hookimpl
from mlxray.errors import AnalysisError, InputError, SaveError
from mlxray.points.vocabulary import AddressLike

from .estimate import Estimate, estimated, seconds_per_row
from .lock import locked
from .manifest import finished, record_path, write_manifest
from .passes import Passes
from .plan import Plan, check_same, planned, read_plan, settings_from
from .prepare import check_data, prepare
from .store import ActivationStore
from .texts import Texts, documents
from .work import Progress, compute

#: A process gives up on the others when they have finished no shard for so many seconds.
PATIENCE = 3600.0
POLL = 0.2

#: What a store may hold before its plan is made.
OWN = ("shards", "contexts", ".lock")


class Group(Protocol):
    """What is needed of ``mx.distributed.Group``: who this process is among how many."""

    def rank(self) -> int: ...

    def size(self) -> int: ...


def harvest(
    model: InterpretableModel,
    texts: Texts,
    points: Sequence[AddressLike],
    folder: str | Path,
    *,
    context: int = 128,
    dtype: str = "bfloat16",
    max_tokens: int | None = None,
    packing: str = "packed",
    exclude: Sequence[str | int] | str = ("bos",),
    batch_size: int = 32,
    tokens_per_shard: int = 2**16,
    field: str = "text",
    split: str = "paragraph",
    verbose: bool = True,
    group: Group | None = None,
) -> ActivationStore:
    """Write a model's activations over texts into a store.

    The same call again goes on where one was killed, and opens the store once it is complete. In
    ``mlx.launch -n 2 script.py`` two processes share the work (`folder` is one that both see), and
    the store is the same to the byte as that of one process.

    Args:
        model: The model.
        texts: A list of texts or of token ids, a text file, JSON lines, a data set; see
            `documents`.
        points: Addresses; of any module's input or output too, as long as it is one array of
            (batch, tokens, width). ``"layers.3.mlp.input"`` is what an MLP reads.
        folder: Made if it is not there; otherwise empty, or the store to go on with.
        context: Tokens of the rows that the model reads.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"``: of the stored numbers.
        max_tokens: Read no more than this many tokens, cut to whole rows.
        packing: ``"packed"``: documents one after the other in rows without gaps.
            ``"documents"``: a row for each document, long ones in several.
        exclude: Tokens that are read but not stored: ``"bos"`` (the token in front of
            documents, whose activations are many times larger in most models), ``"special"`` (all
            special tokens), ``"first"`` (the first position of every row), and token ids.
        batch_size: Rows in one forward pass.
        tokens_per_shard: Tokens read for one file of the store.
        field: Which field of JSON lines or of a data set is the text.
        split: What a document of a text file is: ``"paragraph"``, ``"line"`` or ``"document"``.
        verbose: Say how much it will be and show a progress bar, on stderr.
        group: The processes that share the work; ``mx.distributed.init()`` if left out.

    Returns:
        The store.

    Raises:
        AddressError: if the model does not have a point.
        InputError: if an argument is out of range, the texts do not fill a row, a point is no
            single array, or `folder` holds something else; it says what.
        AnalysisError: if an activation is not finite; it names point, shard and token.
        SaveError: if the disk is full or cannot be written. What is finished stays, and the same
            call goes on from there.

    Example:
        >>> store = harvest(model, "corpus.jsonl", [("resid_post", 3)], "store")
        >>> for batch in store.batches(4096):
        ...     batch["layers.3.resid_post"]  # (4096, D)
    """
    settings = settings_from(
        points,
        context=context,
        dtype=dtype,
        max_tokens=max_tokens,
        packing=packing,
        exclude=exclude,
        batch_size=batch_size,
        tokens_per_shard=tokens_per_shard,
    )
    source = documents(texts, field=field, split=split)
    wanted = planned(model, settings)
    shared = group if group is not None else mx.distributed.init()
    rank, size = shared.rank(), shared.size()
    folder = _folder(folder)
    with locked(folder, rank, size):
        plan = read_plan(folder)
        if plan is None:
            plan = prepare(model, wanted, source, folder, rank)
        else:
            check_same(plan, wanted, folder)
            check_data(plan, source, folder)
        missing = [s for s in range(plan.shards) if finished(folder, plan, s) is None]
        mine = [shard for shard in missing if shard % size == rank]
        passes = Passes(model, list(plan.points), plan.dtype)
        if mine:
            rows = sum(len(plan.rows_of(shard)) for shard in missing)
            pace = seconds_per_row(passes, plan, rows) if verbose else None
            estimate = estimated(plan, pace, rows, size)
            _check_room(folder, estimate, len(missing) / plan.shards)
            with Progress(plan, mine, estimate, rank, size, shown=verbose) as progress:
                compute(passes, plan, folder, mine, rank, progress)
        _complete(folder, plan, rank, PATIENCE if size > 1 else 0.0, changed=bool(missing))
    return ActivationStore(folder)


def estimate_harvest(
    model: InterpretableModel,
    texts: Texts,
    points: Sequence[AddressLike],
    *,
    context: int = 128,
    dtype: str = "bfloat16",
    max_tokens: int | None = None,
    packing: str = "packed",
    exclude: Sequence[str | int] | str = ("bos",),
    batch_size: int = 32,
    tokens_per_shard: int = 2**16,
    field: str = "text",
    split: str = "paragraph",
) -> Estimate:
    """How large the store of a harvest would be and how long one process would compute.

    Reads all the texts and times a few forward passes; writes nothing.

    Args:
        model, texts, points: As in `harvest`, and so are the others.
    """
    settings = settings_from(
        points,
        context=context,
        dtype=dtype,
        max_tokens=max_tokens,
        packing=packing,
        exclude=exclude,
        batch_size=batch_size,
        tokens_per_shard=tokens_per_shard,
    )
    source = documents(texts, field=field, split=split)
    plan = prepare(model, planned(model, settings), source, None)
    passes = Passes(model, list(plan.points), plan.dtype)
    return estimated(plan, seconds_per_row(passes, plan, plan.rows), plan.rows, 1)


def _folder(given: str | Path) -> Path:
    """The folder of the store, made if need be; anything but a store in it is refused."""
    folder = Path(given).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "plan.json").exists():
            foreign = [p.name for p in folder.iterdir() if p.name not in OWN]
            foreign = [name for name in foreign if not name.startswith(".mlxray-")]
            if foreign:
                raise InputError(
                    f"{str(folder)!r} is not empty and holds no store ({sorted(foreign)[0]!r} is "
                    "in it): choose a new folder."
                )
        for name in ("shards", "contexts"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot write in {str(folder)!r}: {error.strerror}.") from error
    return folder


def _check_room(folder: Path, estimate: Estimate, share: float) -> None:
    free, needed = shutil.disk_usage(folder).free, estimate.bytes * share
    if free < needed:
        raise SaveError(
            f"the store needs {needed / 1e9:.3g} GB and the disk of {str(folder)!r} has "
            f"{free / 1e9:.3g} GB left. Free some, or ask for fewer points or tokens."
        )


def _complete(folder: Path, plan: Plan, rank: int, patience: float, *, changed: bool) -> None:
    """Write the manifest once all shards are there; whichever process sees that first does it."""
    done, since = -1, time.monotonic()
    while True:
        if (folder / "manifest.json").exists() and not changed:
            return
        there = [record_path(folder, shard).exists() for shard in range(plan.shards)]
        if all(there):
            write_manifest(folder, plan, rank)
            return
        if sum(there) > done:
            done, since = sum(there), time.monotonic()
        if time.monotonic() - since > patience:
            missing = [shard for shard, known in enumerate(there) if not known]
            raise AnalysisError(
                f"waited {patience:.0f} s for shards {missing} of the other processes. If they "
                "have stopped, start the harvest again: it goes on where it stopped."
            )
        time.sleep(POLL)


def _load_command() -> Callable[..., Any]:
    from .command import harvest_command

    return harvest_command


@hookimpl
def mlxray_commands() -> list[Command]:
    """``mlxray harvest``."""
    return [Command("harvest", _load_command)]
