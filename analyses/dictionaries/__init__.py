"""Sparse dictionaries: autoencoders, transcoders and crosscoders, their training and reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .activations import AbsTopK as AbsTopK
    from .activations import Activation as Activation
    from .activations import BatchTopK as BatchTopK
    from .activations import Gated as Gated
    from .activations import JumpReLU as JumpReLU
    from .activations import ReLU as ReLU
    from .activations import TopK as TopK
    from .cross_layer import CrossLayerTranscoder as CrossLayerTranscoder
    from .cross_layer import TranscoderLayer as TranscoderLayer
    from .crosscoder import Crosscoder as Crosscoder
    from .dictionary import Dictionary as Dictionary
    from .files import load_dictionary as load_dictionary
    from .files import save_dictionary as save_dictionary
    from .normalization import LayerNorm as LayerNorm
    from .normalization import NoNormalization as NoNormalization
    from .normalization import Normalization as Normalization
    from .normalization import Scale as Scale
    from .normalization import Standardize as Standardize
    from .normalization import TokenNorm as TokenNorm
    from .report_result import DictionaryReport as DictionaryReport
    from .train import train_dictionaries as train_dictionaries
    from .train import train_dictionary as train_dictionary
    from .training import Batches as Batches
    from .training import DictionaryConfig as DictionaryConfig
    from .training import InMemory as InMemory
    from .training_result import TrainingResult as TrainingResult

#: Public name → the module that has it; imported when first asked for, so that a result type or a
#: file format can be registered without what trains a dictionary.
_HOMES = {
    "AbsTopK": "activations",
    "Activation": "activations",
    "BatchTopK": "activations",
    "Batches": "training",
    "CrossLayerTranscoder": "cross_layer",
    "Crosscoder": "crosscoder",
    "Dictionary": "dictionary",
    "DictionaryConfig": "training",
    "DictionaryReport": "report_result",
    "Gated": "activations",
    "InMemory": "training",
    "JumpReLU": "activations",
    "LayerNorm": "normalization",
    "NoNormalization": "normalization",
    "Normalization": "normalization",
    "ReLU": "activations",
    "Scale": "normalization",
    "Standardize": "normalization",
    "TokenNorm": "normalization",
    "TopK": "activations",
    "TrainingResult": "training_result",
    "TranscoderLayer": "cross_layer",
    "load_dictionary": "files",
    "save_dictionary": "files",
    "train_dictionaries": "train",
    "train_dictionary": "train",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
