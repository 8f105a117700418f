"""Sparse dictionaries: autoencoders, transcoders and crosscoders, their training and reports."""

from .activations import AbsTopK, Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
from .cross_layer import CrossLayerTranscoder, TranscoderLayer
from .crosscoder import Crosscoder
from .dictionary import Dictionary
from .files import load_dictionary, save_dictionary
from .normalization import (
    LayerNorm,
    NoNormalization,
    Normalization,
    Scale,
    Standardize,
    TokenNorm,
)
from .report_result import DictionaryReport
from .train import train_dictionaries, train_dictionary
from .training import Batches, DictionaryConfig, InMemory
from .training_result import TrainingResult

__all__ = [
    "AbsTopK",
    "Activation",
    "BatchTopK",
    "Batches",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "DictionaryConfig",
    "DictionaryReport",
    "Gated",
    "InMemory",
    "JumpReLU",
    "LayerNorm",
    "NoNormalization",
    "Normalization",
    "ReLU",
    "Scale",
    "Standardize",
    "TokenNorm",
    "TopK",
    "TrainingResult",
    "TranscoderLayer",
    "load_dictionary",
    "save_dictionary",
    "train_dictionaries",
    "train_dictionary",
]
