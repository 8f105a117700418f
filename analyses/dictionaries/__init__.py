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

__all__ = [
    "AbsTopK",
    "Activation",
    "BatchTopK",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "Gated",
    "JumpReLU",
    "LayerNorm",
    "NoNormalization",
    "Normalization",
    "ReLU",
    "Scale",
    "Standardize",
    "TokenNorm",
    "TopK",
    "TranscoderLayer",
    "load_dictionary",
    "save_dictionary",
]
