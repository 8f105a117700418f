"""A lens result as a grid, ready to draw: one row per layer, one column per position."""

from __future__ import annotations

from dataclasses import dataclass

from mlxray.analyses.lenses.lens_result import LensResult
from mlxray.errors import InputError

from ..drawing.labels import token_label

#: Colours of ``color="token"`` go to this many tokens, the most frequent; the rest share one.
NAMED = 8


@dataclass(frozen=True)
class LensGrid:
    """What both backends draw; rows and columns as in the result.

    Attributes:
        layers: Of the rows.
        positions: Of the columns.
        columns: Labels of the prompt's tokens at those positions.
        predicted: (layers, positions) labels of the most likely tokens.
        probability: (layers, positions) of those tokens.
        rank: (layers, positions) place of the token among the most frequent, `NAMED` for the rest.
        title: Of the picture.
        reading: Label of the horizontal axis.
        depth: Label of the vertical axis.
    """

    layers: list[int]
    positions: list[int]
    columns: list[str]
    predicted: list[list[str]]
    probability: list[list[float]]
    rank: list[list[int]]
    title: str
    reading: str
    depth: str


def lens_grid(result: LensResult, max_display_tokens: int, title: str | None) -> LensGrid:
    """The last `max_display_tokens` positions of `result`.

    Raises:
        InputError: if there is nothing to draw, or `max_display_tokens` is not positive.
    """
    if not result.layers or not result.positions:
        raise InputError("this lens result has no layers or no positions: there is nothing to draw")
    if max_display_tokens < 1:
        raise InputError(f"max_display_tokens={max_display_tokens}: show at least one token.")
    first = max(0, len(result.positions) - max_display_tokens)
    best = [[cell[0] for cell in result.predictions[layer][first:]] for layer in result.layers]
    shown = result.positions[first:]
    name = str(result.metadata.get("analysis", result.result_type)).replace("_", " ")
    return LensGrid(
        layers=list(result.layers),
        positions=shown,
        columns=[token_label(result.tokens[p], 14) for p in shown],
        predicted=[[token_label(text) for _, _, text in row] for row in best],
        probability=[
            [cell[0] for cell in result.probabilities[layer][first:]] for layer in result.layers
        ],
        rank=_ranks([[token for token, _, _ in row] for row in best]),
        title=f"{name.capitalize()}: most likely next token, by layer" if title is None else title,
        reading=_reading(shown, len(result.tokens)),
        depth=f"layer ({result.point})",
    )


def _ranks(tokens: list[list[int]]) -> list[list[int]]:
    counts: dict[int, int] = {}
    # From the last row, so that equally frequent tokens rank by how late they stay on top.
    for row in reversed(tokens):
        for token in row:
            counts[token] = counts.get(token, 0) + 1
    order = sorted(counts, key=lambda token: -counts[token])
    place = {token: min(i, NAMED) for i, token in enumerate(order)}
    return [[place[token] for token in row] for row in tokens]


def _reading(positions: list[int], total: int) -> str:
    if len(positions) == 1:
        return f"prompt token read (position {positions[0]} of 0–{total - 1})"
    if len(positions) == total:
        return "prompt token read, in order"
    return f"prompt tokens read (positions {positions[0]}–{positions[-1]} of 0–{total - 1})"
