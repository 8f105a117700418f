"""What is harvested, and how it is cut into shards: decided before the first activation.

The plan fixes the content of every shard, so a harvest that was killed goes on at the next shard,
and several processes share the work without a word to each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.checks.arguments import whole_number
from mlxray.errors import InputError, LoadError
from mlxray.points.vocabulary import AddressLike
from mlxray.storage.files import read_json, write_text

from ..prompts import warn_past_context
from .identity import begin_token, excluded_ids, model_hash, tokenizer_hash
from .packing import PACKINGS, PADDING, Contexts
from .passes import point_widths

FORMAT, VERSION = "mlxray activation store", 1

#: dtype of stored activations → (name in safetensors, bytes).
DTYPES = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4)}
#: Words for positions that are not stored.
EXCLUDABLE = ("bos", "special", "first")
#: int32: token, document, position, place.
LABEL_BYTES = 16


@dataclass(frozen=True)
class Settings:
    """What the user asks for, checked: see `harvest` for the meaning of each."""

    points: tuple[AddressLike, ...]
    context: int
    dtype: str
    batch_size: int
    tokens_per_shard: int
    max_tokens: int | None
    packing: str
    exclude: tuple[str | int, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise InputError('no points to harvest: name one or several, such as ("resid_post", 3)')
        if self.dtype not in DTYPES:
            raise InputError(f"dtype={self.dtype!r}: it is one of {', '.join(DTYPES)}.")
        if self.packing not in PACKINGS:
            raise InputError(f"packing={self.packing!r}: it is one of {', '.join(PACKINGS)}.")
        for name, least in (("context", 2), ("batch_size", 1), ("tokens_per_shard", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name}={value}: it is at least {least}.")
        if self.max_tokens is not None and self.max_tokens < self.context:
            raise InputError(
                f"max_tokens={self.max_tokens} is less than one row of context={self.context} "
                "tokens; leave it out to read all."
            )
        for word in self.exclude:
            if isinstance(word, str) and word not in EXCLUDABLE:
                raise InputError(
                    f"exclude: {word!r} is none of {', '.join(EXCLUDABLE)}, and no token id."
                )

    @property
    def rows_per_shard(self) -> int:
        """Rows of tokens that a full shard is made of."""
        return max(1, self.tokens_per_shard // self.context)


@dataclass(frozen=True)
class Data:
    """The documents that were read.

    Attributes:
        sha256: Hash of the documents, one after the other.
        documents: How many were read, blank ones included.
        blank: How many of them have no text.
        tokens: Tokens in the rows, padding left out.
        dropped: Tokens at the end that fill no row.
        whole: Whether the source was read to its end.
    """

    sha256: str
    documents: int
    blank: int
    tokens: int
    dropped: int
    whole: bool


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is in the store.

    Attributes:
        model: Hash of the model's parameters, see `model_hash`.
        name: Its name, shown to people.
        tokenizer: Hash of its tokenizer, or None.
        points: Canonical address → width D, in the order in which they are stored.
        dtype: Of the stored activations.
        context: Tokens of a row.
        batch_size: Rows of one forward pass.
        rows_per_shard: Rows of every shard but the last.
        max_tokens: Limit on what is read, or None.
        packing: How documents become rows, see `Packer`.
        exclude: Ids whose activations are not stored.
        skip_first: Whether the first position of each row is not stored.
        begin: The token in front of documents, or None.
        rows: Rows in all.
        data: What was read; None before it was.
    """

    model: str
    name: str
    tokenizer: str | None
    points: dict[str, int]
    dtype: str
    context: int
    batch_size: int
    rows_per_shard: int
    max_tokens: int | None
    packing: str
    exclude: tuple[int, ...]
    skip_first: bool
    begin: int | None
    rows: int = 0
    data: Data | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.rows_per_shard)

    @property
    def item(self) -> int:
        """Bytes of one stored number."""
        return DTYPES[self.dtype][1]

    @property
    def row_bytes(self) -> int:
        """Bytes that one token takes in the store: all points and its labels."""
        return sum(self.points.values()) * self.item + LABEL_BYTES

    def rows_of(self, shard: int) -> range:
        """The rows that shard `shard` is made of."""
        first = shard * self.rows_per_shard
        return range(first, min(first + self.rows_per_shard, self.rows))

    def kept(self, contexts: Contexts) -> npt.NDArray[np.bool_]:
        """(R, C): the tokens whose activations are stored."""
        kept: npt.NDArray[np.bool_] = contexts.documents != PADDING
        if self.exclude:
            kept &= ~np.isin(contexts.tokens, self.exclude)
        if self.skip_first:
            kept[:, 0] = False
        return kept

    def as_json(self) -> dict[str, Any]:
        """As it is written into ``plan.json`` and the manifest."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any, path: Path) -> Plan:
        """Read what `as_json` gave.

        Raises:
            LoadError: if it is no plan, or one of another version.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise LoadError(f"{str(path)!r} does not belong to an activation store.")
        if content.get("version") != VERSION:
            raise LoadError(
                f"{str(path)!r} has version {content.get('version')} of the format; "
                f"this mlxray reads version {VERSION}."
            )
        given = {k: v for k, v in content.items() if k not in ("format", "version")}
        try:
            data = given.pop("data")
            plan = cls(**given, data=Data(**data) if data is not None else None)
            plan = replace(plan, exclude=tuple(plan.exclude))
            valid = plan.dtype in DTYPES and plan.rows_per_shard > 0 and plan.rows > 0
            valid &= all(width > 0 for width in plan.points.values())
        except (TypeError, KeyError, AttributeError) as error:
            raise LoadError(f"{str(path)!r} is not a whole plan: {error}.") from error
        if not valid:
            raise LoadError(f"{str(path)!r} holds numbers that fit no store.")
        return plan


