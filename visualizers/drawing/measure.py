"""How much text fits where."""

from __future__ import annotations

import math

#: Points per inch, and what a line and a character of text take of the font's size.
POINTS = 72
LINE, CHARACTER = 1.25, 0.6


def text_size(width: float) -> float:
    """Points for the labels of a figure that is `width` inches wide."""
    return min(max(0.75 * width, 9.0), 12.0)


def labelled(count: int, size: float, room: float) -> range:
    """Which of `count` ticks get a label when each label takes `size` of the axis' `room`."""
    return range(0, count, max(1, math.ceil(count * size / max(room, 1e-9))))
