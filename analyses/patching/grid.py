"""Grids of cells: which places of a component are patched one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import AddressError, InputError
from mlxray.points.derived_site import DerivedSite
from mlxray.points.vocabulary import ALIASES, POINTS, node, parse
from mlxray.run.run import Run
from mlxray.tokens import Batch

from .patches import Cell, Dictionary, Patch, axes

#: What can be varied beside the layer.
BY = ("layer", "position", "head", "neuron", "feature", "head_position")


@dataclass(frozen=True)
class Grid:
    """Cells in row-major order of `shape`.

    Attributes:
        component: Point or module path inside the block.
        layers: Values of the first axis.
        by: What the further axes are: nothing (``"layer"``), positions, heads, neurons, or
            heads and positions.
        shape: Of the grid.
        cells: One or several patches each.
        columns: What the last axis counts, where only some were asked for.
    """

    component: str
    layers: list[int]
    by: str
    shape: tuple[int, ...]
    cells: list[Cell]
    columns: list[int] | None = None

    @property
    def addresses(self) -> list[str]:
        """Every address that a cell patches."""
        return list(dict.fromkeys(p.address for cell in self.cells for p in cell))

    def array(self, values: Sequence[float]) -> mx.array:
        """Values of the cells as an array of the grid's shape."""
        return mx.array(list(values)).reshape(self.shape)


def component_name(component: str) -> str:
    """A point or a module path inside a block, by the names that people give them."""
    return component if component in POINTS else ALIASES.get(component, component)


def block_component(component: str) -> str:
    """The same, checked to be something that each block may have.

    Raises:
        InputError: if it is no name, or names its layer.
        AddressError: if it is a point of the whole model.
    """
    if not isinstance(component, str) or not component:
        raise InputError(f'a component is a name such as "mlp" or "resid_post"; got {component!r}.')
    name = component_name(component)
    if name in POINTS and not POINTS[name].per_layer:
        raise AddressError(
            f"{name!r} is no part of a layer but of the whole model: patch it with "
            f"causal_trace(…).patch({name!r})."
        )
    address = parse(name)
    if address.layer is not None:
        raise InputError(
            f"{component!r} names its layer: write component={address.name or 'resid_post'!r}, "
            f"layers=[{address.layer}]."
        )
    return name


def layers_with(
    model: InterpretableModel, name: str, layers: Sequence[int] | None = None
) -> list[int]:
    """The layers that were asked for, or all that have the component.

    Args:
        model: The model.
        name: A point or a module path inside the block.
        layers: None for all; a model may have attention, or a dense MLP, in some only.

    Raises:
        AddressError: if a layer that was asked for does not have it, or none does.
    """
    wanted = model.layer_indices(layers)
    found, reason, layout = [], None, model.layout
    for layer in wanted:
        try:
            layout.site(f"layers.{layer}.{name}")
        except AddressError as error:
            if layers is not None:
                raise
            reason = reason or error
        else:
            found.append(layer)
    if not found and reason is not None:
        raise reason
    return found


def one_size(
    name: str, layers: Sequence[int], values: Sequence[mx.array], axis: int | None
) -> None:
    """Check that places along an axis are as many in each layer, since they share a table.

    Raises:
        InputError: if they are not.
    """
    for layer, value in zip(layers, values, strict=True):
        if axis is not None and value.shape[axis] != values[0].shape[axis]:
            raise InputError(
                f"{name!r} has shape {values[0].shape} in layer {layers[0]} and {value.shape} in "
                f"layer {layer}: choose layers with as many heads or units."
            )


def _only(
    model: InterpretableModel, name: str, part: str, layer: int, layers: Sequence[int] | None
) -> tuple[str, list[int]]:
    """A circuit's node as a component and its layer. Raises InputError for other layers."""
    if layers is not None and model.layer_indices(layers) != [layer]:
        raise InputError(f"{name!r} is in layer {layer}: leave layers out, or write [{layer}].")
    return part, [layer]


def _activations(
    model: InterpretableModel, batch: Batch, name: str, layers: Sequence[int]
) -> list[mx.array]:
    """The component's activation in each layer, not evaluated: for their shapes."""
    addresses = [f"layers.{layer}.{name}" for layer in layers]
    run = Run(model.layout, watch=addresses)
    run.execute(batch.ids)
    found = []
    for address in addresses:
        value = run.read(address)
        if not isinstance(value, mx.array):
            raise InputError(
                f"{address!r} is not one array but {len(value)} values: choose a point, or one "
                f"call of the module, {name + '#0'!r}."
            )
        found.append(value)
    return found


def _is_attached(model: InterpretableModel, name: str, layer: int) -> bool:
    """Whether a component is all features of an attached dictionary, or the like."""
    site = model.layout.site(f"layers.{layer}.{name}")
    return isinstance(site, DerivedSite) and site.unit is None


