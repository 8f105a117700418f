"""``mlxray attention``: where each head looks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .lens import PROMPT
from .options import POCKET, Json, Layers, ModelName, Save, listed
from .show import run_analysis, show_result


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
    from ..registries import registry
    from .attention_maps import HeadMaps, draw_heads

    options: dict[str, Any] = {}
    if layers:
        options["layers"] = listed(layers, int, "--layers")
    chosen = listed(heads, int, "--heads")
    analysis = registry.get("analysis", "attention_patterns")
    result = run_analysis(analysis, model, prompt, **options)
    paint = draw_heads if chosen is None else HeadMaps(chosen)
    picture = None if chosen is None else {"heads": chosen}
    show_result(result, json=json, save=save, paint=paint, picture=picture)
