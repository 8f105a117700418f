"""What is in a store: a record beside each finished shard, and the manifest of the whole.

A shard is finished once its record is there, and the store once its manifest is there. Each is a
file of its own that appears whole or not at all, so a process may be killed at any moment, and
none of them has to be appended to by several processes.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxray.errors import InputError, LoadError
from mlxray.storage.files import read_json, write_text

from .plan import DTYPES, Plan
from .shard_file import ShardWriter, Tensors

#: Facts of each stored token, (n,) int32: its id, its document, its place in the document, and its
#: place in the shard's contexts, flattened.
LABELS = ("tokens", "documents", "positions", "places")


def shard_path(folder: Path, shard: int) -> Path:
    """Where the activations of a shard are."""
    return folder / "shards" / f"{shard:06}.safetensors"


def context_path(folder: Path, shard: int) -> Path:
    """Where the rows of tokens are that the shard was computed from."""
    return folder / "contexts" / f"{shard:06}.safetensors"


def record_path(folder: Path, shard: int) -> Path:
    """Where the shard's record is."""
    return folder / "shards" / f"{shard:06}.json"


def shard_tensors(plan: Plan, tokens: int) -> Tensors:
    """What is in the file of a shard that stores `tokens` tokens."""
    kind = DTYPES[plan.dtype][0]
    points = {key: (kind, (tokens, width)) for key, width in plan.points.items()}
    return {**points, **dict.fromkeys(LABELS, ("I32", (tokens,)))}


def context_tensors(plan: Plan, shard: int) -> Tensors:
    """What is in the file of a shard's contexts."""
    shape = (len(plan.rows_of(shard)), plan.context)
    return dict.fromkeys(LABELS[:3], ("I32", shape))


@dataclass
class Totals:
    """Sums over stored rows of one point, in float64.

    Attributes:
        vector: (D,) sum of the rows.
        norms: Sum of their norms.
        squares: Sum of their squared norms.
    """

    vector: npt.NDArray[np.float64]
    norms: float = 0.0
    squares: float = 0.0

    def add(self, other: Totals) -> None:
        """Count the rows of `other` too."""
        self.vector += other.vector
        self.norms += other.norms
        self.squares += other.squares

    def as_json(self) -> dict[str, Any]:
        """Exact: the vector as base64 of its bytes."""
        text = base64.b64encode(self.vector.astype("<f8").tobytes()).decode()
        return {"vector": text, "norms": self.norms, "squares": self.squares}

    @classmethod
    def from_json(cls, content: Any) -> Totals:
        """Read what `as_json` gave."""
        vector = np.frombuffer(base64.b64decode(content["vector"], validate=True), dtype="<f8")
        return cls(vector, float(content["norms"]), float(content["squares"]))


@dataclass(frozen=True)
class Record:
    """A finished shard.

    Attributes:
        tokens: Tokens stored in it.
        bytes: Size of its file.
        sha256: Tensor → hash of its bytes.
        versions: What computed it.
        totals: Point → sums over its rows; in the record only, not in the manifest.
    """

    tokens: int
    bytes: int
    sha256: dict[str, str]
    versions: dict[str, str]
    totals: dict[str, Totals]

    def write(self, path: Path) -> None:
        """Write it, whole or not at all; this finishes the shard."""
        content = {**vars(self), "totals": {k: t.as_json() for k, t in self.totals.items()}}
        write_text(path, json.dumps(content) + "\n")


def finished(folder: Path, plan: Plan, shard: int) -> Record | None:
    """The record of a shard whose file is there in full; None if it is to be harvested (again)."""
    path = record_path(folder, shard)
    if not path.exists():
        return None
    content = read_json(path)
    try:
        totals = {key: Totals.from_json(content["totals"][key]) for key in plan.points}
        record = Record(**{**content, "totals": totals})
        size = shard_path(folder, shard).stat().st_size
        whole = size == record.bytes and set(record.sha256) == set(shard_tensors(plan, 0))
        whole &= all(len(totals[key].vector) == width for key, width in plan.points.items())
    except FileNotFoundError:
        return None
    except (TypeError, KeyError, ValueError) as error:
        raise LoadError(
            f"{str(path)!r} is damaged ({error}). Delete it and harvest again: that makes this "
            "shard anew."
        ) from error
    return record if whole else None


