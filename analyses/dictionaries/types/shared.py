"""What dictionaries of one point have in common, whatever their features are computed by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx

from .shapes import check_width
from .sparse import gather_decode

if TYPE_CHECKING:
    from .features import DictionaryFeatures
    from .form import DictionaryForm


class OnePoint:
    """A dictionary of one point, whose features can become points of a model.

    Attributes:
        decoder: (F, d_out).
    """

    decoder: mx.array

    @property
    def d_out(self) -> int:
        """Width of what it writes."""
        return int(self.decoder.shape[1])

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.decoder.shape[0])

    def derived_points(self: DictionaryForm) -> tuple[DictionaryFeatures, ...]:
        """Its features as points of a model, for ``model.attach(dictionary)``.

        Raises:
            InputError: if it does not know where in a model it stands.
        """
        from .features import DictionaryFeatures

        return (DictionaryFeatures(self),)


class LinearDecoder(OnePoint):
    """One whose output is made of the sum of the decoder's rows, each times its feature."""

    def decode(self, features: mx.array, x: mx.array | None = None) -> mx.array:
        """The output: (…, F) → (…, d_out).

        Args:
            features: As `encode` gives them.
            x: (…, d_in), the input; needed by skip transcoders, and where the normalisation
                scales each token by itself.

        Raises:
            InputError: if a width does not fit, or `x` is needed and missing.
        """
        check_width("features", features, self.n_features)
        return self._finish(features @ self.decoder, x)

    def decode_sparse(
        self, values: mx.array, indices: mx.array, x: mx.array | None = None
    ) -> mx.array:
        """The output of what `encode_sparse` gives: (…, k), (…, k) → (…, d_out); see `decode`."""
        return self._finish(gather_decode(values, indices, self.decoder), x)

    def _finish(self, decoded: mx.array, x: mx.array | None) -> mx.array:
        """The output (…, d_out), from the sum of the decoder's rows and the input (…, d_in)."""
        raise NotImplementedError


class Autoencoder(OnePoint):
    """One that always writes where it reads.

    Attributes:
        reads: The address in the model, or None.
    """

    reads: str | None

    def __repr__(self) -> str:
        where = f", {self.reads}" if self.reads else ""
        name = type(self).__name__
        return f"{name}({self.d_in} → {self.n_features} → {self.d_out}{where})"

    @property
    def d_in(self) -> int:
        """Width of what it reads: the same as of what it writes."""
        return self.d_out

    @property
    def writes(self) -> str | None:
        """The address of what it reconstructs: that of `reads`."""
        return self.reads
