"""Training of sparse dictionaries: one trainer for all kinds."""

from .batches import Batches, InMemory
from .config import DictionaryConfig

__all__ = ["Batches", "DictionaryConfig", "InMemory"]
