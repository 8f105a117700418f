"""Colours, the same in every backend: matplotlib's colour maps, sampled where others draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

#: Name of the map for signed numbers: blue is negative, red positive, zero almost white.
SIGNED = "signed"
SIGNED_COLORS = ("#2166ac", "#f7f7f7", "#b2182b")
#: Behind cells that have no value; no colour of a map.
NOTHING = "#dddddd"
#: Told apart by colour-blind readers, and light enough for black text (Paul Tol's "light").
CATEGORIES = (
    "#77aadd",
    "#ee8866",
    "#eedd88",
    "#ffaabb",
    "#99ddff",
    "#44bb99",
    "#bbcc33",
    "#aaaa00",
)


def colormap(name: str) -> Colormap:
    """The colour map called `name`, in any case (plotly writes ``Viridis``); gaps are grey.

    Raises:
        InputError: if there is none; the message names the nearest.
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if name == SIGNED:
        # An odd number of colours has a middle one: zero is exactly the neutral colour.
        found: Colormap = LinearSegmentedColormap.from_list(SIGNED, SIGNED_COLORS, N=257)
    else:
        known = {key.lower(): key for key in reversed(list(matplotlib.colormaps))}
        key = name if name in matplotlib.colormaps else known.get(str(name).lower())
        if key is None:
            raise InputError(f"there is no colour map {name!r}. {nearest(str(name), known)}")
        found = matplotlib.colormaps[key]
    return found.with_extremes(bad=NOTHING)


def plotly_scale(name: str, stops: int = 33) -> list[list[Any]]:
    """The colour map as plotly's list of (fraction, colour)."""
    from matplotlib.colors import to_hex

    colors = colormap(name)
    return [[i / (stops - 1), to_hex(colors(i / (stops - 1)))] for i in range(stops)]


def ink(color: Any) -> str:
    """Black or white: what reads better on `color` (WCAG's contrast)."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"
