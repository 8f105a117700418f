"""Analyses that a stranger might register, for the tests of `mlxray run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx

from mlxray import TableResult, analysis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .nowhere import Model, Prompt


@analysis
def stranger(
    model: Model,
    text: Prompt,
    *,
    layers: Sequence[int] | None = None,
    depth: int = 2,
    share: float | None = 0.5,
    side: Literal["left", "right"] = "left",
    sharp: bool = False,
    soft: bool = True,
    names: list[str] = (),
    head: tuple[int, int] | None = None,
    weights: mx.array | None = None,
    json: str = "mine",
    untyped=3,
) -> TableResult:
    """What a [bold]stranger[/bold] wrote.

    Shapes are [B, S].

    Args:
        text: The prompt.
        layers: Which [red]layers[/red] to read, with ``code``.
        weights: An array.
    """
    given = {k: v for k, v in locals().items() if k != "model"}
    return TableResult({"name": list(given), "value": [repr(v) for v in given.values()]})


DEFAULTS = {
    "text": "'Hi'",
    "layers": "None",
    "depth": "2",
    "share": "0.5",
    "side": "'left'",
    "sharp": "False",
    "soft": "True",
    "names": "()",
    "head": "None",
    "weights": "None",
    "json": "'mine'",
    "untyped": "3",
}


def values(outcome: Any) -> dict[str, str]:
    """What `stranger` was given, as its result tells it."""
    assert outcome.code == 0, outcome.err
    columns = outcome.json()["data"]["columns"]
    return dict(zip(columns["name"], columns["value"], strict=True))


@analysis
def several(model, texts: list[str], *more, layer: int, **rest) -> TableResult:
    """Takes any number of texts."""
    return TableResult({"text": texts, "layer": [layer] * len(texts)})
