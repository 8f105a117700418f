"""What a checkpoint says of itself, compared with what its folder holds, before mlx-lm reads it.

The index names the shards, config.json the number of layers and the quantisation. mlx-lm takes
every ``model*.safetensors`` of a folder in any order, and builds whatever config.json asks for.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import LoadError
from ..storage.files import check_file, read_json

INDEX = "model.safetensors.index.json"
SHARDS = "model*.safetensors"

#: Larger JSON files are refused; the longest index known has five megabytes.
MAX_CONFIG, MAX_INDEX = 16 << 20, 128 << 20

#: As many layers as this may be built whatever the files hold: it costs nothing.
_FEW = 512

_COUNTS = re.compile(r"(^|_)(n|num)_\w*(layer|block|loop|embedder|stage)|^layers$|_layers$")
_EXPERTS = re.compile(r"expert")
_LISTS = re.compile(r"layer|block|pattern")
_NUMBERED = re.compile(r"model-(\d{1,9})-of-(\d{1,9})\.safetensors")

#: Shard → names of its tensors.
Tensors = Mapping[Path, Iterable[str]]


def check_entries(folder: Path, patterns: Iterable[str]) -> None:
    """See that whatever mlx-lm may open in a folder is a file.

    Raises:
        LoadError: for a link that leads nowhere, a folder, a pipe or a device of such a name.
    """
    try:
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                check_file(path)
    except OSError as error:
        raise LoadError(f"{str(folder)!r} cannot be read: {error.strerror}.") from error


def find_shards(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files with the weights, and tensor → file name where there is an index.

    Raises:
        LoadError: if there is none, the index is broken, or a shard is missing.
    """
    index = folder / INDEX
    if not (index.exists() or index.is_symlink()):
        shards = sorted(folder.glob(SHARDS))
        if not shards:
            raise LoadError(f"{str(folder)!r} has no {SHARDS}.")
        _check_numbers(folder, shards)
        return shards, None
    found = read_json(index, MAX_INDEX)
    where = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(where, dict) or not where:
        raise LoadError(f"{str(index)!r} is broken: it has no weight_map with names of files.")
    shown = repr(str(index))
    for name in where.values():
        # Not a path: a checkpoint does not read files of other folders.
        if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
            raise LoadError(f"{shown} is broken: {name!r:.80} is no name of a file in its folder.")
    names = sorted(set(where.values()))
    present = {path.name for path in folder.iterdir()}
    missing = [name for name in names if name not in present]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LoadError(
            f"{shown} names {missing[0]!r}{more}, which the folder does not have. Fetch it again."
        )
    return [folder / name for name in names], where


def _check_numbers(folder: Path, shards: list[Path]) -> None:
    """Without an index, the names themselves say how many shards there are."""
    found: dict[int, set[int]] = {}
    for shard in shards:
        if match := _NUMBERED.fullmatch(shard.name):
            found.setdefault(int(match[2]), set()).add(int(match[1]))
    for total, numbers in found.items():
        if len(numbers) < total:
            missing = next(n for n in range(1, len(numbers) + 2) if n not in numbers)
            raise LoadError(
                f"{str(folder)!r} has {len(numbers)} of {total} shards: "
                f"'model-{missing:05}-of-{total:05}.safetensors' is missing. Fetch it again."
            )


def check_tensors(tensors: Tensors, where: Mapping[str, str] | None) -> None:
    """See that each tensor is in one shard, and in the one that the index names.

    Raises:
        LoadError: if not; which one mlx-lm would take depends on the order of the files.
    """
    home: dict[str, str] = {}
    for shard, names in tensors.items():
        for name in names:
            if name in home:
                raise LoadError(
                    f"{name!r:.200} is both in {home[name]!r} and in {str(shard)!r}: remove the "
                    f"file that does not belong, or name the right ones in {INDEX}."
                )
            home[name] = shard.name
    for name, file in (where or {}).items():
        if home.get(name) != file:
            raise LoadError(
                f"{INDEX} says that {name!r:.200} is in {file!r}; it is "
                + (f"in {home[name]!r}." if name in home else "not there. Fetch it again.")
            )


def check_sizes(config: Mapping[str, Any], tensors: int, size: int) -> None:
    """See that the weights could be of as many layers and experts as config.json says.

    Args:
        config: What config.json holds.
        tensors: How many tensors the shards have.
        size: How many bytes they have.

    Raises:
        LoadError: if not: a hundred bytes of JSON can ask for a billion layers.
    """
    most = max(_FEW, tensors)
    for key, value in config.items():
        if isinstance(value, dict) and not key.startswith("quantization"):
            check_sizes(value, tensors, size)
        elif type(value) is int and _COUNTS.search(key) and value > most:
            raise LoadError(
                f"config.json says {key} = {value!r:.40}; the files hold {tensors} tensors."
            )
        elif type(value) is int and _EXPERTS.search(key) and value > max(_FEW, size):
            raise LoadError(f"config.json says {key} = {value!r:.40}; the files have {size} bytes.")
        elif isinstance(value, (list, str)) and _LISTS.search(key) and len(value) > most:
            raise LoadError(
                f"{key} in config.json has {len(value)} entries; the files hold {tensors} tensors."
            )


def check_numbers(arguments: Any, folder: Path) -> None:
    """Refuse numbers that config.json gives as text: mlx-lm hands them on to the first run.

    Args:
        arguments: What mlx-lm made of config.json, a dataclass; anything else is left alone.
        folder: The checkpoint's, for the message.

    Raises:
        LoadError: if there is such a number.
    """
    if not is_dataclass(arguments) or isinstance(arguments, type):
        return
    for field in fields(arguments):
        value, kind = getattr(arguments, field.name, None), str(field.type)
        if isinstance(value, str) and "str" not in kind and re.search(r"\b(int|float)\b", kind):
            where = str(folder / "config.json")
            raise LoadError(f"{where!r}: {field.name} is a number; got the text {value!r:.80}.")


@contextmanager
def folder_of(folder: Path, shards: list[Path]) -> Iterator[Path]:
    """A folder in which mlx-lm finds these shards and no others: `folder`, or links to it."""
    # mlx-lm reads a path with brackets or stars in it as a pattern.
    plain = glob.escape(str(folder)) == str(folder)
    if plain and sorted(folder.glob(SHARDS)) == sorted(shards):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mlxray-") as made:
        for path in folder.iterdir():
            if path.suffix != ".safetensors":
                (Path(made) / path.name).symlink_to(path.absolute())
        for index, shard in enumerate(shards):
            (Path(made) / f"model-{index:05}.safetensors").symlink_to(shard.absolute())
        yield Path(made)
