"""The few pickle instructions that containers of tensors are made of, followed and not run.

Python's own unpickler imports whatever a pickle names and calls it. This reader knows a few names,
each of which it answers itself; it imports and calls nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import MlxrayError

#: Longest pickle that is read: it holds names and shapes, the numbers lie elsewhere.
MAX_PICKLE = 4 << 20


class PickleRefused(Exception):
    """A pickle asks for something else than tensors and plain containers."""


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the archive.

    Attributes:
        key: Name of its entry.
        dtype: ``"float32"``, …
        count: How many numbers it has.
    """

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor: which numbers of a storage, in which order; all counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that the pickle asks for: a module and what is in it."""

    full: str


_MARK = object()

_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
    }.items()
}
_DTYPES = {f"torch.{name}": name for name in _STORAGES.values()}
_CALLED = (
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
)

#: Instructions that push what they carry.
_CONSTANTS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "NONE", "NEWTRUE", "NEWFALSE",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def read_pickle(content: bytes, tensor: Callable[[TensorView], Any]) -> Any:
    """The value that a pickle of plain containers and tensors describes.

    Args:
        content: The pickle, at most `MAX_PICKLE` bytes.
        tensor: What makes an array of a tensor that the pickle describes.

    Raises:
        PickleRefused: if it asks for anything else, or is not whole.
    """
    if len(content) > MAX_PICKLE:
        raise PickleRefused(f"its pickle has {len(content)} bytes; at most {MAX_PICKLE} are read.")
    reader = _Reader(tensor)
    try:
        for code, value, _ in pickletools.genops(content):
            if code.name == "STOP":
                return reader.result()
            reader.step(code.name, value)
    except (PickleRefused, MlxrayError):
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        said = f"{type(error).__name__}: {str(error)[:120]}"
        raise PickleRefused(f"its pickle is not whole ({said}).") from error
    raise PickleRefused("its pickle ends too early.")


class _Reader:
    """The stack and the memory of one pickle."""

    def __init__(self, tensor: Callable[[TensorView], Any]) -> None:
        self.tensor = tensor
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def result(self) -> Any:
        """What is left at the end."""
        if len(self.stack) != 1 or isinstance(self.stack[0], (_Name, Storage)):
            raise PickleRefused("its pickle leaves no single plain value.")
        return self.stack[0]

    def step(self, name: str, value: Any) -> None:
        """Follow one instruction."""
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_FIXED.get(name, value))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [_plain_tuple(stack[-count:], count)]
        elif name in ("PROTO", "FRAME"):
            pass
        else:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise PickleRefused(f"its pickle uses {name}, which no plain container needs.")
            handler(self, value)

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        marks = [at for at, item in enumerate(self.stack) if item is _MARK]
        if not marks:
            raise PickleRefused("its pickle is not whole: a container has no beginning.")
        at = marks[-1]
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def put(self, index: Any) -> None:
        self.memory[len(self.memory) if index is None else int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memory[int(index)])

    def tuple(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(_plain_tuple(items, len(items)))

    def list(self, _: Any) -> None:
        self.stack.append(self.marked())

    def dict(self, _: Any) -> None:
        items = self.marked()
        self.stack.append({})
        self.set_items(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        items = self.marked()
        _expect(self.stack[-1], list).extend(items)

    def set_item(self, _: Any) -> None:
        pair = self.stack[-2:]
        del self.stack[-2:]
        self.set_items(pair)

    def set_marked(self, _: Any) -> None:
        self.set_items(self.marked())

    def set_items(self, items: Any) -> None:
        target = _expect(self.stack[-1], dict)
        for key, item in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float)):
                raise PickleRefused(f"a key of a dictionary is of the type {type(key).__name__}.")
            target[key] = item

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        # An OrderedDict carries attributes, such as the versions of a module's layout.
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise PickleRefused("its pickle sets attributes of something that is no dictionary.")

    def name(self, value: str) -> None:
        self.push_name(value.replace(" ", "."))

    def stack_name(self, _: Any) -> None:
        inner = _expect(self.stack.pop(), str)
        self.push_name(f"{_expect(self.stack.pop(), str)}.{inner}")

    def push_name(self, full: str) -> None:
        if full in _DTYPES:
            self.stack.append(_DTYPES[full])
        elif full in _STORAGES or full in _CALLED:
            self.stack.append(_Name(full))
        else:
            raise PickleRefused(
                f"it asks for {full[:100]!r}, which is code: only tensors and plain containers are "
                "read, and nothing of the file is executed."
            )

    def persistent(self, _: Any) -> None:
        kind, storage, key, _device, count = _expect(self.stack.pop(), tuple)
        full = _expect(storage, _Name).full
        if kind != "storage" or full not in _STORAGES:
            raise PickleRefused(f"it refers to a {str(kind)[:40]!r}, which is no storage.")
        self.stack.append(Storage(_expect(key, str), _STORAGES[full], _whole(count)))

    def call(self, _: Any) -> None:
        given = _expect(self.stack.pop(), tuple)
        full = _expect(self.stack.pop(), _Name).full
        if full == "torch._utils._rebuild_tensor_v2":
            storage, offset, shape, strides, *_rest = given
            view = TensorView(
                _expect(storage, Storage), _whole(offset), _wholes(shape), _wholes(strides)
            )
            if len(view.shape) != len(view.strides):
                raise PickleRefused("a tensor has another number of strides than of sizes.")
            self.stack.append(self.tensor(view))
        elif full == "torch._utils._rebuild_parameter":
            self.stack.append(given[0])
        elif full == "torch.Size":
            self.stack.append(_wholes(given[0]))
        elif full == "torch.device":
            self.stack.append(":".join(str(part)[:20] for part in given[:2]))
        elif full == "collections.OrderedDict":
            self.stack.append({})
            for pair in given[0] if given else ():
                self.set_items(_expect(pair, (list, tuple))[:2])
        else:
            raise PickleRefused(f"it calls {full!r}, which makes no plain container.")


def _plain_tuple(items: Any, count: int) -> tuple[Any, ...]:
    if len(items) != count or any(item is _MARK for item in items):
        raise PickleRefused("its pickle is not whole: a tuple lacks items.")
    return tuple(items)


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise PickleRefused(f"its pickle has {type(value).__name__} where it cannot stand.")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise PickleRefused("a size, stride or offset of a tensor is no possible number.")
    return value


def _wholes(values: Any) -> tuple[int, ...]:
    return tuple(_whole(value) for value in _expect(values, tuple))


_HANDLERS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader.mark,
    "PUT": _Reader.put,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.put,
    "GET": _Reader.get,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "TUPLE": _Reader.tuple,
    "LIST": _Reader.list,
    "DICT": _Reader.dict,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_marked,
    "BUILD": _Reader.build,
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.stack_name,
    "BINPERSID": _Reader.persistent,
    "REDUCE": _Reader.call,
}
