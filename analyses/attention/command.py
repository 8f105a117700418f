"""``mlxray attention``: where each head looks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mlxray.cli.options import POCKET, PROMPT, Json, Layers, ModelName, Save, listed
from mlxray.cli.show import run_analysis, show_result

from .patterns import attention_patterns


def attention(
    prompt: Annotated[str, typer.Argument(help="The text that the model reads.")] = PROMPT,
    layers: Layers = None,
    heads: Annotated[
        list[str] | None,
        typer.Option("--heads", metavar="INT,…", help="Draw the patterns of these heads."),
    ] = None,
    model: ModelName = POCKET,
    json: Json = False,
    save: Save = None,
) -> None:
    """Where each head looks: from the last token by default, a map for each of chosen --heads."""
    options: dict[str, Any] = {}
    if layers:
        options["layers"] = listed(layers, int, "--layers")
    chosen = listed(heads, int, "--heads")
    result = run_analysis(attention_patterns, model, prompt, **options)
    picture = None if chosen is None else {"heads": chosen}
    show_result(result, json=json, save=save, drawing=picture or {}, picture=picture)
