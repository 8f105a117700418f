"""Weights under TransformerLens's names and in its shapes, where the adapter knows the modules.

They are the checkpoint's: no norm is folded in, nothing is centred, a quantised weight is unpacked
when it is asked for. Norms, multipliers and RoPE that stand between are not in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import mlx.core as mx
import mlx.nn as nn

from ..arrays import held
from ..checks.arguments import whole_number
from ..checks.indices import checked_index
from ..errors import AddressError, PointAbsent
from ..points.layout import Layout


def matrix(module: nn.Module, path: str) -> mx.array:
    """A linear module's or an embedding's weight, (rows, columns), unpacked; lazy.

    Raises:
        AddressError: for a module of another kind.
    """
    if isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
        return unpacked(module)
    if isinstance(module, (nn.Linear, nn.Embedding)):
        weight: mx.array = held(module.weight)
        return weight
    raise AddressError(f"{path!r} is {type(module).__name__}, whose weight is no single matrix")


def unpacked(module: nn.QuantizedLinear | nn.QuantizedEmbedding) -> mx.array:
    """The weight of a quantised module, (rows, columns), in the dtype of its scales; lazy."""
    weight: mx.array = mx.dequantize(
        module["weight"],
        scales=module["scales"],
        biases=module.get("biases"),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )
    return weight


class _Reader:
    """The weights of one model; each method raises AddressError with the reason for none."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _of(self, path: str) -> mx.array:
        self.layout.need(path)
        return matrix(self.layout.modules[path], path)

    def _bias(self, path: str, weight: mx.array) -> mx.array:
        module = self.layout.modules[path]
        return held(module["bias"]) if "bias" in module else mx.zeros(weight.shape[0], weight.dtype)

    def embed(self) -> mx.array:
        return self._of(self.layout.adapter.embed)

    def positions(self) -> mx.array:
        path = self.layout.adapter.positions
        if path is None:
            raise AddressError("it has no table of learned positions")
        return self._of(path)

    def unembed(self) -> mx.array:
        return self._of(self.layout.output_head()[0]).T

    def unembed_bias(self) -> mx.array:
        path, _ = self.layout.output_head()
        return self._bias(path, self._of(path))

    def _heads(self, layer: int) -> tuple[int, int, int, str]:
        """Heads, key/value heads, width of a head, and the path of the output projection."""
        roles = self.layout.roles(layer)
        if roles.attn is None:
            raise AddressError("this block has no softmax attention")
        path = self.layout.role(layer, roles.attn, roles.out_proj)
        heads, width = self.layout.heads(layer), self._of(path).shape[1]
        return heads, self.layout.heads(layer, kv=True), width // heads, path

    def _projected(self, layer: int, which: int) -> tuple[mx.array, mx.array]:
        """The rows of queries, keys or values (0, 1, 2) by head, (n, d, D), and their bias."""
        roles = self.layout.roles(layer)
        heads, kv_heads, width, _ = self._heads(layer)
        counts = (heads, kv_heads, kv_heads)
        names = roles.projections
        path = self.layout.role(layer, roles.attn, names[which if len(names) > 1 else 0])
        weight = self._of(path)
        bias = self._bias(path, weight)
        first = width * sum(counts[:which]) if len(names) == 1 else 0
        wanted = width * (sum(counts) if len(names) == 1 else counts[which])
        if weight.shape[0] != wanted:
            raise AddressError(
                f"{path!r} has {weight.shape[0]} outputs where its heads have {wanted}"
            )
        rows = slice(first, first + width * counts[which])
        shape = counts[which], width
        return weight[rows].reshape(*shape, -1), bias[rows].reshape(shape)

    def projection(self, layer: int, which: int) -> mx.array:
        return self._projected(layer, which)[0].swapaxes(1, 2)

    def projection_bias(self, layer: int, which: int) -> mx.array:
        return self._projected(layer, which)[1]

    def out(self, layer: int) -> mx.array:
        heads, _, width, path = self._heads(layer)
        return self._of(path).T.reshape(heads, width, -1)

    def out_bias(self, layer: int) -> mx.array:
        path = self._heads(layer)[3]
        return self._bias(path, self._of(path))

    def _of_mlp(self, layer: int, role: str) -> str:
        roles = self.layout.roles(layer)
        name = getattr(roles, role)
        if roles.mlp is None or name is None:
            raise AddressError("this block's MLP has no such projection")
        return self.layout.role(layer, roles.mlp, name)

    def mlp(self, layer: int, role: str) -> mx.array:
        return self._of(self._of_mlp(layer, role)).T

    def mlp_bias(self, layer: int, role: str) -> mx.array:
        path = self._of_mlp(layer, role)
        return self._bias(path, self._of(path))


