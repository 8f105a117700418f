"""The logit lens: what each layer would predict if the model stopped there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlxray import Analysis, Command, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError, nearest
from mlxray.points.vocabulary import ALIASES, POINTS
from mlxray.run.tail import Norm

from ..prompts import one_prompt
from .lens_result import LensResult
from .readout import read_out

#: Points as wide as the residual stream.
READABLE = [p.name for p in POINTS.values() if p.per_layer and p.axes == "B S D"]


@analysis(result=LensResult)
def logit_lens(
    model: InterpretableModel,
    text: Any,
    top_k: int = 1,
    layers: Sequence[int] | None = None,
    position: int | None = None,
    plot: bool = False,
    max_display_tokens: int = 15,
    figsize: tuple[float, float] = (16, 10),
    cmap: str = "viridis",
    font_family: str | None = None,
    final_norm: Norm | None = None,
    skip_norm: bool = False,
    point: str = "resid_post",
) -> LensResult:
    """What each layer would predict if the model stopped there (nostalgebraist 2020).

    Each layer's residual stream goes through the model's own tail: its final norm, head, cap and
    scale. So the last layer's predictions are the model's own.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        top_k: Predictions to keep for each position.
        layers: Layers to read, None for all; negative ones count from the end.
        position: One position, negative from the end; None for all.
        plot: Show the heat map.
        max_display_tokens: Columns of the heat map, counted from the end of the prompt.
        figsize: Width and height of the heat map in inches.
        cmap: Its colours.
        font_family: Its font, for scripts that the usual one lacks.
        final_norm: Called in place of the model's final norm.
        skip_norm: Leave the final norm out.
        point: What to read: ``"resid_post"``, or what one sub-layer alone adds (``"attn_out"``,
            ``"mlp_out"``, …).

    Returns:
        A mapping: ``result[layer][i]`` lists (token id, logit, text), best first.

    Raises:
        InputError: for several prompts, an unknown position or point, or a `top_k` out of range.
        PointAbsent: if the model does not have the point.
        AnalysisError: if the tail gives NaN.
    """
    name = ALIASES.get(point, point)
    if name not in READABLE:
        raise InputError(
            f"a lens reads what is as wide as the residual stream, and {point!r} is not. "
            f"{nearest(point, READABLE)}"
        )
    batch, tokens = one_prompt(model, text)
    result = read_out(
        model,
        model.watch(batch, name, layers),
        tokens,
        point=name,
        top_k=top_k,
        position=position,
        final_norm=final_norm,
        skip_norm=skip_norm,
    )
    if plot:
        show(result, max_display_tokens, figsize, cmap, font_family)
    return result


def show(
    result: LensResult,
    max_display_tokens: int,
    figsize: tuple[float, float],
    cmap: str,
    font_family: str | None,
) -> None:
    """Show a lens' heat map."""
    result.plot(
        backend="matplotlib",
        max_display_tokens=max_display_tokens,
        figsize=figsize,
        cmap=cmap,
        font_family=font_family,
    ).show()


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The logit lens."""
    return [logit_lens]


def _load_command() -> Callable[..., Any]:
    from .command import lens

    return lens


@hookimpl
def mlxray_commands() -> list[Command]:
    """``mlxray lens``."""
    return [Command("lens", _load_command)]
