"""The vocabulary of hook points, and how an address is written.

An address is a point and a layer (``"layers.5.attn_out"`` or ``("attn_out", 5)``), a point of
the whole model (``"logits"``), or a module path (``"layers.5.self_attn.o_proj"``), optionally
followed by ``.input`` or ``.output`` and by ``#k`` for the k-th call of that module in a run.
One head of a point is ``"layers.5.z.h2"``, or ``"L5H2"`` for short; the other names of a circuit's
nodes (``"a5.h2.q"``, ``"m3"``) are addresses, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import AddressError


@dataclass(frozen=True)
class Point:
    """One entry of the vocabulary.

    Attributes:
        name: As written in an address.
        axes: Letters of the design: B batch, S tokens, D width, H heads, K key/value heads,
            d head width, F MLP width, E experts, V vocabulary.
        per_layer: Whether an address needs a layer.
        meaning: One line for people.
    """

    name: str
    axes: str
    per_layer: bool
    meaning: str


POINTS: dict[str, Point] = {
    p.name: p
    for p in (
        Point("embed", "B S D", False, "what enters the first block, after any embedding scale"),
        Point("resid_pre", "B S D", True, "residual stream as the block receives it"),
        Point("attn_out", "B S D", True, "what the attention sub-layer returns"),
        Point("attn_add", "B S D", True, "what attention adds to the residual stream"),
        Point("mixer_out", "B S D", True, "what a state space, convolution or the like returns"),
        Point("mixer_add", "B S D", True, "what it adds to the residual stream"),
        Point("resid_mid", "B S D", True, "residual stream between attention and MLP"),
        Point("mlp_out", "B S D", True, "what the MLP sub-layer returns"),
        Point("mlp_add", "B S D", True, "what the MLP adds to the residual stream"),
        Point("resid_post", "B S D", True, "residual stream as the block returns it"),
        Point("q", "B H S d", True, "queries as used in the scores, after norm and RoPE"),
        Point("k", "B K S d", True, "keys as used in the scores, after norm and RoPE"),
        Point("v", "B K S d", True, "values as mixed by the pattern"),
        Point("scores", "B H S S", True, "what the softmax receives (float32)"),
        Point("pattern", "B H S S", True, "attention probabilities (float32)"),
        Point("z", "B H S d", True, "pattern @ v, before the output projection"),
        Point("head_out", "B H S D", True, "each head's share of attn_out, bias left out"),
        Point("mlp_act", "B S F", True, "input of the MLP's down projection (neurons)"),
        Point("router", "B S E", True, "weight of each expert in the MLP's mix, 0 if not chosen"),
        Point("expert_out", "B S E D", True, "what each expert answers, chosen or not"),
        Point("final_norm", "B S D", False, "output of the final norm"),
        Point("logits", "B S V", False, "the model's output"),
    )
}

#: Many times as large as the stream: kept only when asked for by name.
LARGE_POINTS = ("head_out", "expert_out")

ATTENTION_POINTS = ("q", "k", "v", "scores", "pattern", "z")

#: Names of the field that mean a point where no module of the model has that name; those with
#: ``hook_`` are TransformerLens's, and `elsewhere` has those of its names that mean another thing.
ALIASES = {
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
    "mlp": "mlp_out",
    "attn_head": "z",
    "attn_scores": "scores",
    "hook_embed": "embed",
    "hook_resid_pre": "resid_pre",
    "hook_attn_out": "attn_add",
    "hook_resid_mid": "resid_mid",
    "hook_mlp_out": "mlp_add",
    "hook_resid_post": "resid_post",
    "attn.hook_attn_scores": "scores",
    "attn.hook_pattern": "pattern",
    "mlp.hook_post": "mlp_act",
    "ln_final.hook_normalized": "final_norm",
}

#: An address. The third form is one value of a point that was attached to the model.
AddressLike = str | tuple[str, int] | tuple[str, int, int]


def addresses(given: AddressLike | Sequence[AddressLike]) -> list[AddressLike]:
    """One address, or several, as a list.

    >>> addresses(("z", 0)), addresses(["embed", ("z", 0)])
    ([('z', 0)], ['embed', ('z', 0)])

    Raises:
        AddressError: if it is neither.
    """
    lone: Any = given
    if isinstance(lone, str):
        return [lone]
    pair = isinstance(lone, tuple) and len(lone) in (2, 3) and isinstance(lone[0], str)
    if pair and not isinstance(lone[1], (str, tuple)):
        return [lone]
    if isinstance(lone, (bytes, Mapping)) or not isinstance(lone, Iterable):
        raise AddressError(
            f'{lone!r} is not an address, and no list of them. Write "layers.5.attn_out", '
            '("attn_out", 5) or a list.'
        )
    return list(lone)


#: Points with an axis of heads, the second.
HEAD_POINTS = tuple(p.name for p in POINTS.values() if p.axes.split()[1] in ("H", "K"))

_HEAD = re.compile(r"(?:L(?=\d+H)|a(?=\d+\.h))(\d{1,9})(?:H|\.h)(\d{1,9})(?:\.([qkvz]))?$")
_PART = re.compile(r"([am])(\d{1,9})$")
_CALL = re.compile(r"#(\d{1,9})$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,9})(?=\.|$)")


@dataclass(frozen=True)
class Address:
    """An address taken apart: a dotted `name` relative to the layer if there is one."""

    name: str
    layer: int | None = None
    edge: str | None = None
    call: int | None = None


def node(name: str) -> tuple[str, int] | None:
    """Point and layer of a part that is named as in a circuit; None if it is not.

    >>> node("L4H2"), node("a4.h2.q"), node("m3")
    (('z.h2', 4), ('q.h2', 4), ('mlp_out', 3))
    """
    if match := _HEAD.match(name):
        layer, head, letter = match.groups()
        return f"{letter or 'z'}.h{int(head)}", int(layer)
    if match := _PART.match(name):
        return {"a": "attn_out", "m": "mlp_out"}[match.group(1)], int(match.group(2))
    return None


def head_of(name: str) -> tuple[str, int] | None:
    """Point and head of ``"z.h2"``: one head of a point that has heads; None if it is no such."""
    point, separator, head = name.rpartition(".h")
    if separator and head.isdecimal() and len(head) < 10 and point in HEAD_POINTS:
        return point, int(head)
    return None


def before_layers(key: str) -> list[str]:
    """The parts of a path that stand before ``layers.N``; none if there is no layer in it."""
    match = _LAYER.search(key)
    return [part for part in key[: match.start()].split(".") if part] if match else []


def normalize_layer_key(key: str) -> str:
    """Drop what stands before ``layers.N`` and call the list of layers ``layers``.

    >>> normalize_layer_key("model.model.layers.5.self_attn")
    'layers.5.self_attn'
    """
    match = _LAYER.search(key)
    if match is None:
        while key.startswith("model."):
            key = key[len("model.") :]
        return key
    return f"layers.{match.group(1)}{key[match.end() :]}"


def parse(address: AddressLike) -> Address:
    """Take an address apart. Whether the model has it is the layout's business.

    Raises:
        AddressError: if it is neither a string, nor a (point, layer) pair, nor (point, layer, i).
    """
    if isinstance(address, tuple):
        return _parse_tuple(address)
    if callable(address):
        raise AddressError(
            "a function is no address. Choose the addresses with it: "
            "[(name, edit) for name in model.available_hooks() if chosen(name)]."
        )
    if not isinstance(address, str) or not address:
        raise AddressError(
            f'{address!r} is not an address. Write ("attn_out", 5) or "layers.5.attn_out".'
        )
    if (place := node(address)) is not None:
        return Address(*place)
    call = None
    if match := _CALL.search(address):
        call = int(match.group(1))
        address = address[: match.start()]
    edge = None
    for candidate in ("input", "output"):
        if address == candidate or address.endswith("." + candidate):
            edge = candidate
            address = address[: -len(candidate)].removesuffix(".")
            break
    short = normalize_layer_key(address)
    if match := _LAYER.match(short):
        return Address(short[match.end() :].removeprefix("."), int(match.group(1)), edge, call)
    return Address(short, None, edge, call)


def _parse_tuple(address: tuple[Any, ...]) -> Address:
    if len(address) not in (2, 3) or not isinstance(address[0], str):
        raise AddressError(
            f'{address!r} is not an address. Write ("attn_out", 5) or "layers.5.attn_out".'
        )
    name, *numbers = address
    found = []
    for what, number in zip(("layer", "last number"), numbers, strict=False):
        try:
            if isinstance(number, bool):
                raise TypeError
            found.append(number.__index__())
        except (AttributeError, TypeError):
            raise AddressError(f"the {what} of {address!r} is not an integer.") from None
    layer, *unit = found
    return Address(".".join([name, *map(str, unit)]), layer)


@lru_cache(maxsize=4096)
def tokens_axis(key: str) -> int:
    """The axis of tokens in the value at an address; 1 in what modules return."""
    name = parse(key).name
    return POINTS[name].axes.split().index("S") if name in POINTS else 1