#: Name → the whole model's array.
_OF_MODEL: dict[str, Callable[[_Reader], mx.array]] = {
    "W_E": _Reader.embed,
    "W_pos": _Reader.positions,
    "W_U": _Reader.unembed,
    "b_U": _Reader.unembed_bias,
}
#: Name → each layer's array.
_OF_LAYERS: dict[str, Callable[[_Reader, int], mx.array]] = {
    "W_Q": lambda reader, layer: reader.projection(layer, 0),
    "W_K": lambda reader, layer: reader.projection(layer, 1),
    "W_V": lambda reader, layer: reader.projection(layer, 2),
    "b_Q": lambda reader, layer: reader.projection_bias(layer, 0),
    "b_K": lambda reader, layer: reader.projection_bias(layer, 1),
    "b_V": lambda reader, layer: reader.projection_bias(layer, 2),
    "W_O": _Reader.out,
    "b_O": _Reader.out_bias,
    "W_in": lambda reader, layer: reader.mlp(layer, "up_proj"),
    "W_gate": lambda reader, layer: reader.mlp(layer, "gate_proj"),
    "W_out": lambda reader, layer: reader.mlp(layer, "down_proj"),
    "b_in": lambda reader, layer: reader.mlp_bias(layer, "up_proj"),
    "b_gate": lambda reader, layer: reader.mlp_bias(layer, "gate_proj"),
    "b_out": lambda reader, layer: reader.mlp_bias(layer, "down_proj"),
}
#: Names of weights that a model has as attributes.
WEIGHTS = (*_OF_MODEL, *_OF_LAYERS)


def _found(name: str, read: Callable[[], mx.array]) -> mx.array:
    try:
        return read()
    except PointAbsent as absent:
        raise PointAbsent(name, absent.reason) from None
    except AddressError as error:
        raise PointAbsent(name, str(error)) from None


class LayerWeights(Sequence[mx.array]):
    """One weight of each layer, made when it is asked for: ``model.W_Q[3]``.

    ``model.W_Q[3, 2]`` is a part of it, ``model.W_Q[:2]`` a list, and
    ``mx.stack(list(model.W_Q))`` all of them as one array.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout = layout
        self._name = name

    def __len__(self) -> int:
        return self._layout.n_layers

    @overload
    def __getitem__(self, index: int) -> mx.array: ...

    @overload
    def __getitem__(self, index: slice) -> list[mx.array]: ...

    @overload
    def __getitem__(self, index: tuple[Any, ...]) -> mx.array: ...

    def __getitem__(self, index: Any) -> Any:
        """The array of a layer.

        Raises:
            IndexError: if there is no such layer.
            IndexOutside: if the layer's array has no such entry.
            InputError: if the layer is no integer.
            PointAbsent: if the layer has none, or the adapter does not know where.
        """
        if isinstance(index, slice):
            return [self[layer] for layer in range(len(self))[index]]
        layer, *inside = index if isinstance(index, tuple) else (index,)
        layer = whole_number(layer, "layer")
        if not -len(self) <= layer < len(self):
            raise IndexError(f"there is no layer {layer}: the model has {len(self)}.")
        layer %= len(self)
        reader = _Reader(self._layout)
        name = f"{self._name}[{layer}]"
        value = _found(name, lambda: _OF_LAYERS[self._name](reader, layer))
        return value[checked_index(tuple(inside), value.shape, name)] if inside else value

    def __repr__(self) -> str:
        return f"<{self._name} of {len(self)} layers>"


def weight(layout: Layout, name: str) -> mx.array | LayerWeights:
    """The weight of this name: an array, or one for each layer; lazy.

    W_E (V, D), W_pos (positions, D), W_U (D, V), b_U (V); of a layer W_Q (H, D, d), W_K and W_V
    (K, D, d), W_O (H, d, D), W_in and W_gate (D, F), W_out (F, D), b_Q (H, d), b_K and b_V (K, d),
    b_O (D), b_in and b_gate (F), b_out (D). A bias that a projection does not have is zeros.

    Raises:
        PointAbsent: if the model has none, or the adapter does not know where.
    """
    if name in _OF_LAYERS:
        return LayerWeights(layout, name)
    return _found(name, lambda: _OF_MODEL[name](_Reader(layout)))
