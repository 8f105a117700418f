"""An MLP that computes AND of two facts, which two heads bring to it."""

from __future__ import annotations

from .llama_parts import LlamaParts
from .models import CONSTANT, Blocks, Planted, one_hot

START, LEFT_NO, LEFT_YES, RIGHT_NO, RIGHT_YES, ASK, TRUE, FALSE = range(8)
GAIN = 4.0


def conjunction() -> Planted:
    """Says TRUE where both facts hold. Either one alone changes nothing, and losing either does.

    So patching single edges of the corrupted run towards the clean one finds none of the edges
    before the MLP, while patching those of the clean run towards the corrupted one finds them
    all.
    """
    blocks = Blocks(constant=1, token=8, left=1, right=1, both=1, idle=4)
    parts = LlamaParts(blocks, layers=2, heads=2, head_width=16, vocabulary=8)
    sides = (("left", LEFT_NO, LEFT_YES), ("right", RIGHT_NO, RIGHT_YES))
    for head, (name, no, yes) in enumerate(sides):
        parts.copy(
            0,
            head,
            looks_for=blocks.reader("token", one_hot(8, no, yes)),
            reads=blocks.reader("token", one_hot(8, yes)),
            writes=blocks.writer(name),
        )
    parts.conjunction(
        1,
        left=blocks.reader("left"),
        right=blocks.reader("right"),
        writes=GAIN * blocks.writer("both"),
    )
    parts.unembed(blocks.reader("both", one_hot(8, TRUE).T))
    # FALSE is worth half the gain everywhere, so that TRUE wins where both facts hold.
    parts.unembed(blocks.reader("constant", one_hot(8, FALSE).T * GAIN / 2 / CONSTANT))
    return Planted(
        "conjunction",
        parts.build(),
        layers=2,
        heads=2,
        clean=(START, LEFT_YES, RIGHT_YES, ASK),
        corrupted=(START, LEFT_NO, RIGHT_NO, ASK),
        correct=TRUE,
        incorrect=FALSE,
        edges=frozenset(
            {
                ("embed", "a0.h0.v"),
                ("embed", "a0.h1.v"),
                ("a0.h0", "m1"),
                ("a0.h1", "m1"),
                ("m1", "logits"),
            }
        ),
        story="heads 0.0 and 0.1 fetch a fact each, the MLP of layer 1 says whether both hold",
    )
