"""``mlxray verify MODEL``: check that an adapter tells the truth about a model."""

from __future__ import annotations

import typer

from .options import POCKET, AdapterName, Json, ModelArgument, Save, load
from .show import check_drawable, show_result
from .terminal import working


def verify(
    model: ModelArgument = POCKET,
    adapter: AdapterName = None,
    json: Json = False,
    save: Save = None,
) -> None:
    """Check every hook point of a model against its identity; exit code 1 if one fails."""
    from ..testing import Report, check_adapter

    check_drawable(Report, save)
    loaded = load(model, adapter)
    with working(f"checking {model}"):
        report = check_adapter(loaded)
    show_result(report, json=json, save=save, drawing={})
    if not report.ok:
        raise typer.Exit(1)