@dataclass(frozen=True)
class Shard:
    """A shard as the manifest lists it: tokens, bytes, and tensor → hash."""

    tokens: int
    bytes: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class PointStatistics:
    """Over all stored rows of a point.

    Attributes:
        mean_norm: Mean of the norms of the rows.
        mean_square: Mean of their squared norms.
    """

    mean_norm: float
    mean_square: float


@dataclass(frozen=True)
class Manifest:
    """Everything about a finished store but its numbers.

    Attributes:
        plan: What was harvested.
        tokens: Tokens stored.
        shards: The shards in order.
        statistics: Point → norms of its rows. (Means are in ``statistics.safetensors``.)
        versions: Distinct versions of what computed it.
    """

    plan: Plan
    tokens: int
    shards: tuple[Shard, ...]
    statistics: dict[str, PointStatistics]
    versions: tuple[dict[str, str], ...]


def statistics_tensors(plan: Plan) -> Tensors:
    """What is in ``statistics.safetensors``: the mean (D,) of each point, float32."""
    return {key: ("F32", (width,)) for key, width in plan.points.items()}


def write_manifest(folder: Path, plan: Plan, owner: int) -> None:
    """Write the means and then the manifest, which finishes the store.

    Raises:
        InputError: if no token is left to store.
        LoadError: if a shard is not finished.
        SaveError: if the system cannot write.
    """
    totals = {key: Totals(np.zeros(width)) for key, width in plan.points.items()}
    shards, versions = [], {}
    for number in range(plan.shards):  # one record at a time: there may be many
        record = finished(folder, plan, number)
        if record is None:
            raise LoadError(f"shard {number} of {str(folder)!r} is damaged: harvest again.")
        for key, total in totals.items():
            total.add(record.totals[key])
        shards.append(Shard(record.tokens, record.bytes, record.sha256))
        versions[json.dumps(record.versions, sort_keys=True)] = record.versions
    count = sum(shard.tokens for shard in shards)
    if not count:
        raise InputError("every token is excluded: there is nothing to store.")
    means = ShardWriter(folder / "statistics.safetensors", statistics_tensors(plan), owner)
    try:
        for key, total in totals.items():
            means.write(key, (total.vector / count).astype(np.float32).view(np.uint32))
        means.finish()
    finally:
        means.abandon()  # does nothing to a finished file
    statistics = {k: PointStatistics(t.norms / count, t.squares / count) for k, t in totals.items()}
    content = {
        **plan.as_json(),
        "tokens": count,
        "statistics": {key: asdict(found) for key, found in statistics.items()},
        "versions": list(versions.values()),
        "shards": [asdict(shard) for shard in shards],
    }
    write_text(folder / "manifest.json", json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the store in `folder`.

    Raises:
        LoadError: if there is no store, it is not finished, or its manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        if (folder / "plan.json").exists():
            raise LoadError(
                f"the store in {str(folder)!r} is not finished: run the same harvest again, and "
                "it goes on where it stopped."
            )
        raise LoadError(f"there is no activation store in {str(folder)!r}.")
    content = read_json(path)
    more = ("tokens", "shards", "statistics", "versions")
    try:
        shared = content
        if isinstance(content, dict):
            shared = {name: value for name, value in content.items() if name not in more}
        plan = Plan.from_json(shared, path)
        made = Manifest(
            plan=plan,
            tokens=content["tokens"],
            shards=tuple(Shard(**shard) for shard in content["shards"]),
            statistics={k: PointStatistics(**content["statistics"][k]) for k in plan.points},
            versions=tuple(content["versions"]),
        )
        counts = [shard.tokens for shard in made.shards]
        whole = len(counts) == plan.shards and sum(counts) == made.tokens > 0
        whole &= all(type(n) is int and n >= 0 for n in counts)
    except (TypeError, KeyError, AttributeError) as error:
        raise LoadError(f"{str(path)!r} is not a whole manifest: {error}.") from error
    if not whole:
        raise LoadError(f"{str(path)!r}: its shards do not add up to its tokens.")
    return made
