"""Lenses side by side: a map for each point, the predicted token in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.experiments.lens_comparison.result import LensComparisonResult
from mlxray.errors import InputError, nearest
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices, largest, too_small
from ..drawing.labels import token_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What the colour can be: attribute of a reading → label of the scale.
VALUES = {
    "answer_probability": "probability of the answer",
    "answer_rank": "rank of the answer, log₁₀ (0: on top)",
    "entropy": "entropy of what is read (nats)",
    "kl": "KL(model ‖ what is read), nats",
}
_WIDEST_TOKEN = 8


def _matrices(
    result: LensComparisonResult,
    value: str,
    max_display_tokens: int,
    cmap: str | None,
    title: str | None,
) -> Matrices:
    import numpy as np

    from ..drawing.arrays import to_numpy

    if value not in VALUES:
        raise InputError(f"value={value!r} cannot be drawn. {nearest(value, VALUES)}")
    if max_display_tokens < 1:
        raise InputError(f"max_display_tokens={max_display_tokens}: show at least one token.")
    if not result.layers or not result.positions:
        raise InputError("this result has no layers or no positions: there is nothing to draw.")
    first = max(0, len(result.positions) - max_display_tokens)
    panels, texts = [], []
    for point, reading in result.items():
        numbers = to_numpy(getattr(reading, value))[:, first:]
        numbers = np.log10(numbers) if value == "answer_rank" else numbers
        read = dict(zip(reading.layers, numbers, strict=True))
        panels.append((point, _with_gaps(result, read, len(result.positions) - first)))
        predicted = reading.lens.predictions
        texts.append(
            [
                [token_label(cell[0][2], _WIDEST_TOKEN) for cell in predicted[layer][first:]]
                if layer in predicted
                else [""] * (len(result.positions) - first)
                for layer in result.layers
            ]
        )
    is_probability = value == "answer_probability"
    shown = (len(result.layers), len(result.positions) - first)
    read_off = (
        "by point and layer" if too_small(shown) else "most likely next token, by point and layer"
    )
    return Matrices(
        panels=panels,
        rows=result.layers,
        title=f"Lenses: {read_off}" if title is None else title,
        note=_note(result, first),
        unit=VALUES[value],
        across="prompt token read",
        limit=1.0 if is_probability else max(largest(values) for _, values in panels),
        signed=False,
        cmap=cmap or ("Blues" if is_probability else "Blues_r"),
        columns=[token_label(result.tokens[p], 14) for p in result.positions[first:]],
        texts=texts,
        cell=0.72,
    )


def _with_gaps(
    result: LensComparisonResult, read: dict[int, NDArray[Any]], width: int
) -> NDArray[Any]:
    """(layers, positions), NaN where a layer lacks the point."""
    import numpy as np

    return np.stack([read.get(layer, np.full(width, np.nan)) for layer in result.layers])


def _note(result: LensComparisonResult, first: int) -> str:
    answers = result.answer_texts[first:]
    same = len(set(answers)) == 1
    answer = (
        token_label(answers[0], 30) if same else "what the model itself finds most likely there"
    )
    count = len(result.positions)
    part = f"; the last {count - first} of {count} tokens read" if first else ""
    return f"answer: {answer}{part}"


@visualizer(LensComparisonResult, backend="matplotlib")
def lens_comparison_matplotlib(
    result: LensComparisonResult,
    *,
    value: str = "answer_probability",
    max_display_tokens: int = 12,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw what each point reads with matplotlib; the last layer is the top row.

    Args:
        value: The colour: ``"answer_probability"``, ``"answer_rank"``, ``"entropy"`` or ``"kl"``.
        max_display_tokens: Columns at most, counted from the end of the prompt.
        figsize: Width and height in inches; grows with layers and tokens if left out.
        cmap: Colour map.
        title: Of the whole picture.
    """
    from ..charts.matrix_matplotlib import draw

    return draw(_matrices(result, value, max_display_tokens, cmap, title), figsize)


@visualizer(LensComparisonResult, backend="plotly")
def lens_comparison_plotly(
    result: LensComparisonResult,
    *,
    value: str = "answer_probability",
    max_display_tokens: int = 12,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw what each point reads with plotly; arguments as with matplotlib."""
    from ..charts.matrix_plotly import draw

    return draw(_matrices(result, value, max_display_tokens, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Maps of lenses side by side."""
    return [lens_comparison_matplotlib, lens_comparison_plotly]
