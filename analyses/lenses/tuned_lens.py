"""The tuned lens: a logit lens through a trained translator for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError
from mlxray.run.tail import Norm

from .lens_result import LensResult
from .logit_lens import show
from .training import train_tuned_lens
from .translated import read_translated
from .tuned_lens_files import is_folder, read_folder
from .tuned_lens_result import TunedLens

__all__ = ["TunedLens", "load_tuned_lens", "train_tuned_lens", "tuned_lens"]


@analysis(result=LensResult)
def tuned_lens(
    model: InterpretableModel,
    text: Any,
    tuned_lens: TunedLens,
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
    """What each layer would predict, read through trained translators (Belrose et al. 2023).

    Args:
        model: The model.
        text: One prompt: text or token ids.
        tuned_lens: From `train_tuned_lens` or `load_tuned_lens`.
        top_k, layers, position, final_norm, skip_norm: As in `logit_lens`.
        plot, max_display_tokens, figsize, cmap, font_family: As in `logit_lens`.

    Returns:
        A mapping: ``result[layer][i]`` lists (token id, logit, text), best first.

    Raises:
        InputError: if the lens belongs to a model of another shape; or as `logit_lens` does.
    """
    if not isinstance(tuned_lens, TunedLens):
        kind = type(tuned_lens).__name__
        raise InputError(f"tuned_lens is a TunedLens, got {kind}; see model.load_tuned_lens(path).")
    _fits(model, tuned_lens)
    result = read_translated(
        model,
        text,
        tuned_lens,
        layers,
        summary={"tuned_lens": tuned_lens.summary()},
        top_k=top_k,
        position=position,
        final_norm=final_norm,
        skip_norm=skip_norm,
    )
    if plot:
        show(result, max_display_tokens, figsize, cmap, font_family)
    return result


@analysis(result=TunedLens)
def load_tuned_lens(model: InterpretableModel, path: str | Path) -> TunedLens:
    """Load a tuned lens for this model from the files that ``TunedLens.save`` wrote.

    A folder of the package `tuned-lens` is read too (``config.json`` and ``params.pt``, of which
    nothing is executed).

    Args:
        model: The model that it is for.
        path: With or without ``.npz`` or ``.json``; or the folder.

    Raises:
        LoadError: if the files cannot be read.
        InputError: if the lens belongs to a model of another shape.
    """
    lens = read_folder(path) if is_folder(path) else TunedLens.load(path)
    _fits(model, lens)
    return lens


def _fits(model: InterpretableModel, lens: TunedLens) -> None:
    layers, width = model.layout.n_layers, model.watch([0], "resid_post", [0])[0].shape[-1]
    if (lens.num_layers, lens.hidden_dim) != (layers, width):
        raise InputError(
            f"this tuned lens has {lens.num_layers} layers of width {lens.hidden_dim}; "
            f"the model has {layers} of {width}."
        )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The tuned lens, its training and its loading."""
    return [tuned_lens, train_tuned_lens, load_tuned_lens]
