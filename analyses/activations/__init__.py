"""Activations over many texts: harvested once into a store, read by whatever learns from them."""

from .harvest import estimate_harvest, harvest
from .store import ActivationStore

__all__ = ["ActivationStore", "estimate_harvest", "harvest"]
