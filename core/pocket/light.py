"""The embedded model for a command that needs nothing else of mlx-lm.

Importing the package mlx_lm imports transformers, which takes as long as all else that
``mlxray lens`` does with `pocket`. So a command loads the file of mlx-lm's Llama alone, under a
name of mlxray's own: the package mlx_lm, should somebody import it later, is untouched and
complete. Its classes are then others than these, so only the command line, where nobody else sees
the model, loads it so (`alone`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from . import PATH

_PACKAGE = f"{__package__}.lm"

_alone: ContextVar[bool] = ContextVar("mlxray_pocket_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Load `pocket` without mlx-lm's package in the block: nobody else works with the model."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def load() -> tuple[nn.Module, Any] | None:
    """The model and its tokenizer; None where the usual way has to be gone, or costs no more."""
    if not _alone.get() or "mlx_lm" in sys.modules:
        return None
    llama = _llama()
    if llama is None:
        return None
    config = json.loads((PATH / "config.json").read_text(encoding="utf-8"))
    model: nn.Module = llama.Model(llama.ModelArgs.from_dict(config))
    weights: Any = mx.load(str(PATH / "model.safetensors"))
    model.load_weights(list(llama.Model.sanitize(model, weights).items()))
    model.eval()
    return model, PocketTokenizer(PATH)


def _llama() -> Any:
    """mlx-lm's file of Llama as a module; None if that one needs more than its folder."""
    if _PACKAGE not in sys.modules:
        found = importlib.util.find_spec("mlx_lm")  # found, not imported
        folders = found.submodule_search_locations if found is not None else None
        spec = ModuleSpec(_PACKAGE, None, is_package=True)
        spec.submodule_search_locations = [str(Path(f) / "models") for f in folders or ()]
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{_PACKAGE}.llama")
    except ImportError:
        return None


class PocketTokenizer:
    """The tokenizer's file alone; anything but these few things comes from transformers.

    Attributes:
        bos_token, bos_token_id: The token that begins a text.
        backend_tokenizer: What does the work.
    """

    clean_up_tokenization_spaces = False

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        self.backend_tokenizer = self._fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.bos_token: str = settings["bos_token"]
        self.bos_token_id: int | None = self._fast.token_to_id(self.bos_token)
        self._whole: Any = None

    def encode(self, text: str) -> list[int]:
        """Ids, special tokens added."""
        ids: list[int] = self._fast.encode(text).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text, special tokens included."""
        return str(self._fast.decode(list(ids), skip_special_tokens=False))

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        """A token as the vocabulary spells it; None for an id that has none."""
        entry: str | None = self._fast.id_to_token(token_id)
        return entry

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._whole is None:
            from mlx_lm.utils import load_tokenizer

            self._whole = load_tokenizer(self._folder)
        return getattr(self._whole, name)
