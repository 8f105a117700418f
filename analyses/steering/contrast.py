"""Activations of contrasting prompts, read at one position of each or averaged over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, number
from mlxray.errors import InputError, PointAbsent, nearest
from mlxray.generation import chat_ids
from mlxray.generation.prompts import is_chat
from mlxray.points.dropout import refuse_dropout
from mlxray.points.vocabulary import ALIASES, POINTS, tokens_axis
from mlxray.tokens import Batch

#: Positions that have a name; integers name others, negative ones from a prompt's end.
POSITIONS = ("last", "mean")

#: Tokens of one pass.
_TOKENS = 2048

Layers = int | Sequence[int] | None


@dataclass(frozen=True)
class Reading:
    """What several prompts have at one address.

    Attributes:
        values: (N, …) float32, one entry for each prompt: the activation without its axes of
            batch and tokens.
        norms: Sum of the Euclidean norms of the tokens counted. A prompt's first token counts
            only where no other was read: in many models its norm is many times the others'.
        counted: How many tokens that is.
    """

    values: mx.array
    norms: float
    counted: int


def addresses_of(model: InterpretableModel, point: str, layers: Layers) -> list[str]:
    """The canonical addresses of a point (or of a module path inside a block) at some layers.

    Args:
        model: The model.
        point: A point of the vocabulary, one of its aliases, or a path such as "mlp.up_proj".
        layers: One layer, several, or None for all. Points of the whole model take none.

    Raises:
        InputError: for a point with two axes of tokens, or layers where there are none.
        AddressError: if the model does not have it.
    """
    name = ALIASES.get(point, point)
    known = POINTS.get(name)
    if known is not None and known.axes.split().count("S") > 1:
        fit = [p.name for p in POINTS.values() if p.axes.split().count("S") == 1]
        raise InputError(
            f"{point!r} has two axes of tokens ({known.axes}): no vector fits all prompts. "
            f"{nearest(name, fit)}"
        )
    if known is not None and not known.per_layer:
        if layers is not None:
            raise InputError(f"{point!r} belongs to the whole model: leave out the layers.")
        return [model.layout.site(name).key]
    wanted = model.layer_indices([layers] if isinstance(layers, int) else layers)
    try:
        return [model.layout.site((name, layer)).key for layer in dict.fromkeys(wanted)]
    except PointAbsent as error:
        if layers is not None:
            raise
        raise InputError(f"{error}. Choose layers that have {point!r}: layers=[…].") from error


def rows_of(model: InterpretableModel, prompts: Any, name: str) -> list[list[int]]:
    """Token ids of one prompt or of several: text, ids, or chats (lists of messages).

    Raises:
        InputError: if there is none, or one cannot be run; `name` says which list it was.
    """
    if prompts is None or (isinstance(prompts, (list, tuple)) and not prompts):
        raise InputError(f"{name} is empty: give at least one prompt.")
    if is_chat(prompts):
        return [chat_ids(model, prompts)]
    if isinstance(prompts, (list, tuple)) and all(map(is_chat, prompts)):
        return [chat_ids(model, chat) for chat in prompts]
    return model.tokens.batch(prompts).rows()


def read(
    model: InterpretableModel,
    rows: Sequence[Sequence[int]],
    addresses: Sequence[str],
    position: str | int,
    progress: str | None = None,
) -> dict[str, Reading]:
    """Read each prompt at each address; each prompt has what it has alone.

    Args:
        model: The model.
        rows: Token ids of the prompts.
        addresses: Canonical addresses.
        position: "last", "mean" (over all tokens of a prompt), or one position.
        progress: Title of a progress bar; None for no bar.

    Raises:
        InputError: for an unknown position, one that a prompt does not have, or an address whose
            value is not one array with tokens.
        AnalysisError: if dropout is on.
    """
    refuse_dropout(model.layout)
    if isinstance(position, bool) or not (isinstance(position, int) or position in POSITIONS):
        raise InputError(f'position is "last", "mean" or an integer; got {position!r}.')
    found: dict[str, list[tuple[mx.array, mx.array]]] = {address: [] for address in addresses}
    # Rows of one length need no padding, so nothing depends on how a model treats it.
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    with tqdm(total=len(rows), desc=progress, disable=progress is None, unit="prompt") as bar:
        for length, alike in groupby(order, key=lambda row: len(rows[row])):
            same, size = list(alike), max(1, _TOKENS // length)
            for start in range(0, len(same), size):
                batch = model.tokens.batch([list(rows[i]) for i in same[start : start + size]])
                cache = model.activations(batch, list(addresses))
                for address in addresses:
                    found[address] += _entries(address, cache[address], batch, position)
                bar.update(len(batch.lengths))
    back = sorted(range(len(order)), key=order.__getitem__)
    return {address: _reading([pairs[i] for i in back]) for address, pairs in found.items()}


def _reading(pairs: Sequence[tuple[mx.array, mx.array]]) -> Reading:
    norms = [number(mx.sum(each)) for _, each in pairs]
    return Reading(
        mx.stack([value for value, _ in pairs]), sum(norms), sum(n.size for _, n in pairs)
    )


def _entries(
    address: str, value: Any, batch: Batch, position: str | int
) -> list[tuple[mx.array, mx.array]]:
    """For each row, all of one length, its entry and the norms of the tokens that count."""
    axis = tokens_axis(address)
    if not isinstance(value, mx.array) or value.shape[axis : axis + 1] != batch.ids.shape[1:]:
        kind = value.shape if isinstance(value, mx.array) else type(value).__name__
        raise InputError(
            f"{address!r} is not one array with {batch.ids.shape[1]} tokens on axis {axis}: "
            f"{kind}. Choose a point, such as 'resid_post'."
        )
    tokens_first = mx.moveaxis(value, axis, 1).astype(mx.float32)
    found = []
    for row, length in enumerate(batch.lengths):
        if position == "mean":
            read_here = tokens_first[row]
            counting = read_here[1:] if length > 1 else read_here
        else:
            at = batch.index(row, -1 if position == "last" else int(position))
            counting = read_here = tokens_first[row, at : at + 1]
        flat = counting.reshape(counting.shape[0], -1)
        found.append((mx.mean(read_here, axis=0), mx.linalg.norm(flat, axis=1)))
    evaluate(found)
    return found
