"""A short path beside components that are far more active and change nothing."""

from __future__ import annotations

import numpy as np

from .models import Planted, one_hot, picks
from .path import ANSWERS, ASK, FACTS, FILLER, GAIN, START, VOCABULARY, path_parts

#: How much more the decoys write than the circuit.
LOUD = 20.0


def decoys() -> Planted:
    """The path through the MLP of layer 1, with three decoys that differ between the prompts.

    - Head 0.1 writes the fact, 20 times as large, into a block that only a decoy reads.
    - Head 1.1 reads it and writes it twice; the output head subtracts one from the other.
    - The MLP of layer 0 reads what the true head 0.0 moves and raises or lowers all logits
      alike: the norm of the logits changes, and neither differences nor probabilities do.
    """
    parts = path_parts(loud=4, twins=8, shift=1)
    blocks = parts.blocks
    parts.linear(1, reads=blocks.reader("moved"), writes=GAIN * blocks.writer("answer"))
    parts.copy(
        0,
        1,
        looks_for=blocks.reader("token", one_hot(VOCABULARY, *FACTS)),
        reads=blocks.reader("token", picks(VOCABULARY, *FACTS)),
        writes=LOUD * blocks.writer("loud"),
    )
    parts.copy(
        1,
        1,
        looks_for=blocks.reader("token", one_hot(VOCABULARY, ASK)),
        reads=blocks.reader("loud"),
        writes=blocks.writer("twins", np.vstack([np.eye(4), np.eye(4)])),
    )
    parts.linear(
        0,
        reads=blocks.reader("moved", np.array([[1.0, -1.0, 1.0, -1.0]])),
        writes=LOUD * blocks.writer("shift"),
    )
    answers = picks(VOCABULARY, *ANSWERS).T
    parts.unembed(blocks.reader("twins", np.hstack([answers, -answers])))
    parts.unembed(blocks.reader("shift", np.ones((VOCABULARY, 1))))
    return Planted(
        "decoys",
        parts.build(),
        layers=parts.layers,
        heads=parts.heads,
        clean=(START, FACTS[0], FILLER, FILLER, ASK),
        corrupted=(START, FACTS[1], FILLER, FILLER, ASK),
        correct=ANSWERS[0],
        incorrect=ANSWERS[1],
        edges=frozenset({("embed", "a0.h0.v"), ("a0.h0", "m1"), ("m1", "logits")}),
        story="the path through the MLP, beside heads 0.1 and 1.1 and MLP 0, which are louder "
        "and cancel",
    )
