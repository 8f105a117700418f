"""Where features are most active: tokens coloured by the feature's value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.examples_result import MaxActivatingResult, TopTextsResult
from mlxray.plugins.kinds import Visualizer

from ..drawing.display import HtmlPicture
from ..drawing.labels import html_text
from .passages import LINE_WIDTH, MARGIN, Passages, Word, of_examples, of_texts

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from ..drawing.figure import Picture

#: Inches of a character and of a line; points of the tokens.
_CHARACTER, _LINE, _SIZE = 0.085, 0.27, 9
#: From no value to the largest, and from the most negative one.
_ONE_SIDED, _SIGNED = "Oranges", "signed"


def _colors(text: Passages, cmap: str | None) -> Colormap:
    from ..drawing.colors import colormap

    return colormap(cmap or (_SIGNED if text.signed else _ONE_SIDED))


def _color(word: Word, colors: Colormap, signed: bool) -> Any:
    """What stands behind a token: nothing where the feature is not active."""
    if not word.value:
        return (1.0, 1.0, 1.0, 1.0)
    # The palest part of the map would look like nothing.
    return colors(0.5 + 0.5 * word.share if signed else 0.1 + 0.75 * word.share)


def _draw(text: Passages, figsize: tuple[float, float] | None, cmap: str | None) -> Picture:
    from matplotlib.patches import Rectangle

    from ..drawing.colors import ink
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    heads = [each.head for each in text.passages]
    labels = [word.label for each in text.passages for word in each.words]
    face = typeface([text.title, text.note, *heads, *labels], "monospace")
    colors = _colors(text, cmap)
    longest = max(word.start + word.width for each in text.passages for word in each.words)
    wide = MARGIN + max(longest, 48)
    gap = 0.35
    high = text.lines + gap * len(text.passages)
    figure = picture(*(figsize or (wide * _CHARACTER + 0.3, high * _LINE + 0.9)))
    axes = figure.add_subplot()
    top = 0.0
    middle: dict[str, Any] = {"va": "center", **face.options}
    for each in text.passages:
        if each.head:
            axes.text(0, top, face.text(each.head), fontsize=_SIZE + 1, weight="bold", **middle)
            top += 1
        axes.text(MARGIN - 1.5, top, each.value, fontsize=_SIZE, ha="right", **middle)
        for word in each.words:
            left, y = MARGIN + word.start, top + word.line
            color = _color(word, colors, text.signed)
            axes.add_patch(
                Rectangle(
                    (left, y - 0.42),
                    word.width - 0.15,
                    0.84,
                    facecolor=color,
                    edgecolor="black" if word.meant else "none",
                    linewidth=1.2,
                )
            )
            axes.text(
                left + (word.width - 0.15) / 2,
                y,
                face.text(word.label),
                fontsize=_SIZE,
                ha="center",
                color=ink(color),
                **middle,
            )
        top += each.lines + gap
    axes.set_xlim(0, wide)
    axes.set_ylim(top - 0.4, -0.6)
    axes.set_axis_off()
    figure.suptitle(face.text(f"{text.title}\n{text.note}"), fontsize=11, **face.options)
    return figure


def _html(text: Passages, cmap: str | None) -> HtmlPicture:
    from matplotlib.colors import to_hex

    from ..drawing.colors import ink

    colors = _colors(text, cmap)
    parts = [
        "<div style='font-family: system-ui, sans-serif; max-width: 60em'>",
        f"<h3 style='margin-bottom: 0'>{html_text(text.title)}</h3>",
        f"<p style='margin-top: 0; color: #666'>{html_text(text.note)}</p>",
    ]
    for each in text.passages:
        if each.head:
            parts.append(f"<h4 style='margin: 1em 0 0.3em'>{html_text(each.head)}</h4>")
        words = []
        for word in each.words:
            color = _color(word, colors, text.signed)
            frame = "outline: 1.5px solid black;" if word.meant else ""
            words.append(
                f"<span title='{word.value:.4g}' style='background: {to_hex(color)}; "
                f"color: {ink(color)}; {frame} padding: 0 1px'>{html_text(word.label)}</span>"
            )
        parts.append(
            "<div style='display: flex; margin: 0.3em 0'>"
            f"<span style='width: 5em; flex: none; color: #666'>{html_text(each.value)}</span>"
            "<span style='font-family: monospace; line-height: 1.6; overflow-wrap: anywhere'>"
            f"{'&#8203;'.join(words)}</span></div>"
        )
    return HtmlPicture("\n".join([*parts, "</div>"]), text.title)


@visualizer(MaxActivatingResult, backend="matplotlib")
def examples_matplotlib(
    result: MaxActivatingResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Picture:
    """Draw examples with matplotlib.

    Args:
        figsize: Width and height in inches; grows with the examples if left out.
        cmap: Colour map of the values; oranges, or blue to red where some are negative.
        title: Instead of the one that names the place.
    """
    return _draw(of_examples(result, title, LINE_WIDTH), figsize, cmap)


@visualizer(MaxActivatingResult, backend="html")
def examples_html(
    result: MaxActivatingResult, *, cmap: str | None = None, title: str | None = None
) -> HtmlPicture:
    """Examples as HTML that loads nothing; arguments as with matplotlib."""
    return _html(of_examples(result, title, 4 * LINE_WIDTH), cmap)


@visualizer(TopTextsResult, backend="matplotlib")
def top_texts_matplotlib(
    result: TopTextsResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Picture:
    """Draw texts with matplotlib; arguments as for examples."""
    return _draw(of_texts(result, title, LINE_WIDTH), figsize, cmap)


@visualizer(TopTextsResult, backend="html")
def top_texts_html(
    result: TopTextsResult, *, cmap: str | None = None, title: str | None = None
) -> HtmlPicture:
    """Texts as HTML that loads nothing; arguments as with matplotlib."""
    return _html(of_texts(result, title, 4 * LINE_WIDTH), cmap)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of where features are active."""
    return [examples_matplotlib, examples_html, top_texts_matplotlib, top_texts_html]
