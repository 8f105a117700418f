"""Where the parts of a circuit stand: a layered drawing (Sugiyama et al. 1981), bottom to top.

Attention and MLP of each layer have a row. An edge that passes rows gets a lane in each of them,
so that it runs beside the boxes and never behind one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlxray.analyses.circuits.circuit_result import Edge, base_node
from mlxray.errors import InputError

#: Half the height of a box, where the inputs of a head sit on its lower side, and how far apart
#: boxes and lanes are, in units of the distance between rows.
HALF = 0.26
PORTS = {"q": -0.3, "k": 0.0, "v": 0.3}
_BOX, _LANE = 1.3, 0.32
_SWEEPS, _STEPS = 12, 10

_NAME = re.compile(r"embed|logits|a(?P<attn>\d+)(\.h(?P<head>\d+))?|m(?P<mlp>\d+)")

Row = tuple[int, Any]
Item = str | tuple[str, str]
"""What takes room in a row: a node, or the lane of an edge (sender, node of the receiver)."""


@dataclass(frozen=True)
class Node:
    """A box: its centre, what it is ("embed", "head", …), and what is written in it."""

    name: str
    kind: str
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Arc:
    """An edge and the points that it runs through, from the sender up to the receiver's input."""

    edge: Edge
    letter: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Diagram:
    """A circuit laid out.

    Attributes:
        nodes, arcs: What to draw; the widest arcs first.
        rows: Name of each row, from the bottom.
        span: Least and largest x.
        limit: Largest absolute weight.
        inputs: Node → letters of its inputs that something is read through.
    """

    nodes: list[Node]
    arcs: list[Arc]
    rows: list[str]
    span: tuple[float, float]
    limit: float
    inputs: dict[str, set[str]]


def row_of(name: str) -> Row:
    """Where a node stands: (layer, 0 for attention or 1 for the MLP).

    Raises:
        InputError: for a name that is none of a circuit's.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(
            f"{name!r:.60} is no node of a circuit; those are embed, a3.h1, a3, m3 and logits."
        )
    if name in ("embed", "logits"):
        return (-1, 0) if name == "embed" else (1 << 30, 0)
    return (int(found["mlp"]), 1) if found["mlp"] else (int(found["attn"]), 0)


@dataclass(frozen=True)
class Naming:
    """What the names of nodes tell.

    Attributes:
        row: Where a node stands: rows are drawn in their order.
        row_name: What is written beside a row.
        order: Of the nodes in one row.
        kind: What a node is; each kind has a colour.
        label: What is written in its box.
    """

    row: Callable[[str], Row]
    row_name: Callable[[Row], str]
    order: Callable[[str], int]
    kind: Callable[[str], str]
    label: Callable[[str], str] = str


def lay_out(edges: Sequence[Edge], naming: Naming | None = None) -> Diagram:
    """Place the nodes that the edges touch.

    Args:
        edges: (sender, receiver, weight).
        naming: What names tell; those of heads and MLPs if left out.

    Raises:
        InputError: for no edges, unknown names, or an edge that does not lead upwards.
    """
    if not edges:
        raise InputError("this circuit has no edges: there is nothing to draw.")
    naming = naming or HEADS_AND_MLPS
    names = {name for s, r, _ in edges for name in (s, base_node(r))}
    keys = sorted({naming.row(name) for name in names})
    level = {name: keys.index(naming.row(name)) for name in names}
    links = {(s, base_node(r)) for s, r, _ in edges}
    for sender, receiver in links:
        if level[sender] >= level[receiver]:
            raise InputError(f"the edge {sender} → {receiver} does not lead to a later part.")
    rows: list[list[Item]] = [[] for _ in keys]
    for name in sorted(names, key=lambda n: (level[n], naming.order(n))):
        rows[level[name]].append(name)
    for sender, receiver in sorted(links):
        for between in range(level[sender] + 1, level[receiver]):
            rows[between].append((sender, receiver))
    places = _placed(rows, _chains(links, level))
    nodes = [
        Node(n, naming.kind(n), places[level[n], n], float(level[n]), naming.label(n))
        for n in names
    ]
    arcs = [_arc(edge, level, places) for edge in edges]
    xs = [x for node in nodes for x in (node.x - _BOX / 2, node.x + _BOX / 2)]
    xs += [x for arc in arcs for x, _ in arc.points]
    inputs: dict[str, set[str]] = {}
    for arc in arcs:
        inputs.setdefault(base_node(arc.edge[1]), set()).add(arc.letter)
    return Diagram(
        sorted(nodes, key=lambda n: (n.y, n.x)),
        sorted(arcs, key=lambda arc: -abs(arc.edge[2])),
        [naming.row_name(key) for key in keys],
        (min(xs), max(xs)),
        max(abs(weight) for *_, weight in edges) or 1.0,
        inputs,
    )


def _head(name: str) -> int:
    return int(name.partition(".h")[2] or 0)


def _kind(name: str) -> str:
    return {"a": "head", "m": "mlp"}.get(name[0], name)


def _row_name(key: Row) -> str:
    if key[0] in (-1, 1 << 30):
        return ""
    return f"layer {key[0]} " + ("MLP" if key[1] else "heads")


HEADS_AND_MLPS = Naming(row_of, _row_name, _head, _kind)


def _chains(
    links: set[tuple[str, str]], level: dict[str, int]
) -> dict[tuple[int, Item], list[tuple[int, Item]]]:
    """Each item's neighbours in the rows next to it, as (row, item)."""
    beside: dict[tuple[int, Item], list[tuple[int, Item]]] = {}
    for sender, receiver in sorted(links):
        lanes: list[tuple[int, Item]] = [
            (row, (sender, receiver)) for row in range(level[sender] + 1, level[receiver])
        ]
        chain = [(level[sender], sender), *lanes, (level[receiver], receiver)]
        for below, above in itertools.pairwise(chain):
            beside.setdefault(below, []).append(above)
            beside.setdefault(above, []).append(below)
    return beside


