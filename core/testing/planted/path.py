"""A path of three edges and nothing else: embed → head of layer 0 → layer 1 → logits."""

from __future__ import annotations

import numpy as np

from .llama_parts import LlamaParts
from .models import Blocks, Planted, one_hot, picks

# Tokens: a start, four facts, a filler, a question, and the four answers to the facts.
START, FACTS, FILLER, ASK, ANSWERS = 0, (1, 2, 3, 4), 5, 6, (7, 8, 9, 10)
VOCABULARY = 11
GAIN = 4.0


def path_parts(**more_blocks: int) -> LlamaParts:
    """The part that both paths share: head 0.0 brings the fact to wherever it is asked for."""
    blocks = Blocks(constant=1, token=VOCABULARY, moved=4, answer=4, idle=4, **more_blocks)
    parts = LlamaParts(blocks, layers=2, heads=2, head_width=16, vocabulary=VOCABULARY)
    is_fact = blocks.reader("token", one_hot(VOCABULARY, *FACTS))
    which = blocks.reader("token", picks(VOCABULARY, *FACTS))
    parts.copy(0, 0, looks_for=is_fact, reads=which, writes=blocks.writer("moved"))
    parts.unembed(blocks.reader("answer", picks(VOCABULARY, *ANSWERS).T))
    return parts


def _planted(parts: LlamaParts, name: str, second: str, story: str) -> Planted:
    return Planted(
        name,
        parts.build(),
        layers=parts.layers,
        heads=parts.heads,
        clean=(START, FACTS[0], FILLER, FILLER, ASK),
        corrupted=(START, FACTS[1], FILLER, FILLER, ASK),
        correct=ANSWERS[0],
        incorrect=ANSWERS[1],
        edges=frozenset(
            {
                ("embed", "a0.h0.v"),
                ("a0.h0", second),
                (second.removesuffix(".v"), "logits"),
            }
        ),
        story=story,
    )


def path_through_mlp() -> Planted:
    """Head 0.0 moves a fact; the MLP of layer 1 turns it into the answer."""
    parts = path_parts()
    blocks = parts.blocks
    parts.linear(1, reads=blocks.reader("moved"), writes=GAIN * blocks.writer("answer"))
    story = "head 0.0 moves a fact to the question, the MLP of layer 1 answers it"
    return _planted(parts, "path_through_mlp", "m1", story)


def path_through_head() -> Planted:
    """The same with head 1.0, which attends to the question itself, in place of the MLP."""
    parts = path_parts()
    blocks = parts.blocks
    is_question = blocks.reader("token", one_hot(VOCABULARY, ASK))
    parts.copy(
        1,
        0,
        looks_for=is_question,
        reads=blocks.reader("moved"),
        writes=GAIN * blocks.writer("answer", np.eye(4)),
    )
    story = "head 0.0 moves a fact to the question, head 1.0 answers it from there"
    return _planted(parts, "path_through_head", "a1.h0.v", story)