def _features(
    dictionary: Dictionary | None, name: str, width: int, features: Sequence[int] | None
) -> list[int]:
    """The features that were asked for, or all.

    Args:
        dictionary: Whose; None where the activation holds the features themselves.
        name, width: Of the activation.
        features: Which; None for all.

    Raises:
        InputError: if one does not exist, none is asked for, or the dictionary does not fit.
    """
    count = width if dictionary is None else _count(dictionary, name, width)
    chosen = list(range(count)) if features is None else list(features)
    if not chosen:
        raise InputError("the list of features is empty; leave it out for all features.")
    for feature in chosen:
        if not 0 <= feature < count:
            raise InputError(f"there is no feature {feature}: the dictionary has {count}.")
    return chosen


def _count(dictionary: Dictionary, name: str, width: int) -> int:
    """How many features a dictionary has. Raises InputError if it does not fit."""
    try:
        encoded = dictionary.encode(mx.zeros((1, 1, width)))
        decoded = dictionary.decode(encoded)
    except ValueError as error:
        raise InputError(
            f"the dictionary does not take activations of {name!r}, of width {width}: {error}"
        ) from error
    if decoded.shape[-1] != width:
        raise InputError(
            f"the dictionary gives vectors of width {decoded.shape[-1]}, and {name!r} has {width}."
        )
    return int(encoded.shape[-1])


def make_grid(
    model: InterpretableModel,
    batch: Batch,
    component: str,
    *,
    by: str = "layer",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    dictionary: Dictionary | None = None,
    features: Sequence[int] | None = None,
) -> Grid:
    """The cells of a component.

    Args:
        model: The model.
        batch: The prompt, which says how many positions there are.
        component: A point, a name such as ``"attn"``, or a path such as ``"mlp.gate_proj"``.
        by: One of `BY`.
        layers: None for all that have the component.
        positions: With ``by="position"`` (or heads and positions) the positions to try one at a
            time; otherwise the positions that every cell patches together. None for all.
        dictionary, features: With ``by="feature"``: whose features, and which; None for all. The
            component of a dictionary that is attached to the model needs no `dictionary`.

    Raises:
        InputError: for an unknown `by`, a component without heads or neurons, or of no layer, no
            positions.
        AddressError: if the component or a layer is not there.
    """
    if by not in BY:
        raise InputError(f"by is one of {', '.join(BY)}; got {by!r}.")
    if isinstance(component, str) and (place := node(component)) is not None:
        component, layers = _only(model, component, *place, layers)
    name = block_component(component)
    if features is not None and by != "feature":
        raise InputError('features are those of a dictionary: give it, with by="feature".')
    wanted = layers_with(model, name, layers)
    attached = all(_is_attached(model, name, layer) for layer in wanted)
    if by == "feature" and (dictionary is not None) == attached:
        raise InputError(
            f"{name!r} are features already: leave the dictionary out."
            if attached
            else 'by="feature" and a dictionary belong together: give it, or attach it with '
            'model.attach(dictionary) and write component="features".'
        )
    if by != "feature" and dictionary is not None:
        raise InputError('by="feature" and a dictionary belong together.')
    head_axis, position_axis = axes(name)
    apart_by = {"neuron": -1, "feature": -1}.get(by, head_axis if by.startswith("head") else None)
    values = _activations(model, batch, name, wanted)
    one_size(name, wanted, values, apart_by)
    shape = tuple(values[0].shape)
    if shape[position_axis : position_axis + 1] != batch.ids.shape[1:]:
        raise InputError(f"{name!r} has no axis of {batch.ids.shape[1]} positions: {shape}.")
    if by.startswith("head") and head_axis is None:
        raise InputError(f"{name!r} has no heads; patch 'z', 'q', 'k', 'v', 'pattern' by head.")
    tried: list[int | None] = [None]
    if positions is not None:
        tried = [batch.index(0, p) for p in positions]
        if not tried:
            raise InputError("the list of positions is empty; leave it out for all positions.")
    if by in ("layer", "head", "neuron", "feature"):
        together = tried
        apart: list[dict[str, int]] = [{}]
        columns = None
        if by == "head":
            apart = [{"head": h} for h in range(shape[head_axis or 0])]
        elif by == "neuron":
            apart = [{"unit": u} for u in range(shape[-1])]
        elif by == "feature":
            apart = [{"unit": u} for u in _features(dictionary, name, shape[-1], features)]
            columns = None if features is None else [each["unit"] for each in apart]
        cells = [
            tuple(Patch(name, layer, position=p, **place) for p in together)
            for layer in wanted
            for place in apart
        ]
        size: tuple[int, ...] = (len(wanted),)
        if by != "layer":
            size = (len(wanted), len(apart))
        return Grid(name, wanted, by, size, cells, columns)
    each = [p for p in tried if p is not None] or list(range(shape[position_axis]))
    heads = list(range(shape[head_axis or 0])) if by == "head_position" else [None]
    cells = [
        (Patch(name, layer, position=p, head=h),) for layer in wanted for h in heads for p in each
    ]
    size = (len(wanted), len(each))
    if by == "head_position":
        size = (len(wanted), len(heads), len(each))
    return Grid(name, wanted, by, size, cells, None if positions is None else each)