def _placed(
    rows: list[list[Item]], beside: dict[tuple[int, Item], list[tuple[int, Item]]]
) -> dict[tuple[int, Item], float]:
    """Where each item stands in its row: near its neighbours, so that few edges cross."""
    x: dict[tuple[int, Item], float] = {}
    for row, items in enumerate(rows):
        for item, place in zip(items, _apart(items, [0.0] * len(items)), strict=True):
            x[row, item] = place
    for sweep in range(_SWEEPS):
        order = range(len(rows)) if sweep % 2 else range(len(rows) - 1, -1, -1)
        for row in order:
            wanted = {i: _mean([x[place] for place in beside[row, i]]) for i in rows[row]}
            rows[row].sort(key=lambda item: wanted[item])
            places = _apart(rows[row], [wanted[item] for item in rows[row]])
            for item, place in zip(rows[row], places, strict=True):
                x[row, item] = place
    return x


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _apart(items: Sequence[Item], wanted: list[float]) -> list[float]:
    """Places in that order, as near to those wanted as room allows, evenly to both sides."""
    gaps = [(_room(a) + _room(b)) / 2 for a, b in itertools.pairwise(items)]
    right, left = list(wanted), list(wanted)
    for i, gap in enumerate(gaps):
        right[i + 1] = max(right[i + 1], right[i] + gap)
    for i, gap in reversed(list(enumerate(gaps))):
        left[i] = min(left[i], left[i + 1] - gap)
    return [(a + b) / 2 for a, b in zip(left, right, strict=True)]


def _room(item: Item) -> float:
    return _BOX if isinstance(item, str) else _LANE


def _arc(edge: Edge, level: dict[str, int], places: dict[tuple[int, Item], float]) -> Arc:
    sender, receiver, _ = edge
    node = base_node(receiver)
    letter = receiver[len(node) + 1 :]
    lane = [
        (places[row, (sender, node)] + 0.2 * PORTS.get(letter, 0.0), row + side)
        for row in range(level[sender] + 1, level[node])
        for side in (-HALF, HALF)  # straight beside the boxes of the row
    ]
    start = places[level[sender], sender], level[sender] + HALF
    end = places[level[node], node] + PORTS.get(letter, 0.0), level[node] - HALF - 0.06
    corners = [start, *lane, end]
    points = [start]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        for step in range(1, _STEPS + 1):
            share = step / _STEPS
            ease = share * share * (3 - 2 * share)  # upright at both ends, so that parts join
            points.append((x0 + ease * (x1 - x0), y0 + share * (y1 - y0)))
    return Arc(edge, letter, points)
