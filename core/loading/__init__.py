"""From a name to a model, and from a model to its adapter."""

from .load import load

__all__ = ["load"]
