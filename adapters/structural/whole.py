"""The parts of the whole model: list of blocks, embedding, final norm, head."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.nn as nn
import numpy as np

from mlxray.errors import AdapterError, nearest

from .record import PROMPTS, Array, Recording, Seen
from .sums import close

#: Stands for a module that the model does not have.
NONE = "(none)"


@dataclass(frozen=True)
class Whole:
    """Paths from the root; `NONE` where there is no such module.

    Attributes:
        layers: Path of the list of blocks, or several joined by commas.
        blocks: The blocks' calls.
        stream: Position of the residual stream among a block's arguments.
    """

    layers: str
    blocks: list[Seen]
    stream: int
    embed: str
    positions: str | None
    final_norm: str
    head: str


def lists_of(root: nn.Module) -> dict[str, list[str]]:
    """Lists of modules in the tree: path → paths of its members, in order."""
    found: dict[str, dict[int, str]] = {}
    for path, _ in root.named_modules():
        stem, _, last = path.rpartition(".")
        if last.isdigit():
            found.setdefault(stem, {})[int(last)] = path
    return {stem: [members[i] for i in sorted(members)] for stem, members in found.items()}


def find_whole(root: nn.Module, recording: Recording, layers: str | None) -> Whole:
    """The parts of the model.

    Args:
        root: The model.
        recording: Its tiny forward.
        layers: Name of the list of blocks, if the user gave one.

    Raises:
        AdapterError: if the blocks cannot be found.
    """
    lists = lists_of(root)
    if layers is not None:
        lists = {p: m for p, m in lists.items() if p == layers or p.endswith("." + layers)}
        if not lists:
            known = [p.rpartition(".")[2] for p in lists_of(root)]
            raise AdapterError(
                f"the model has no list of blocks {layers!r}. {nearest(layers, known)} "
                'Pass its name as layer_attr="…".'
            )
    chains: dict[str, tuple[int, list[Seen]]] = {}
    for path, members in lists.items():
        found = _chain(recording, members)
        if found is not None:
            chains[path] = found
    if not chains:
        tried = ", ".join(map(repr, lists)) or "no list of modules"
        raise AdapterError(
            f"cannot tell which modules are the blocks (looked at {tried}): no list of modules "
            "is called one after the other, each with what the one before returned, of shape "
            '(batch, tokens, width). Pass layer_attr="…", or an Adapter.'
        )
    path = min(chains, key=lambda p: (p.count("."), -len(chains[p][1])))
    stream, blocks = chains.pop(path)
    paths = [path]
    for other, (position, chain) in chains.items():
        if position == stream and close(chain[0].inputs[stream], blocks[-1].output, 0):
            paths, blocks = [*paths, other], blocks + chain
    calls = [s for s in recording.calls if not any(s.path.startswith(p + ".") for p in paths)]
    before = [s for s in calls if s.time < blocks[0].time]
    after = [s for s in calls if s.time > blocks[-1].time]
    last = blocks[-1].output
    norm = next((s for s in after if close(s.input, last, 0) and _same_shape(s)), None)
    return Whole(
        ",".join(paths),
        blocks,
        stream,
        _embedding(before, recording),
        _positions(before),
        norm.path if norm is not None else NONE,
        _head(after, norm or blocks[-1], recording),
    )


def _chain(recording: Recording, members: list[str]) -> tuple[int, list[Seen]] | None:
    """The calls of a list's members if each takes up where the one before left off.

    Returns:
        The position of the stream among the arguments, and the calls.
    """
    calls: list[Seen] = []
    for member in members:
        found = [seen for seen in recording.calls if seen.path == member]
        if len(found) != 1:
            return None
        calls += found
    for position in range(min(len(call.inputs) for call in calls)):
        streams = [call.inputs[position] for call in calls]
        if not all(_is_stream(value, call) for value, call in zip(streams, calls, strict=True)):
            continue
        links = zip(streams[1:], calls, strict=False)
        if all(close(value, call.output, 0) for value, call in links):
            return position, calls
    return None


def _is_stream(value: Array | None, call: Seen) -> bool:
    output = call.output
    return (
        value is not None
        and output is not None
        and value.ndim == 3
        and value.shape[:2] == PROMPTS
        and value.dtype.kind == "f"
        and value.shape == output.shape
    )


def _same_shape(seen: Seen) -> bool:
    return (
        seen.input is not None and seen.output is not None and seen.input.shape == seen.output.shape
    )


def _embedding(before: list[Seen], recording: Recording) -> str:
    for seen in before:
        if seen.input is not None and seen.input.dtype.kind in "iu" and seen.output is not None:
            same = np.array_equal(seen.input, recording.tokens)
            if same and seen.output.ndim == 3 and not seen.module.children():
                return seen.path
    return NONE


def _positions(before: list[Seen]) -> str | None:
    count = np.arange(PROMPTS[1])
    for seen in before:
        value = seen.input
        if value is None or value.dtype.kind not in "iu" or "weight" not in seen.module:
            continue
        if value.shape[-1:] == count.shape and not (value - count).any():
            return seen.path
    return None


def _head(after: list[Seen], last: Seen, recording: Recording) -> str:
    """The module that makes logits of the normalized stream; a scale or a cap may follow."""
    logits = recording.logits
    for seen in after:
        if seen.output is None or logits is None or seen.output.shape != logits.shape:
            continue
        if seen.time > last.time and close(seen.input, last.output, 0) and seen.path:
            return seen.path
    return NONE
