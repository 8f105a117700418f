"""Reading through a Jacobian lens: a layer's stream, carried on, then the model's own tail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError
from mlxray.run.tail import Norm

from ..lens_result import LensResult
from ..logit_lens import show
from ..translated import read_translated
from .files import find_file
from .jacobian_lens_result import JacobianLens


@analysis(result=LensResult)
def jacobian_lens(
    model: InterpretableModel,
    text: Any,
    lens: JacobianLens | str | Path,
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
) -> LensResult:
    """What each layer disposes the model to say, by its mean Jacobian (Gurnee et al. 2026).

    The residual stream of a layer is multiplied by that layer's Jacobian, which brings it into the
    last layer's basis, and goes through the model's own tail. The last layer is read as it is.

    Args:
        model: The model.
        text: One prompt: text or token ids.
        lens: From `fit_jacobian_lens` or `load_jacobian_lens`, or its file.
        top_k, position, final_norm, skip_norm: As in `logit_lens`.
        layers: Layers to read; None for those that the lens was fitted at, and the last one.
        plot, max_display_tokens, figsize, cmap, font_family: As in `logit_lens`.

    Returns:
        A mapping: ``result[layer][i]`` lists (token id, logit, text), best first.

    Raises:
        InputError: if the lens belongs to a model of another shape; or as `logit_lens` does.
        AddressError: if the lens was not fitted at one of the layers.
        PointAbsent: if the model has no single residual stream.
        LoadError: if the lens' file cannot be read.
    """
    lens = opened(model, lens)
    last = model.layout.n_layers - 1
    everything = sorted({*lens.source_layers, last})
    chosen = model.layer_indices(everything if layers is None else layers)
    for layer in chosen:
        if layer != last:
            lens.jacobian(layer)
    result = read_translated(
        model,
        text,
        lambda residual, layer: carried(lens, residual, layer, last),
        chosen,
        summary={"lens": lens.summary()},
        top_k=top_k,
        position=position,
        final_norm=final_norm,
        skip_norm=skip_norm,
    )
    if plot:
        show(result, max_display_tokens, figsize, cmap, font_family)
    return result


def carried(lens: JacobianLens, residual: mx.array, layer: int, last: int) -> mx.array:
    """A layer's stream in the last layer's basis; the last layer's is there already."""
    return residual if layer == last else lens(residual, layer)


def opened(model: InterpretableModel, lens: JacobianLens | str | Path) -> JacobianLens:
    """A lens, read if it is a file, that fits the model.

    Raises:
        InputError: if it is something else, or does not fit.
        LoadError: if the file cannot be read.
    """
    if isinstance(lens, (str, Path)):
        lens = JacobianLens.load(find_file(lens, None))
    if not isinstance(lens, JacobianLens):
        kind = type(lens).__name__
        raise InputError(f"lens is a JacobianLens or its file; got {kind}.")
    lens.check(model)
    return lens


@analysis(result=JacobianLens)
def load_jacobian_lens(
    model: InterpretableModel, path: str | Path, file: str | None = None
) -> JacobianLens:
    """Load a Jacobian lens for this model: a torch file, of which nothing is executed.

    Args:
        model: The model that it is for.
        path: The file, a folder with it, or a hub id such as ``"neuronpedia/jacobian-lens"``.
        file: Its path in the folder or the repository.

    Raises:
        LoadError: if it cannot be fetched or read, or is no lens.
        InputError: if the lens belongs to a model of another shape.
        PointAbsent: if the model has no single residual stream.
    """
    lens = JacobianLens.load(find_file(path, file))
    lens.check(model)
    return lens


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Reading through a Jacobian lens, and loading one."""
    return [jacobian_lens, load_jacobian_lens]
