"""``mlxray lens``: what each layer would predict if the model stopped there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mlxray.cli.options import POCKET, PROMPT, Json, Layers, ModelName, Save, listed
from mlxray.cli.show import run_analysis, show_result

from .logit_lens import logit_lens


def lens(
    prompt: Annotated[str, typer.Argument(help="The text that the model reads.")] = PROMPT,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, help="Predictions to show at the last position.")
    ] = 1,
    layers: Layers = None,
    position: Annotated[
        int | None,
        typer.Option("--position", help="Only this token; -1 is the last one.", metavar="INT"),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option("--point", help="The point to read; resid_post if left out.", metavar="POINT"),
    ] = None,
    model: ModelName = POCKET,
    json: Json = False,
    save: Save = None,
) -> None:
    """What each layer would predict next, if the model stopped there (the logit lens)."""
    options: dict[str, Any] = {"top_k": top_k}
    if layers:
        options["layers"] = listed(layers, int, "--layers")
    if position is not None:
        options["position"] = position
    if point is not None:
        options["point"] = point
    result = run_analysis(logit_lens, model, prompt, **options)
    show_result(result, json=json, save=save, drawing={})
