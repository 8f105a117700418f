"""``model.layers[3].self_attn.output``: modules of a model, readable and editable in a trace."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, overload
from weakref import ref

import mlx.core as mx
import mlx.nn as nn

from ..arrays import held
from ..checks.annotations import shown
from ..checks.arguments import whole_number
from ..checks.indices import is_mask
from ..errors import EditError, InputError, TraceError
from ..points.vocabulary import parse
from .indexing import own_index
from .trace import Trace, current_trace, in_code, open_trace, resolved_in_block
from .wrapped import WrappedModel


class _Operand(mx.array):
    """An array that answers both ways in which MLX reads ``__mlx_array__``.

    ``mx.exp`` calls it, ``mx.maximum`` takes it as it is.
    """

    def __call__(self) -> mx.array:
        return self


class OutputProxy:
    """The output (or the input) of one module in the open trace.

    It belongs to the trace in whose block it was taken from its module, and has no value in another
    one; taken outside of any block, it means the activation of whichever trace is open.

    ``.save()`` returns the array and keeps it; arithmetic, comparison, indexing, methods of arrays
    and element-wise MLX functions work on the value (other functions take ``.value``); assigning
    to the proxy's place, or to a part of it, edits the run.
    """

    def __init__(self, model: WrappedModel, address: str, name: str) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_address", address)
        object.__setattr__(self, "_name", name)
        trace = open_trace(model)
        object.__setattr__(self, "_trace", None if trace is None else ref(trace))

    _model: WrappedModel
    _address: str
    _name: str
    _trace: ref[Trace] | None

    def _current(self) -> Trace:
        return current_trace(self._model, self._name, self._trace)

    @property
    def value(self) -> Any:
        """The activation, lazy."""
        return self._current().read(self._address)

    def save(self, name: str | None = None) -> Any:
        """Keep the activation past the block and return it."""
        return self._current().save(self._address, name or self._name)

    @property
    def __mlx_array__(self) -> _Operand:
        value = self.value
        if not isinstance(value, mx.array):
            raise TypeError(f"{self._name} is {type(value).__name__}, not an array.")
        return _Operand(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TraceError(
            f"cannot set {name!r} of an activation. Assign the activation itself: "
            f"{in_code(self._name)} = …"
        )

    def __getitem__(self, index: Any) -> Any:
        trace, index = self._current(), _plain(index)
        value = trace.read(self._address)
        if isinstance(value, mx.array):
            if is_mask(index):
                raise InputError(
                    f"{in_code(self._name)}: MLX assigns by a boolean mask and cannot read by one. "
                    "Read the whole and choose with mx.where(mask, value, other)."
                )
            index = own_index(index, value.shape, trace.batch, in_code(self._name))
        return value[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        part, name, index = _plain(value), in_code(self._name), _plain(index)
        trace = self._current()
        batch = trace.batch

        def put(activation: mx.array) -> mx.array:
            new, at = mx.array(activation), own_index(index, activation.shape, batch, name)
            try:
                new[at] = part
            except (TypeError, ValueError) as error:
                told = f"shape {tuple(part.shape)}" if hasattr(part, "shape") else shown(part)
                raise EditError(
                    f"{name}[…] takes a number, or an array that broadcasts to what is chosen of "
                    f"shape {tuple(activation.shape)}; got {told}."
                ) from error
            return new

        trace.edit(self._address, put)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __repr__(self) -> str:
        return f"<activation {self._name}>"


def _plain(value: Any) -> Any:
    """The values of activations, and arrays that stay as they are now; in tuples and lists too."""
    if isinstance(value, OutputProxy):
        return value.value
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, list):
        return list(map(_plain, value))
    if type(value).__module__ == "numpy":  # not imported for this: it takes long
        return value.copy()
    return held(value)


def _delegate(name: str, fn: Callable[..., Any], *, reflected: bool = False) -> None:
    def method(self: OutputProxy, *others: Any) -> Any:
        values = [o.value if isinstance(o, OutputProxy) else o for o in others]
        return fn(values[0], self.value) if reflected else fn(self.value, *values)

    method.__name__ = name
    setattr(OutputProxy, name, method)


for _op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    _delegate(f"__{_op}__", getattr(operator, _op))
    _delegate(f"__r{_op}__", getattr(operator, _op), reflected=True)
for _op in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs"):
    _delegate(f"__{_op}__", getattr(operator, _op))


class ModuleProxy:
    """A module of the wrapped model: attributes as the module has them, children as proxies."""

    def __init__(self, model: WrappedModel, path: str) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_path", path)

    _model: WrappedModel
    _path: str

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        layout = self._model.layout
        layout.need(self._path)
        return layout.modules[self._path]

    def _proxy(self, edge: str) -> OutputProxy:
        name = ".".join(filter(None, (self._model.resolved.short(self._path), edge)))
        return OutputProxy(self._model, ".".join(filter(None, (self._path, edge))), name)

    @property
    def output(self) -> OutputProxy:
        """What the module returns in the open trace; assign to edit it."""
        return self._proxy("output")

    @property
    def input(self) -> OutputProxy:
        """The module's first argument in the open trace; assign to edit it."""
        return self._proxy("input")

    def _attached(self, name: str) -> OutputProxy | None:
        """What is attached to the model at this module under a name: ``model.layers[3].features``.

        Raises:
            AddressError: if that may be several.
        """
        resolved = self._model.resolved
        address = f"{resolved.short(self._path)}.{name}"
        found = resolved.attached.find(parse(address))
        return None if found is None else OutputProxy(self._model, found[0].address, address)

    def __setattr__(self, name: str, value: Any) -> None:
        attached = None if name in ("output", "input") else self._attached(name)
        if attached is None and name not in ("output", "input"):
            raise TraceError(
                f"cannot assign {name!r} of a module in a trace; assign .output or .input, "
                "or change the module itself: model.layers[…].module."
            )
        proxy = attached or self._proxy(name)
        change = value.value if isinstance(value, OutputProxy) else value
        proxy._current().edit(proxy._address, change)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self._path}.{name}"
        if path in self._model.resolved.modules:
            return ModuleProxy(self._model, path)
        if not hasattr(self.module, name) and (attached := self._attached(name)) is not None:
            return attached
        value = getattr(self.module, name)
        if isinstance(value, nn.Module) and path in self._model.resolved.modules:
            return ModuleProxy(self._model, path)  # put there since the last look
        if isinstance(value, list) and value and isinstance(value[0], nn.Module):
            return [ModuleProxy(self._model, f"{path}.{i}") for i in range(len(value))]
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self._path or 'model'}: {type(self.module).__name__}>"


class LayerListProxy:
    """The blocks of the model, by index."""

    def __init__(self, model: WrappedModel) -> None:
        self._model = model

    @overload
    def __getitem__(self, index: int) -> ModuleProxy: ...

    @overload
    def __getitem__(self, index: slice) -> list[ModuleProxy]: ...

    def __getitem__(self, index: int | slice) -> ModuleProxy | list[ModuleProxy]:
        if isinstance(index, slice):
            return [self[layer] for layer in range(len(self))[index]]
        layer = whole_number(index, "the index of a layer")
        return ModuleProxy(self._model, resolved_in_block(self._model).block(layer))

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            raise TraceError("cannot replace several layers; assign the .output of each.")
        raise TraceError(f"cannot replace layer {index}; assign model.layers[{index}].output.")

    def __len__(self) -> int:
        return resolved_in_block(self._model).n_layers

    def __iter__(self) -> Iterator[ModuleProxy]:
        return (self[i] for i in range(len(self)))
