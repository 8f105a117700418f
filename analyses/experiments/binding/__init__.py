"""The binding experiment: tasks, pairs of prompts, interchange, mixture."""

from .library import SCHEMAS
from .pairs import Pair, draw_pairs
from .schemas import BindingSchema

__all__ = ["SCHEMAS", "BindingSchema", "Pair", "draw_pairs"]
