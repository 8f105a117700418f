"""What the formats read from: settings with types, tensors with shapes, and their files.

Every error names the file, and the setting or the tensor as the file calls it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import nested, truth
from mlxray.errors import LoadError
from mlxray.loading.load import check_safetensors
from mlxray.storage.files import is_number, read_file, read_json

#: Largest file of settings that is read; real ones have a few kilobytes.
MAX_SETTINGS = 4 << 20

#: Dtypes by the names that torch gives them.
DTYPES = {
    "float64": mx.float32,
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}


def part(path: Path, name: str) -> Path | None:
    """The file `name` of a dictionary: in its folder, or the path itself; None if there is none.

    A link that leads nowhere counts: reading it says so.
    """
    if path.name == name and not path.is_dir():
        return path
    inside = path / name
    return inside if inside.exists() or inside.is_symlink() else None


def parts(path: Path, *names: str) -> bool:
    """Whether a folder has all these files, or the path is one of them beside the others."""
    folder = path if path.is_dir() else path.parent
    return (folder is path or path.name in names) and all(part(folder, n) for n in names)


def layer_in(text: str) -> int | None:
    """The first layer that a path names, such as 12 in ``layer_12/width_16k``; None if none.

    >>> layer_in("Llama3_1-8B-Base-L15R-8x"), layer_in("width_16k/average_l0_82")
    (15, None)
    """
    found = re.search(r"(?:[Ll]ayers?|[Bb]locks)[._-]?(\d{1,6})(?!\d)", text)
    # L0_50 is a number of features, not a layer.
    found = found or re.search(r"(?<![A-Za-z])L(\d{1,6})(?!\d|_\d)", text)
    return int(found[1]) if found else None


class Settings:
    """The settings of a dictionary, from its file.

    Args:
        path: The file, for messages.
        values: What it holds.
    """

    def __init__(self, path: Path, values: Any) -> None:
        if not isinstance(values, dict):
            raise LoadError(f"{str(path)!r} holds no settings, but {type(values).__name__}.")
        self.path = path
        self.values: dict[str, Any] = values

    @classmethod
    def from_json(cls, path: Path) -> Settings:
        """Settings of a JSON file.

        Raises:
            LoadError: if it cannot be read.
        """
        return cls(path, read_json(path, MAX_SETTINGS))

    @classmethod
    def from_yaml(cls, path: Path) -> Settings:
        """Settings of a YAML file, of plain values only.

        Raises:
            LoadError: if it cannot be read.
        """
        import yaml

        content = read_file(path, MAX_SETTINGS)
        try:
            return cls(path, yaml.safe_load(content))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise LoadError(f"{str(path)!r} cannot be read as YAML: {said}.") from error

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def wrong(self, name: str, wanted: str) -> LoadError:
        """The error for a setting that is missing or of the wrong kind."""
        if self.values.get(name) is None:
            return LoadError(f"{str(self.path)!r} does not say {name!r}: {wanted} is needed.")
        return LoadError(
            f"{str(self.path)!r} says {name} = {self.values[name]!r:.80}; {wanted} is needed."
        )

    def whole(self, name: str, *, least: int = 1) -> int:
        """A whole number.

        Raises:
            LoadError: if it is missing, none, or below `least`.
        """
        value = self.values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value < 2**31:
            raise self.wrong(name, f"a whole number, at least {least},")
        return value

    def number(self, name: str) -> float:
        """A finite number.

        Raises:
            LoadError: if it is missing or none.
        """
        value = self.values.get(name)
        if not is_number(value):
            raise self.wrong(name, "a number")
        return float(self.values[name])

    def text(self, name: str, default: str | None = None) -> str:
        """A text.

        Raises:
            LoadError: if it is missing without a default, or none.
        """
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false.

        Raises:
            LoadError: if it is neither.
        """
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def inner(self, name: str) -> Settings:
        """Settings within the settings; empty ones if there are none.

        Raises:
            LoadError: if it is something else.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "a table of settings")
        return Settings(self.path, value or {})

    def check(self, name: str, found: int) -> None:
        """See that a whole number, where it is given, is what the tensors say.

        Raises:
            LoadError: if it is not.
        """
        if name in self and self.whole(name) != found:
            raise LoadError(
                f"{str(self.path)!r} says {name} = {self.whole(name)}; its tensors say {found}."
            )


class Tensors:
    """The tensors of a file, by name; each is checked when it is taken.

    Args:
        path: The file, for messages.
        arrays: Name → array.
    """

    def __init__(self, path: Path, arrays: Mapping[str, Any]) -> None:
        self.path = path
        self.arrays = dict(arrays)
        self.taken: set[str] = set()

    @classmethod
    def from_safetensors(cls, path: Path) -> Tensors:
        """The tensors of a safetensors file, seen to be whole; none is read before it is taken.

        Raises:
            LoadError: if it is not whole.
        """
        check_safetensors(path)
        try:
            arrays: Any = mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise LoadError(f"{str(path)!r} cannot be read: {str(error)[:200]}") from error
        return cls(path, arrays)

    def __contains__(self, name: str) -> bool:
        return isinstance(self.arrays.get(name), mx.array)

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor of so many axes.

        Raises:
            LoadError: if it is missing or has another number of axes.
        """
        array = self._get(name)
        if array.ndim != ndim or 0 in array.shape:
            raise LoadError(
                f"{str(self.path)!r}: {name} has shape {tuple(array.shape)}; {ndim} axes, none of "
                "them empty, are expected."
            )
        return tuple(array.shape)

    def take(self, name: str, shape: tuple[int, ...], reason: str = "") -> mx.array:
        """A tensor of floating-point numbers.

        Args:
            name: As the file calls it.
            shape: What its shape has to be.
            reason: Where that shape comes from.

        Raises:
            LoadError: if it is missing, has another shape, or holds NaN or infinity.
        """
        array = self._get(name)
        if tuple(array.shape) != shape:
            origin = f" ({reason})" if reason else ""
            raise LoadError(
                f"{str(self.path)!r}: {name} has shape {tuple(array.shape)}; "
                f"expected {shape}{origin}."
            )
        if not mx.issubdtype(array.dtype, mx.floating):
            raise LoadError(
                f"{str(self.path)!r}: {name} holds {array.dtype}, not floating-point numbers."
            )
        if not truth(mx.isfinite(array).all()):
            raise LoadError(f"{str(self.path)!r}: {name} holds NaN or infinity.")
        self.taken.add(name)
        return array

    def whole(self, name: str) -> int:
        """A tensor of one whole number.

        Raises:
            LoadError: if it is something else.
        """
        value = self.arrays.get(name)
        self.taken.add(name)
        if isinstance(value, mx.array) and value.size == 1:
            value = nested(value.reshape(()))
        if type(value) is not int:
            raise LoadError(f"{str(self.path)!r}: {name} is no whole number.")
        return value

    def check_all_taken(self, ignored: Iterable[str] = (), reason: str = "") -> None:
        """See that no tensor is left: it would have changed what the dictionary computes.

        Raises:
            LoadError: if one is left.
        """
        left = sorted(set(self.arrays) - self.taken - set(ignored))
        if left:
            names = ", ".join(map(repr, left[:5])) + (", …" if len(left) > 5 else "")
            raise LoadError(f"{str(self.path)!r} also holds {names:.200}{reason}.")

    def _get(self, name: str) -> mx.array:
        array = self.arrays.get(name)
        if isinstance(array, mx.array):
            return array
        known = ", ".join(sorted(map(str, self.arrays))[:12]) or "nothing"
        raise LoadError(f"{str(self.path)!r} has no tensor {name!r}; it has {known:.300}.")
