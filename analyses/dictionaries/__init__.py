"""Sparse dictionaries: autoencoders, transcoders and crosscoders, their training and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxray.lazy import lazy_names

if TYPE_CHECKING:
    from .estimate import TrainingEstimate as TrainingEstimate
    from .estimate import estimate_training as estimate_training
    from .files import load_dictionary as load_dictionary
    from .files import save_dictionary as save_dictionary
    from .into_folder import train_into as train_into
    from .report_result import DictionaryReport as DictionaryReport
    from .steering import feature_vector as feature_vector
    from .synthetic.config import SyntheticConfig as SyntheticConfig
    from .synthetic.features import SyntheticData as SyntheticData
    from .synthetic.features import SyntheticFeatures as SyntheticFeatures
    from .synthetic.score import score_dictionary as score_dictionary
    from .synthetic.score_result import SyntheticScore as SyntheticScore
    from .train import train_dictionaries as train_dictionaries
    from .train import train_dictionary as train_dictionary
    from .training.batches import Batches as Batches
    from .training.batches import InMemory as InMemory
    from .training.config import DictionaryConfig as DictionaryConfig
    from .training.training_result import TrainingResult as TrainingResult
    from .types.activations import AbsTopK as AbsTopK
    from .types.activations import Activation as Activation
    from .types.activations import BatchTopK as BatchTopK
    from .types.activations import Gated as Gated
    from .types.activations import JumpReLU as JumpReLU
    from .types.activations import ReLU as ReLU
    from .types.activations import TopK as TopK
    from .types.cross_layer import CrossLayerTranscoder as CrossLayerTranscoder
    from .types.cross_layer import TranscoderLayer as TranscoderLayer
    from .types.crosscoder import Crosscoder as Crosscoder
    from .types.dictionary import Dictionary as Dictionary
    from .types.form import DictionaryForm as DictionaryForm
    from .types.matching_pursuit import MatchingPursuit as MatchingPursuit
    from .types.normalization import LayerNorm as LayerNorm
    from .types.normalization import NoNormalization as NoNormalization
    from .types.normalization import Normalization as Normalization
    from .types.normalization import Scale as Scale
    from .types.normalization import Standardize as Standardize
    from .types.normalization import TokenNorm as TokenNorm
    from .types.temporal import ContextAttention as ContextAttention
    from .types.temporal import TemporalDictionary as TemporalDictionary

#: Public name → the module that has it; imported when first asked for, so that a result type or a
#: file format can be registered without what trains a dictionary.
_HOMES = {
    "AbsTopK": "types.activations",
    "Activation": "types.activations",
    "BatchTopK": "types.activations",
    "Batches": "training.batches",
    "ContextAttention": "types.temporal",
    "CrossLayerTranscoder": "types.cross_layer",
    "Crosscoder": "types.crosscoder",
    "Dictionary": "types.dictionary",
    "DictionaryConfig": "training.config",
    "DictionaryForm": "types.form",
    "DictionaryReport": "report_result",
    "Gated": "types.activations",
    "InMemory": "training.batches",
    "JumpReLU": "types.activations",
    "LayerNorm": "types.normalization",
    "MatchingPursuit": "types.matching_pursuit",
    "NoNormalization": "types.normalization",
    "Normalization": "types.normalization",
    "ReLU": "types.activations",
    "Scale": "types.normalization",
    "Standardize": "types.normalization",
    "SyntheticConfig": "synthetic.config",
    "SyntheticData": "synthetic.features",
    "SyntheticFeatures": "synthetic.features",
    "SyntheticScore": "synthetic.score_result",
    "TemporalDictionary": "types.temporal",
    "TokenNorm": "types.normalization",
    "TopK": "types.activations",
    "TrainingEstimate": "estimate",
    "TrainingResult": "training.training_result",
    "TranscoderLayer": "types.cross_layer",
    "feature_vector": "steering",
    "estimate_training": "estimate",
    "load_dictionary": "files",
    "save_dictionary": "files",
    "score_dictionary": "synthetic.score",
    "train_dictionaries": "train",
    "train_dictionary": "train",
    "train_into": "into_folder",
}

__all__ = [*_HOMES]  # noqa: PLE0604

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
