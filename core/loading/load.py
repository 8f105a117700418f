"""From a name or a folder to a model and its tokenizer, or to a message that says what is wrong."""

from __future__ import annotations

import json
import math
import struct
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.nn as nn

from ..arrays import arrays_of, evaluate
from ..errors import LoadError
from ..machine.own_stack import on_own_stack
from ..storage.files import check_file, read_json
from . import checkpoint, hub, lora, quantisation
from .hub import one_line
from .stops import checkpoint_stops

#: A safetensors header longer than this is refused, as the format's own library does.
MAX_HEADER = 100_000_000

#: Bytes of one number, for the types that MLX reads.
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}

#: What a checkpoint on the hub needs to be loaded; its Python code only where that is trusted.
PATTERNS = (
    "*.json",
    "model*.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jsonl",
    "*.jinja",
)


def load(
    source: str, *, lora_path: str | None = None, trust_remote_code: bool = False
) -> tuple[nn.Module, Any]:
    """Load a model and its tokenizer with mlx-lm: dense or quantised, in one file or in shards.

    Args:
        source: ``"pocket"`` (the embedded model), a local folder, or a hub id.
        lora_path: Folder with what mlx-lm's fine-tuning saved (``adapter_config.json`` and
            ``adapters.safetensors``: LoRA, DoRA or full weights), put into the model.
        trust_remote_code: Let a checkpoint run its own Python code. Off unless you trust it.

    Returns:
        The module and the tokenizer (None where the folder has none).

    Raises:
        LoadError: if it cannot be found, reached or read.
    """
    if source == "pocket" and lora_path is None:
        from ..pocket.light import load as load_light

        light = load_light()
        if light is not None:
            return light
    folder = _folder(source, trust_remote_code)
    shards = _check_folder(folder, trust_remote_code)
    if "transformers" not in sys.modules:
        on_own_stack(_import_tokenizers)
    from mlx_lm.utils import load_model, load_tokenizer

    with checkpoint.folder_of(folder, shards) as place:
        try:
            model, _ = load_model(place, trust_remote_code=trust_remote_code)
        except MemoryError:
            raise
        except Exception as error:
            said = one_line(error).replace(str(place), str(folder))
            raise LoadError(f"cannot load the model in {str(folder)!r}: {said}") from error
    quantisation.check_unpacked(model, folder)
    checkpoint.check_numbers(getattr(model, "args", None), folder)
    if lora_path is not None:
        model = _fine_tuned(model, Path(lora_path).expanduser())
    if not any(
        (folder / n).exists()
        for n in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    ):
        return model, None
    stops = checkpoint_stops(folder)
    try:
        # Whatever this kind of tokenizer imports more.
        tokenizer = on_own_stack(
            load_tokenizer,
            folder,
            {"trust_remote_code": trust_remote_code},
            eos_token_ids=stops,
        )
    except Exception as error:
        raise LoadError(
            f"cannot load the tokenizer in {str(folder)!r}: {one_line(error)}"
        ) from error
    return model, tokenizer


def _import_tokenizers() -> None:
    with suppress(ImportError):  # mlx-lm says what is missing
        from transformers import AutoTokenizer  # noqa: F401


def _fine_tuned(model: nn.Module, folder: Path) -> nn.Module:
    for name in (lora.CONFIG, lora.WEIGHTS):
        if not (folder / name).exists() and not (folder / name).is_symlink():
            raise LoadError(f"{str(folder)!r} has no {name}: not what mlx-lm's fine-tuning saves.")
    kind, config = lora.read_adapter(folder)
    tensors = check_safetensors(folder / lora.WEIGHTS)
    lora.check_arrays(kind, set(tensors), folder)
    try:
        return lora.put_in(model, folder, kind, config, set(tensors))
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"cannot put {str(folder)!r} into the model: {one_line(error)}") from error


