"""Features of dictionaries as points of a model: what they read, and what a change of them writes.

A change of features is decoded by itself and added to the activation. So the error term, what the
dictionary does not explain, is kept, and features that nobody changes have no effect at all: the
difference that is decoded is zero. Where few features change, their rows of the decoder alone are
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import mlx.core as mx

from mlxray.errors import InputError
from mlxray.points.derived import Change

from .cross_layer import CrossLayerTranscoder
from .crosscoder import Crosscoder
from .form import DictionaryForm
from .shapes import check_width


class _Counted(Protocol):
    @property
    def n_features(self) -> int: ...


#: The form of the dictionary.
Of = TypeVar("Of", bound=_Counted)


@dataclass(frozen=True, eq=False)
class Features(Generic[Of]):
    """The features of a dictionary of some form.

    Attributes:
        dictionary: The dictionary.
    """

    dictionary: Of

    unit: ClassVar[str] = "feature"
    fixed: ClassVar[str | None] = None

    @property
    def count(self) -> int:
        """Number of features, F; of a cross-layer transcoder, those of one layer."""
        return self.dictionary.n_features


@dataclass(frozen=True, eq=False)
class DictionaryFeatures(Features[DictionaryForm]):
    """The features of a dictionary of one point: an autoencoder or a transcoder."""

    def __post_init__(self) -> None:
        _known(self.dictionary.reads, self.dictionary.writes)

    @property
    def needs_text(self) -> str | None:
        """Why a pass has to begin where the text begins; None if it need not."""
        if not self.dictionary.needs_text:
            return None
        return f"features of a {self.dictionary.kind} dictionary depend on the tokens before"

    @property
    def reads(self) -> tuple[str, ...]:
        """The address that it reads."""
        return (str(self.dictionary.reads),)

    @property
    def writes(self) -> tuple[str, ...]:
        """The address of what it reconstructs."""
        return (str(self.dictionary.writes),)

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        """Features (B, S, F)."""
        return self.dictionary.encode(as_rows(inputs[0]))

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        """The activation, and what the changed features write besides."""
        dictionary = self.dictionary
        decoded = decoded_change(change, dictionary.decoder)
        x = as_rows(change.inputs[0]).astype(dictionary.decoder.dtype)
        return added(activation, dictionary.normalization.denormalize_change(decoded, x))

    def rows(self, unit: int) -> tuple[mx.array, ...]:
        """What a feature of strength 1 writes, (d_out,), at each address.

        Where the normalisation scales each token by itself, its direction: the row of the decoder.
        """
        row = self.dictionary.decoder[unit]
        normalization = self.dictionary.normalization
        return (row if normalization.per_token else normalization.denormalize_change(row),)


@dataclass(frozen=True, eq=False)
class LayerFeatures(Features[CrossLayerTranscoder]):
    """The features of one layer of a cross-layer transcoder, which write into all later ones.

    Attributes:
        dictionary: The transcoder.
        layer: Whose features, counted among its layers.
    """

    layer: int

    def __post_init__(self) -> None:
        _known(self.dictionary.reads, self.dictionary.writes)

    @property
    def reads(self) -> tuple[str, ...]:
        """The address that the layer reads."""
        return () if self.dictionary.reads is None else (self.dictionary.reads[self.layer],)

    @property
    def writes(self) -> tuple[str, ...]:
        """The addresses of this layer's output and of all later ones."""
        return () if self.dictionary.writes is None else self.dictionary.writes[self.layer :]

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        """Features (B, S, F)."""
        return self.dictionary.layers[self.layer].encode(as_rows(inputs[0]))

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        """The activation, and what the changed features write besides."""
        decoder = self.dictionary.layers[self.layer].decoder[:, number]
        return added(activation, decoded_change(change, decoder))

    def rows(self, unit: int) -> tuple[mx.array, ...]:
        """What a feature of strength 1 writes, (d,), at each address."""
        return tuple(self.dictionary.layers[self.layer].decoder[unit])


@dataclass(frozen=True, eq=False)
class CrosscoderFeatures(Features[Crosscoder]):
    """The features of a crosscoder, to be watched."""

    fixed: ClassVar[str | None] = (
        "a crosscoder's features are known when the last of its points is computed, and they write "
        "into earlier ones, which the model has used by then. To steer with one, "
        "feature_vector(…) adds what it writes"
    )

    def __post_init__(self) -> None:
        _known(self.dictionary.points, self.dictionary.points)

    @property
    def reads(self) -> tuple[str, ...]:
        """The addresses that it reads."""
        return self.dictionary.points or ()

    @property
    def writes(self) -> tuple[str, ...]:
        """The same."""
        return self.reads

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        """Features (B, S, F)."""
        return self.dictionary.encode([as_rows(x) for x in inputs])

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        """Nothing writes them."""
        raise InputError(f"{self.dictionary!r} cannot be edited: {self.fixed}.")

    def rows(self, unit: int) -> tuple[mx.array, ...]:
        """What a feature of strength 1 writes, (d,), at each address."""
        return tuple(self.dictionary.decoder[unit])


def as_rows(x: mx.array) -> mx.array:
    """One row for each token: (B, S, D) as it is, (B, H, S, d) with its heads side by side.

    Raises:
        InputError: if an activation has other axes.
    """
    if x.ndim == 4:
        return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
    if x.ndim != 3:
        raise InputError(f"a dictionary reads (B, S, D) or (B, H, S, d); got shape {x.shape}.")
    return x


def decoded_change(change: Change, decoder: mx.array) -> mx.array:
    """What changed features write, (B, S, d_out), of a decoder (F, d_out).

    Zeros, to the bit, where none has changed.
    """
    rows = decoder if change.units is None else decoder[mx.array(change.units)]
    return (change.new - change.old).astype(decoder.dtype) @ rows


def added(activation: mx.array, change: mx.array) -> mx.array:
    """An activation plus a change (B, S, D), rounded once, in the activation's dtype.

    Raises:
        InputError: if the widths differ.
    """
    rows = as_rows(activation)
    check_width("what is written", rows, change.shape[-1])
    wide = mx.result_type(rows, change)
    new = (rows.astype(wide) + change.astype(wide)).astype(activation.dtype)
    if activation.ndim == 3:
        return new
    batch, heads, tokens, width = activation.shape
    return new.reshape(batch, tokens, heads, width).swapaxes(1, 2)


def _known(*addresses: object) -> None:
    if None in addresses:
        raise InputError(
            "the dictionary does not say where in the model it stands: set its address, such as "
            'dataclasses.replace(dictionary, reads="layers.3.resid_post").'
        )
