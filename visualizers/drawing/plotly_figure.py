"""What all plotly pictures share: size, fonts, plain titles, and axes of positions."""

from __future__ import annotations

from typing import Any

from .labels import plotly_text

#: Pixels per inch of a `figsize`.
PIXELS = 80
FONTS = "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', 'Noto Sans CJK SC', sans-serif"


def framed(
    figure: Any,
    title: str,
    size: tuple[float, float],
    *,
    note: str = "",
    font_family: str | None = None,
    font_size: float = 12,
) -> Any:
    """Give `figure` its title, a note under it (both plain text) and its size in inches."""
    height = round(size[1] * PIXELS)
    family = f"{font_family}, {FONTS}" if font_family else FONTS
    figure.update_layout(
        title={
            "text": plotly_text(title),
            "subtitle": {"text": plotly_text(note), "font": {"size": 12}} if note else None,
            "font": {"size": 16},
            "x": 0.5,
            "xanchor": "center",
            # Below the buttons, which plotly shows at the top.
            "y": 1 - 40 / height,
            "yanchor": "middle",
        },
        width=round(size[0] * PIXELS),
        height=height,
        template="plotly_white",
        font={"family": family, "size": font_size},
        hoverlabel={"align": "left", "font": {"family": family}},
        margin={"l": 60, "r": 30, "t": 105 if note else 85, "b": 50},
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def positions(labels: list[str], every: range | None = None, **more: Any) -> dict[str, Any]:
    """An axis of places 0, 1, … with text at them: equal labels stay apart.

    Args:
        labels: Plain text of each place.
        every: The places that get a label; all if left out.
        more: Other properties of the axis.
    """
    shown = list(every if every is not None else range(len(labels)))
    return {
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [plotly_text(labels[i]) for i in shown],
        "showgrid": False,
        "zeroline": False,
        "range": [-0.5, len(labels) - 0.5],
        **more,
    }
