"""A fitted Jacobian lens: for each layer, the mean Jacobian from its stream to the last one's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, nested
from mlxray.display import counted
from mlxray.errors import AddressError, InputError
from mlxray.results.base import AnalysisResult

#: What a lens is stored in → the largest number of it.
DTYPES = {"float16": 65504.0, "bfloat16": 3.3e38, "float32": 3.4e38}


@dataclass(eq=False)
class JacobianLens(AnalysisResult):
    """Carries the residual stream of a layer into the last layer's basis (Gurnee et al. 2026).

    ``lens(residual, layer)`` carries; the model's own tail then reads it. The last layer needs no
    Jacobian: it is the identity there.

    Attributes:
        jacobians: Layer → J (D, D), float32: row i is the gradient of dimension i of the last
            layer's stream, summed over the positions that it is read at and averaged over those
            that it is taken at.
        n_prompts: Prompts that J is the mean over.
        d_model: Width D of the residual stream.
        changes: By how much each prompt after the first changed the mean: the norm of the change
            over that of the mean, the largest of all layers. Empty for a lens from a file.

    Raises:
        InputError: if the shapes are not those of a lens.
    """

    result_type: ClassVar[str] = "jacobian_lens"

    jacobians: dict[int, mx.array]
    n_prompts: int
    d_model: int
    changes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.jacobians or self.n_prompts < 1:
            raise InputError("a Jacobian lens has at least one layer and one prompt.")
        square = (self.d_model, self.d_model)
        for layer, jacobian in self.jacobians.items():
            if tuple(jacobian.shape) != square:
                raise InputError(
                    f"the Jacobian of layer {layer} has shape {tuple(jacobian.shape)}; "
                    f"expected {square}."
                )
        self.jacobians = {n: self.jacobians[n].astype(mx.float32) for n in sorted(self.jacobians)}

    @property
    def source_layers(self) -> list[int]:
        """The layers that have a Jacobian, ascending."""
        return list(self.jacobians)

    def __call__(self, residual: mx.array, layer: int) -> mx.array:
        """Carry a layer's residual stream on, (…, D) → (…, D) of the same dtype.

        Raises:
            AddressError: if the lens has no Jacobian of that layer.
            InputError: if the residual stream has another width.
        """
        jacobian = self.jacobian(layer)
        if residual.shape[-1] != self.d_model:
            raise InputError(
                f"the Jacobian lens is {self.d_model} wide, the residual stream "
                f"{residual.shape[-1]}."
            )
        return (residual.astype(mx.float32) @ jacobian.T).astype(residual.dtype)

    def jacobian(self, layer: int) -> mx.array:
        """J of a layer, (D, D) float32.

        Raises:
            AddressError: if the lens has none.
        """
        if layer not in self.jacobians:
            raise AddressError(
                f"the Jacobian lens was fitted at layers {self.source_layers}, not at {layer}."
            )
        return self.jacobians[layer]

    def check(self, model: InterpretableModel) -> None:
        """See that the lens fits a model.

        Raises:
            InputError: if the model has another width, or fewer layers.
            PointAbsent: if the model has no single residual stream.
        """
        width = model.watch([0], "resid_post", [0])[0].shape[-1]
        if width != self.d_model:
            raise InputError(
                f"this Jacobian lens is {self.d_model} wide; the model's residual stream has "
                f"{width} dimensions. The lens belongs to another model."
            )
        if self.source_layers[-1] >= model.layout.n_layers:
            raise InputError(
                f"this Jacobian lens was fitted at layer {self.source_layers[-1]}; the model has "
                f"{model.layout.n_layers} layers. The lens belongs to another model."
            )

    def save(self, path: str | Path, *, dtype: str = "float16", **options: Any) -> Path:
        """Write the lens as a torch file that other libraries read, to a path that ends in ``.pt``.

        Args:
            path: ``.pt``; every other ending is that of a picture or a report, as of any result.
            dtype: Of the stored numbers: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
            options: Options of a picture.

        Raises:
            InputError: for a dtype that does not exist, or whose range a Jacobian exceeds.
            SaveError: if the file cannot be written; what was there before is intact.
        """
        if Path(path).suffix.lower() != ".pt":
            return super().save(path, **options)
        from .files import write_lens

        return write_lens(self, Path(path).expanduser(), dtype)

    @classmethod
    def load(cls, path: str | Path) -> JacobianLens:
        """Read a torch file of a lens, this library's or another's; nothing in it is executed.

        Raises:
            LoadError: if it is no whole file of a Jacobian lens.
        """
        from .files import read_lens

        return read_lens(Path(path).expanduser())

    @cached_property
    def _shape(self) -> dict[int, tuple[float, float]]:
        """Layer → ‖J‖ / √D, and the cosine between J and the identity."""
        root = math.sqrt(self.d_model)
        found = {}
        for layer, jacobian in self.jacobians.items():
            size = nested(mx.sqrt((jacobian**2).sum()))
            trace = nested(mx.diag(jacobian).sum())
            found[layer] = (size / root, trace / (root * size) if size else 0.0)
        return found

    @property
    def data(self) -> dict[str, Any]:
        """What a report holds: all but the matrices."""
        return {
            "source_layers": self.source_layers,
            "n_prompts": self.n_prompts,
            "d_model": self.d_model,
            "norms": {layer: norm for layer, (norm, _) in self._shape.items()},
            "cosines": {layer: cosine for layer, (_, cosine) in self._shape.items()},
            "changes": self.changes,
        }

    def summary(self) -> str:
        layers = self.source_layers
        text = (
            f"Jacobian lens of {counted(len(layers), 'layer')} ({layers[0]} to {layers[-1]}), "
            f"width {self.d_model}, mean over {counted(self.n_prompts, 'prompt')}"
        )
        if self.changes:
            text += f"; the last one changed it by {self.changes[-1]:.2%}"
        return self.warned(text)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [[layer, norm, cosine] for layer, (norm, cosine) in self._shape.items()]
        return ["layer", "norm / √D", "cosine with identity"], table

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def merged(lenses: Sequence[JacobianLens]) -> JacobianLens:
    """One lens of several that were fitted on different prompts: the mean over all of them.

    Raises:
        InputError: if there are none, or they differ in width or layers.
    """
    if not lenses:
        raise InputError("merged() takes at least one Jacobian lens.")
    first, prompts = lenses[0], sum(lens.n_prompts for lens in lenses)
    for lens in lenses[1:]:
        if (lens.d_model, lens.source_layers) != (first.d_model, first.source_layers):
            raise InputError(
                f"the lenses differ: width {first.d_model} and layers {first.source_layers}, "
                f"width {lens.d_model} and layers {lens.source_layers}."
            )
    mean = {
        layer: sum(
            (lens.jacobians[layer] * (lens.n_prompts / prompts) for lens in lenses),
            start=mx.zeros((first.d_model, first.d_model)),
        )
        for layer in first.source_layers
    }
    evaluate(mean)
    return JacobianLens(mean, prompts, first.d_model)