def _folder(source: str, trust_remote_code: bool) -> Path:
    if source == "pocket":
        from ..pocket import PATH

        return Path(PATH)
    path = hub.local_path(source, "'pocket', a folder with config.json and *.safetensors")
    if path is not None:
        return path
    return hub.fetch(source, [*PATTERNS, "*.py"] if trust_remote_code else PATTERNS)


def _check_folder(folder: Path, trust_remote_code: bool) -> list[Path]:
    """The shards of a checkpoint whose files all say the same."""
    if not folder.is_dir():
        raise LoadError(f"{str(folder)!r} is not a folder.")
    config = folder / "config.json"
    if not config.exists() and not config.is_symlink():
        raise LoadError(f"{str(folder)!r} has no config.json: not an mlx-lm checkpoint.")
    facts = read_json(config, checkpoint.MAX_CONFIG)
    if not isinstance(facts, dict) or not isinstance(facts.get("model_type"), str):
        raise LoadError(f"{str(config)!r} does not name a model_type.")
    if facts.get("model_file") is not None and not trust_remote_code:
        raise LoadError(
            f"{str(folder)!r} wants to run Python code of its own ({facts['model_file']!r}). "
            "If you trust it, pass trust_remote_code=True."
        )
    checkpoint.check_entries(folder, PATTERNS)
    shards, where = checkpoint.find_shards(folder)
    tensors = {shard: check_safetensors(shard) for shard in shards}
    checkpoint.check_tensors(tensors, where)
    names = [name for found in tensors.values() for name in found]
    checkpoint.check_sizes(facts, len(names), sum(shard.stat().st_size for shard in shards))
    foreign = quantisation.foreign_quantisation(facts, folder)
    if foreign is not None:
        quantisation.check_quantisation(foreign, folder, names)
    return shards


def check_safetensors(path: Path) -> list[str]:
    """See that a safetensors file is whole before MLX maps it.

    Returns:
        The names of its tensors.

    Raises:
        LoadError: if it is no file, its header is unreadable or contradicts itself, or the file
            ends before its tensors do.
    """
    size = check_file(path)
    broken = f"{str(path)!r} is not a whole safetensors file"
    try:
        opened = path.open("rb")
    except OSError as error:
        raise LoadError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    with opened as file:
        start = file.read(8)
        if len(start) < 8:
            raise LoadError(f"{broken}: {size} bytes. Fetch it again.")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, MAX_HEADER):
            raise LoadError(f"{broken}: its header would be {length} bytes. Fetch it again.")
        try:
            header = json.loads(file.read(length))
            extents = sorted(
                _extent(name, entry) for name, entry in header.items() if name != "__metadata__"
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LoadError(f"{broken}: {one_line(error)}") from error
    for (_, before, one), (start_of, _, other) in pairwise(extents):
        if start_of < before:
            raise LoadError(f"{broken}: tensors {one!r} and {other!r} overlap. Fetch it again.")
    missing = max((end for _, end, _ in extents), default=0) + 8 + length - size
    if missing > 0:
        raise LoadError(f"{broken}: the last {missing} bytes are missing. Fetch it again.")
    return [name for _, _, name in extents]


def _extent(name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor begins and ends, and its name; ValueError if its shape says otherwise."""
    (begin, end), shape = entry["data_offsets"], entry["shape"]
    whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    if not whole or max(shape, default=0) >= 2**31:
        raise ValueError(f"tensor {name!r} has impossible offsets or an impossible shape.")
    size = BYTES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else -1
    if begin > end or (size is not None and math.prod(shape) * size != end - begin):
        raise ValueError(f"tensor {name!r} has another size than its shape {shape}.")
    return begin, end, name


def evaluate_parameters(root: nn.Module) -> None:
    """Evaluate every array that a module holds, hidden ones (RoPE frequencies) included.

    Lazy arrays belong to the thread that made them; evaluated ones may be used by all.
    """
    attributes = [list(vars(module).values()) for module in root.modules()]
    evaluate(arrays_of(dict(root)), arrays_of(attributes))
