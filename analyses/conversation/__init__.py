"""Conversations: what turns look at, and what an answer needs of them."""

from __future__ import annotations

from .cuts import Cut, turn_cut
from .edits import cut_turns
from .turn_ablation import turn_ablation
from .turn_attention import conversation_attention
from .turn_patching import turn_patching

__all__ = [
    "Cut",
    "conversation_attention",
    "cut_turns",
    "turn_ablation",
    "turn_cut",
    "turn_patching",
]
