"""What all dictionaries of one point share, whatever their features are computed by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import mlx.core as mx

from .normalization import Normalization

if TYPE_CHECKING:
    from .features import DictionaryFeatures


@runtime_checkable
class DictionaryForm(Protocol):
    """Features of one activation, and a linear decoder of them.

    `Dictionary`, `MatchingPursuit` and `TemporalDictionary` are of this form; what reads or writes
    several points is not (`CrossLayerTranscoder`, `Crosscoder`).

    Attributes:
        kind: Its name: the activation function, or the architecture.
        d_in, d_out: Widths of what it reads and writes.
        n_features: Number of features, F.
        decoder: (F, d_out): what each feature writes, before `normalization` is undone.
        normalization: What is done to the input first, and undone on the output.
        reads, writes: Addresses in the model, or None.
        metadata: Where it comes from.
        needs_text: Whether the features of a token depend on the tokens before it. The axis before
            the last is then that of tokens, and begins where the text begins.
    """

    @property
    def kind(self) -> str: ...

    @property
    def d_in(self) -> int: ...

    @property
    def d_out(self) -> int: ...

    @property
    def n_features(self) -> int: ...

    @property
    def decoder(self) -> mx.array: ...

    @property
    def normalization(self) -> Normalization: ...

    @property
    def reads(self) -> str | None: ...

    @property
    def writes(self) -> str | None: ...

    @property
    def metadata(self) -> dict[str, Any]: ...

    @property
    def needs_text(self) -> bool: ...

    def encode(self, x: mx.array) -> mx.array:
        """Features: (…, d_in) → (…, F).

        Raises:
            InputError: if `x` does not fit.
        """

    def decode(self, features: mx.array, x: mx.array | None = None) -> mx.array:
        """The output: (…, F) → (…, d_out).

        Raises:
            InputError: if a width does not fit, or the input `x` is needed and missing.
        """

    def derived_points(self) -> tuple[DictionaryFeatures, ...]:
        """Its features as points of a model, for ``model.attach(dictionary)``.

        Raises:
            InputError: if it does not know where in a model it stands.
        """
