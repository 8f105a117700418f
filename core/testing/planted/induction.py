"""The induction circuit: a previous-token head feeds a head that looks for what came after."""

from __future__ import annotations

from .gpt2_parts import GPT2Parts
from .models import Blocks, Planted

VOCABULARY, POSITIONS = 8, 12
GAIN = 4.0


def induction() -> Planted:
    """Two layers of attention only (Olsson et al. 2022), on ``… A B … A`` → B.

    Head 0.0 writes at each token which token came before. Head 1.0 attends from A to the token
    that followed the earlier A, and copies it.
    """
    blocks = Blocks(
        constant=2, balance=1, position=POSITIONS, token=VOCABULARY, before=VOCABULARY, idle=9
    )
    parts = GPT2Parts(blocks, layers=2, heads=2, vocabulary=VOCABULARY, mlps=False)
    token = blocks.reader("token")
    parts.look_back(0, 0, 1, reads=token, writes=blocks.writer("before"))
    parts.match(
        1,
        0,
        query=token,
        key=blocks.reader("before"),
        reads=token,
        writes=GAIN * blocks.writer("token"),
    )
    return Planted(
        "induction",
        parts.build(),
        layers=2,
        heads=2,
        clean=(0, 3, 1, 2, 4, 7, 1),
        corrupted=(0, 3, 5, 6, 4, 7, 5),
        correct=2,
        incorrect=6,
        edges=frozenset(
            {
                ("embed", "a0.h0.v"),
                ("a0.h0", "a1.h0.k"),
                ("embed", "a1.h0.q"),
                ("embed", "a1.h0.v"),
                ("a1.h0", "logits"),
            }
        ),
        story="head 0.0 tells each token its predecessor, head 1.0 finds what followed last time",
    )
