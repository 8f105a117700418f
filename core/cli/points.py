"""``mlxray points MODEL``: which hook points a model has, and why it lacks the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..display import show_text
from .options import POCKET, AdapterName, Json, ModelArgument, load
from .show import new_table
from .terminal import output, print_json, short_name

if TYPE_CHECKING:
    from rich.table import Table

    from ..model import InterpretableModel
    from ..points.status import PointStatus


@dataclass
class Group:
    """One point of the layers that have it alike.

    Attributes:
        point: Its name.
        axes: Letters of its axes.
        shape: The same with the model's own numbers, B and S being the prompt's; None if absent.
        layers: The layers; empty for a point of the whole model.
        available: Whether they have it.
        detail: Where it is, or why it is absent.
    """

    point: str
    axes: str
    shape: str | None
    available: bool
    detail: str
    layers: list[int] = field(default_factory=list)


def points(model: ModelArgument = POCKET, adapter: AdapterName = None, json: Json = False) -> None:
    """Which hook points a model has, with their shapes, and why it lacks the others."""
    loaded = load(model, adapter)
    groups = grouped(loaded)
    if json:
        print_json(
            {
                "model": loaded.name,
                "adapter": loaded.adapter.name,
                "layers": loaded.layout.n_layers,
                "notes": list(loaded.adapter.notes),
                "points": [vars(group) for group in groups],
            }
        )
        return
    console = output()
    console.print(_table(groups, loaded.layout.n_layers))
    for note in loaded.adapter.notes:
        console.print(f"note: {show_text(note)}")
    console.print(
        f"\n{short_name(loaded.name)}: {loaded.layout.n_layers} layers, adapter "
        f"{show_text(loaded.adapter.name)}; B prompts, S tokens",
        style="bold",
    )


def grouped(model: InterpretableModel) -> list[Group]:
    """The points in the vocabulary's order, layers that are alike together."""
    from ..points.vocabulary import POINTS

    statuses = model.points()
    shapes = _shapes(model, [s for s in statuses if s.available])
    groups: dict[tuple[Any, ...], Group] = {}
    for status in statuses:
        shape = shapes.get((status.point, status.layer))
        detail = _general(model, status.detail, status.layer)
        key = (status.point, shape, status.available, detail)
        axes = POINTS[status.point].axes
        group = groups.setdefault(key, Group(status.point, axes, shape, status.available, detail))
        if status.layer is not None:
            group.layers.append(status.layer)
    order = list(POINTS)
    return sorted(groups.values(), key=lambda g: order.index(g.point))


def _shapes(
    model: InterpretableModel, available: list[PointStatus]
) -> dict[tuple[str, int | None], str]:
    """Shapes as a run of two tokens gives them, its batch and tokens as letters again."""
    from ..points.vocabulary import POINTS

    cache = model.activations([[0, 0]], [status.address for status in available])
    shapes = {}
    for status in available:
        sizes = cache[status.address].shape
        axes = POINTS[status.point].axes.split()
        shown = [a if a in "BS" else str(n) for a, n in zip(axes, sizes, strict=True)]
        shapes[status.point, status.layer] = " ".join(shown)
    return shapes


def _general(model: InterpretableModel, detail: str, layer: int | None) -> str:
    """What is said of a layer, said of any."""
    if layer is None:
        return detail
    any_block = detail.replace(model.layout.block(layer), "layers.N")
    return any_block.replace(f"block {layer} ", "block N ")


def _table(groups: list[Group], n_layers: int) -> Table:
    from rich.text import Text

    made = new_table("point", "axes", "shape", "layers", "where, or why not")
    for group in groups:
        color = "cyan" if group.available else "red"
        made.add_row(
            Text(group.point, style=color),
            Text(group.axes, style="dim"),
            group.shape or "-",
            _ranges(group.layers, n_layers),
            Text(show_text(group.detail), style="" if group.available else "red"),
        )
    return made


def _ranges(layers: list[int], n_layers: int) -> str:
    """Layers for people; a point of the whole model has none."""
    from ..display import layer_ranges

    return "all" if len(layers) == n_layers else layer_ranges(layers)
