"""How much text fits where."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Points per inch, and what a line and a character of text take of the font's size.
POINTS = 72
LINE, CHARACTER = 1.25, 0.6


def text_size(width: float) -> float:
    """Points for the labels of a figure that is `width` inches wide."""
    return min(max(0.75 * width, 9.0), 12.0)


def labelled(count: int, size: float, room: float) -> range:
    """Which of `count` ticks get a label when each label takes `size` of the axis' `room`."""
    return range(0, count, max(1, math.ceil(count * size / max(room, 1e-9))))


def around(sizes: Sequence[int], at: int, room: int) -> slice:
    """Which neighbours fit into `room` together with entry `at`, as far to both sides as goes.

    >>> around([5, 1, 1, 1, 5], 2, 8)
    slice(0, 4, None)
    """
    first, last, left = at, at + 1, room - sizes[at]
    while True:
        before = sizes[first - 1] if first > 0 else math.inf
        after = sizes[last] if last < len(sizes) else math.inf
        if min(before, after) > left:
            return slice(first, last)
        # The shorter side grows; the other one where that is at its end.
        if before <= left and (at - first < last - at or after > left):
            first, left = first - 1, left - int(before)
        else:
            last, left = last + 1, left - int(after)
