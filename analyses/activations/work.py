"""The second half of a harvest: shard after shard is computed, and written in another thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray.arrays import evaluate, number
from mlxray.errors import AnalysisError, SaveError

from .background import Background
from .estimate import Estimate
from .identity import versions
from .manifest import LABELS, Record, Totals, record_path, shard_path, shard_tensors
from .packing import PADDING, Contexts
from .passes import Pass, Passes
from .plan import Plan
from .prepare import read_contexts
from .shard_file import ShardWriter

#: Passes whose rows may wait to be written.
WAITING = 2


class Progress:
    """A bar of tokens on stderr, with the estimate above it."""

    def __init__(
        self,
        plan: Plan,
        shards: Sequence[int],
        estimate: Estimate,
        rank: int,
        size: int,
        *,
        shown: bool,
    ) -> None:
        from tqdm import tqdm

        name = "harvest" if size == 1 else f"harvest {rank + 1}/{size}"
        rest = "" if len(shards) == plan.shards else f"; {len(shards)} left for this process"
        if shown:
            tqdm.write(f"{name}: {estimate}{rest}", file=sys.stderr)
        tokens = sum(len(plan.rows_of(shard)) for shard in shards) * plan.context
        self._bar = tqdm(
            total=tokens, desc=name, unit="tok", unit_scale=True, disable=not shown, position=rank
        )

    def add(self, tokens: int) -> None:
        """Count tokens that were read, padding included."""
        self._bar.update(tokens)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()


@dataclass
class _Shard:
    """A shard that is being made."""

    number: int
    contexts: Contexts
    kept: npt.NDArray[np.bool_]
    writer: ShardWriter
    totals: dict[str, Totals]


@dataclass
class _Step:
    """One forward pass of a shard: over these of its rows and as many of their columns."""

    shard: _Shard
    rows: slice
    columns: int
    last: bool
    made: Pass = field(init=False)

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        return self.shard.kept[self.rows, : self.columns]

    def start(self, passes: Passes) -> None:
        tokens = self.shard.contexts.tokens[self.rows, : self.columns]
        self.made = passes.start(tokens, self.kept)


def compute(
    passes: Passes,
    plan: Plan,
    folder: Path,
    shards: Sequence[int],
    owner: int,
    progress: Progress,
) -> None:
    """Compute and write shards.

    While one pass is computed, the one before it is hashed and written, so that the model never
    waits for the disk unless the disk is the slower of the two.

    Args:
        passes: For the plan's points.
        plan: The plan.
        folder: Of the store.
        shards: Which ones.
        owner: Rank of this process.
        progress: Told of the tokens.

    Raises:
        AnalysisError: if an activation is not finite.
        SaveError: if the system cannot write.
    """
    opened: list[_Shard] = []
    try:
        with Background(WAITING) as background:
            before: _Step | None = None
            for step in _steps(plan, folder, shards, owner, opened):
                step.start(passes)
                if before is not None:
                    _finish(before, plan, folder, background, progress)
                before = step
            if before is not None:
                _finish(before, plan, folder, background, progress)
    except SaveError as error:
        raise SaveError(
            f"{error} What is finished stays: with the cause gone, the same harvest goes on there."
        ) from error
    finally:
        for shard in opened:
            shard.writer.abandon()  # does nothing to one that is finished


def _steps(
    plan: Plan, folder: Path, shards: Sequence[int], owner: int, opened: list[_Shard]
) -> Iterator[_Step]:
    for shard_number in shards:
        contexts = read_contexts(folder, plan, shard_number)
        kept = plan.kept(contexts)
        tensors = shard_tensors(plan, int(kept.sum()))
        writer = ShardWriter(shard_path(folder, shard_number), tensors, owner)
        totals = {key: Totals(np.zeros(width)) for key, width in plan.points.items()}
        shard = _Shard(shard_number, contexts, kept, writer, totals)
        opened[:] = [*(s for s in opened if not s.writer.finished), shard]
        for start in range(0, len(contexts), plan.batch_size):
            rows = slice(start, min(start + plan.batch_size, len(contexts)))
            used = (contexts.documents[rows] != PADDING).any(axis=0)
            yield _Step(shard, rows, int(used.sum()), rows.stop == len(contexts))


def _finish(
    step: _Step, plan: Plan, folder: Path, background: Background, progress: Progress
) -> None:
    """Wait for a pass, check it, and hand its rows to the writer."""
    evaluate(step.made.arrays())
    shard = step.shard
    for key, sums in step.made.sums.items():
        norms = number(sums.norms)
        if not np.isfinite(norms):
            raise _not_finite(step, key, plan)
        vector = np.array(sums.vector, dtype=np.float64)
        shard.totals[key].add(Totals(vector, norms, number(sums.squares)))
    rows = {key: np.asarray(made) for key, made in step.made.rows.items()}

    def write() -> None:
        for key, part in rows.items():
            shard.writer.write(key, part)
        if step.last:
            _close(shard, folder)

    background.put(write)
    progress.add(len(step.kept) * plan.context)


def _close(shard: _Shard, folder: Path) -> None:
    kept, contexts = shard.kept, shard.contexts
    labels = (contexts.tokens[kept], contexts.documents[kept], contexts.positions[kept])
    places = np.flatnonzero(kept).astype(np.int32)
    for name, values in zip(LABELS, (*labels, places), strict=True):
        shard.writer.write(name, values)
    hashes = shard.writer.finish()
    count, size = len(places), shard.writer.bytes
    record = Record(count, size, hashes, versions(), shard.totals)
    record.write(record_path(folder, shard.number))


def _not_finite(step: _Step, key: str, plan: Plan) -> AnalysisError:
    """The error for the first row of a point that is not finite, or whose square is not."""
    bits = step.made.rows[key]
    rows: Any = bits.view(getattr(mx, plan.dtype)).astype(mx.float32)
    bad = np.flatnonzero(~np.isfinite(np.asarray(rows.square().sum(axis=-1))))
    contexts, kept = step.shard.contexts, step.kept
    where = ""
    if len(bad):
        document = contexts.documents[step.rows, : step.columns][kept][bad[0]]
        position = contexts.positions[step.rows, : step.columns][kept][bad[0]]
        where = f", document {document}, position {position}"
    hint = " float16 holds numbers up to 65504." if plan.dtype == "float16" else ""
    return AnalysisError(
        f"{key!r} is not finite in shard {step.shard.number}{where}: the model gives NaN, "
        f"infinity or a number too large for {plan.dtype}.{hint} Look at that document, leave it "
        "out, or choose another dtype."
    )
