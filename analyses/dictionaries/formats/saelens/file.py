"""What the architectures of SAELens have in common: files, dtype, normalisation, addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray.arrays import truth
from mlxray.errors import LoadError

from ...types.normalization import LayerNorm, NoNormalization, Normalization, TokenNorm
from ..addresses import from_hook, from_module
from ..reading import DTYPES, Tensors
from ..tokens import check_tokens
from .settings import ADDRESSES, CONFIG, WEIGHTS, read_settings

#: Scales found from the data are folded into the weights when training ends.
NORMALIZATIONS: dict[str, Callable[[], Normalization]] = {
    "none": NoNormalization,
    "expected_average_only_in": NoNormalization,
    "covariance_whitening": NoNormalization,
    "constant_norm_rescale": TokenNorm,
    "layer_norm": LayerNorm,
}


class File:
    """The two files of one dictionary.

    Args:
        folder: Where they are.

    Attributes:
        settings: Of ``cfg.json``, as SAELens 6 has them.
        tensors: Of ``sae_weights.safetensors``.
        architecture: As the settings say.
        d_in, n_features: Widths that the settings say.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = read_settings(folder / CONFIG)
        self.tensors = Tensors.from_safetensors(folder / WEIGHTS)
        metadata = self.settings.inner("metadata").values
        check_tokens({folder / CONFIG: metadata, folder / WEIGHTS: None})
        self.architecture = self.settings.text("architecture")
        self.d_in, self.n_features = self.settings.whole("d_in"), self.settings.whole("d_sae")
        self._dtype = self._find_dtype()

    def take(self, name: str, *shape: int, besides: str = "") -> mx.array:
        """A tensor in the dtype of the settings.

        Args:
            name: As the file calls it.
            shape: What its shape has to be.
            besides: What the settings say, other than d_in and d_sae, that shapes follow from.

        Raises:
            LoadError: if it is missing, has another shape, or holds NaN or infinity.
        """
        reason = f"{CONFIG} says d_in = {self.d_in}, d_sae = {self.n_features}{besides}"
        return self.tensors.take(name, shape, reason).astype(self._dtype)

    def normalization(
        self, known: Mapping[str, Callable[[], Normalization]] = NORMALIZATIONS
    ) -> Normalization:
        """What is done to the input.

        Raises:
            LoadError: if it is not among those known.
        """
        name = self.settings.text("normalize_activations", "none")
        if name not in known:
            raise self.settings.wrong("normalize_activations", f"one of {', '.join(known)}")
        return known[name]()

    def address(self, side: str = "") -> str | None:
        """The point that is read, or that of ``"_out"``; None if the file names none.

        The transformers library's name of it, where it is given: it is the clearer one.
        """
        metadata = self.settings.inner("metadata").values
        own = _text(metadata.get(ADDRESSES[1 if side else 0]))
        names = (f"hf_hook_name{side}", f"hook_name{side}")
        module, hook = (_text(metadata.get(name)) for name in names)
        return own or from_module(module) or from_hook(hook)

    def metadata(self) -> dict[str, Any]:
        """What the settings tell of the model and the training."""
        inner = self.settings.inner("metadata").values
        given = {k: v for k, v in inner.items() if k not in ADDRESSES}
        added = {"format": "saelens", "architecture": self.architecture}
        for name in ("normalize_activations", "reshape_activations"):
            if self.settings.values.get(name) not in (None, "none"):
                added[name] = self.settings.values[name]
        return {**given, **added}

    def check_rest(self) -> None:
        """See that no tensor is left.

        Before version 6, some files have a scale for each feature, of ones unless it was tuned.

        Raises:
            LoadError: if one is left, or that scale is not 1.
        """
        tensors, name = self.tensors, "scaling_factor"
        if name in tensors:
            factor = tensors.take(name, tensors.shape(name, 1))
            if not truth(mx.allclose(factor, mx.ones_like(factor))):
                raise LoadError(f"{str(tensors.path)!r}: {name} is not 1; that is not read.")
        tensors.check_all_taken(
            reason=f", which the architecture {self.architecture!r} has no use for: {CONFIG} is "
            "not of it"
        )

    def _find_dtype(self) -> mx.Dtype:
        name = self.settings.text("dtype", "float32").removeprefix("torch.")
        if name not in DTYPES:
            raise self.settings.wrong("dtype", f"one of {', '.join(DTYPES)}")
        return DTYPES[name]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