def planned(model: InterpretableModel, settings: Settings) -> Plan:
    """The plan for a model, before the texts are read.

    Raises:
        AddressError: if the model does not have a point.
        InputError: if a point is named twice or is not one array of tokens by width; or the
            context is longer than the model's table of positions.
    """
    limit = model.tokens.context
    if limit is not None and settings.context > limit:
        raise InputError(
            f"context={settings.context}, but the model has positions for {limit} tokens."
        )
    warn_past_context(model, settings.context, f"a row (context={settings.context})")
    return Plan(
        model=model_hash(model),
        name=model.name,
        tokenizer=tokenizer_hash(model),
        points=point_widths(model, settings.points),
        dtype=settings.dtype,
        context=settings.context,
        batch_size=settings.batch_size,
        rows_per_shard=settings.rows_per_shard,
        max_tokens=settings.max_tokens,
        packing=settings.packing,
        exclude=tuple(excluded_ids(model, settings.exclude)),
        skip_first="first" in settings.exclude,
        begin=begin_token(model),
    )


#: Fields of a plan that may differ between two runs of one harvest.
_FREE = ("name", "rows", "data")


def check_same(there: Plan, here: Plan, folder: Path) -> None:
    """Refuse to go on with a store that was planned otherwise.

    Raises:
        InputError: if they differ; it says in what.
    """
    old, new = asdict(there), asdict(here)
    found = [
        f"{name} is {_short(old[name])} there and {_short(new[name])} here"
        for name in old
        if name not in _FREE and old[name] != new[name]
    ]
    if list(there.points) != list(here.points) and old["points"] == new["points"]:
        found.append(f"points are {list(there.points)} there and {list(here.points)} here")
    if found:
        raise InputError(
            f"{str(folder)!r} holds a store of another plan: {'; '.join(found)}. "
            "Ask for the same, or choose another folder."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def read_plan(folder: Path) -> Plan | None:
    """The plan of the store in `folder`; None if there is none yet."""
    path = folder / "plan.json"
    return Plan.from_json(read_json(path), path) if path.exists() else None


def write_plan(folder: Path, plan: Plan) -> None:
    """Write ``plan.json``, whole or not at all."""
    write_text(folder / "plan.json", json.dumps(plan.as_json(), indent=1) + "\n")


def settings_from(
    points: Sequence[AddressLike],
    *,
    context: int,
    dtype: str,
    max_tokens: int | None,
    packing: str,
    exclude: Sequence[str | int] | str,
    batch_size: int,
    tokens_per_shard: int,
) -> Settings:
    """Settings of `harvest`'s arguments, numbers and lists checked."""
    if isinstance(points, str) or not isinstance(points, Sequence):
        raise InputError(f"points is a list of addresses, such as [{points!r}].")
    given = (exclude,) if isinstance(exclude, (str, int)) else tuple(exclude)
    words = [w if isinstance(w, str) else whole_number(w, "a token in exclude") for w in given]
    return Settings(
        points=tuple(tuple(p) if isinstance(p, list) else p for p in points),
        context=whole_number(context, "context"),
        dtype=dtype,
        max_tokens=None if max_tokens is None else whole_number(max_tokens, "max_tokens"),
        packing=packing,
        exclude=tuple(words),
        batch_size=whole_number(batch_size, "batch_size"),
        tokens_per_shard=whole_number(tokens_per_shard, "tokens_per_shard"),
    )
