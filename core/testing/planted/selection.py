"""Choosing among items by a label: one head composes with others by query, key and value."""

from __future__ import annotations

from .gpt2_parts import GPT2Parts
from .models import Blocks, Planted, one_hot, picks

WANT_RED, WANT_BLUE, RED, BLUE, ITEM, ASK = range(6)
THINGS = (6, 7, 8, 9)
VOCABULARY = 10
GAIN = 4.0


def selection() -> Planted:
    """``want-red  red X item  blue Y item  ask`` → X.

    - Head 0.0 brings what is wanted to the question (query of head 1.0).
    - Head 0.1 looks two tokens back: each ``item`` learns its label (key of head 1.0).
    - Head 0.2 looks one token back: each ``item`` learns its thing, which the MLP of layer 0
      translates (value of head 1.0).
    - Head 1.0 attends to the item whose label is wanted and says its thing.
    """
    blocks = Blocks(
        constant=2, balance=1, position=8, token=VOCABULARY,
        wanted=2, label=2, fetched=4, thing=4, idle=3,
    )  # fmt: skip
    parts = GPT2Parts(blocks, layers=2, heads=3, vocabulary=VOCABULARY, mlps=True)
    parts.look_for(
        0,
        0,
        blocks.reader("token", one_hot(VOCABULARY, WANT_RED, WANT_BLUE)),
        reads=blocks.reader("token", picks(VOCABULARY, WANT_RED, WANT_BLUE)),
        writes=blocks.writer("wanted"),
    )
    labels = blocks.reader("token", picks(VOCABULARY, RED, BLUE))
    parts.look_back(0, 1, 2, reads=labels, writes=blocks.writer("label"))
    things = blocks.reader("token", picks(VOCABULARY, *THINGS))
    parts.look_back(0, 2, 1, reads=things, writes=blocks.writer("fetched"))
    parts.threshold(0, reads=blocks.reader("fetched"), writes=blocks.writer("thing"))
    parts.match(
        1,
        0,
        query=blocks.reader("wanted"),
        key=blocks.reader("label"),
        reads=blocks.reader("thing"),
        writes=GAIN * blocks.writer("token", picks(VOCABULARY, *THINGS).T),
    )
    return Planted(
        "selection",
        parts.build(),
        layers=2,
        heads=3,
        clean=(WANT_RED, RED, THINGS[0], ITEM, BLUE, THINGS[1], ITEM, ASK),
        corrupted=(WANT_BLUE, BLUE, THINGS[2], ITEM, RED, THINGS[3], ITEM, ASK),
        correct=THINGS[0],
        incorrect=THINGS[2],
        edges=frozenset(
            {
                ("embed", "a0.h0.v"),
                ("embed", "a0.h1.v"),
                ("embed", "a0.h2.v"),
                ("a0.h2", "m0"),
                ("a0.h0", "a1.h0.q"),
                ("a0.h1", "a1.h0.k"),
                ("m0", "a1.h0.v"),
                ("a1.h0", "logits"),
            }
        ),
        story="heads 0.0, 0.1 and 0.2 give head 1.0 its query, key and (by MLP 0) value",
    )
