"""Where a point is: the vocabulary, the roles of a family, and the places in a model."""

from .vocabulary import ALIASES, ATTENTION_POINTS, POINTS, Address, AddressLike, parse

__all__ = ["ALIASES", "ATTENTION_POINTS", "POINTS", "Address", "AddressLike", "parse"]
