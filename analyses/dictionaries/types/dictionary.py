"""A sparse dictionary: an encoder to features, an activation function, a decoder back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.errors import InputError

from .activations import Activation, SparseActivation
from .normalization import NoNormalization, Normalization
from .shapes import check_floats, check_shape, check_width
from .shared import LinearDecoder


@dataclass(frozen=True, eq=False, kw_only=True)
class Dictionary(LinearDecoder):
    """A sparse autoencoder or transcoder, however it was trained.

    ``features = activation((normalize(x) [− decoder_bias]) @ encoder + encoder_bias)`` and
    ``output = denormalize(features @ decoder + decoder_bias) [+ x @ skip.T]``.

    Attributes:
        encoder: (d_in, F), often called W_enc.
        encoder_bias: (F,), b_enc.
        decoder: (F, d_out), W_dec.
        decoder_bias: (d_out,), b_dec.
        activation: From pre-activations to features; it holds thresholds, k, gates.
        skip: (d_out, d_in), W_skip: a linear map from the input past the features.
        subtract_decoder_bias: Whether the encoder reads x − decoder_bias.
        normalization: What is done to x first, and undone on the output.
        reads: The address in the model that it reads, such as ``"layers.3.resid_post"``.
        writes: The address of what it reconstructs: that of `reads` for autoencoders, and if it
            is left out.
        metadata: Where it comes from, how it was trained.

    Raises:
        InputError: if a tensor has a shape that does not fit; it names the tensor and both shapes.

    Example:
        >>> d = Dictionary(
        ...     encoder=mx.eye(2),
        ...     encoder_bias=mx.zeros(2),
        ...     decoder=mx.eye(2),
        ...     decoder_bias=mx.zeros(2),
        ...     activation=ReLU(),
        ... )
        >>> d(mx.array([1.0, -1.0])).tolist()
        [1.0, 0.0]
    """

    needs_text: ClassVar[bool] = False

    encoder: mx.array
    encoder_bias: mx.array
    decoder: mx.array
    decoder_bias: mx.array
    activation: Activation
    skip: mx.array | None = None
    subtract_decoder_bias: bool = False
    normalization: Normalization = field(default_factory=NoNormalization)
    reads: str | None = None
    writes: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_floats("encoder", self.encoder, 2)
        check_floats("decoder", self.decoder, 2)
        if self.writes is None:
            object.__setattr__(self, "writes", self.reads)
        encoder = f"encoder has shape {tuple(self.encoder.shape)}"
        decoder = f"decoder has shape {tuple(self.decoder.shape)}"
        check_shape("encoder_bias", self.encoder_bias, (self.n_features,), encoder)
        check_shape("decoder", self.decoder, (self.n_features, self.d_out), encoder)
        check_shape("decoder_bias", self.decoder_bias, (self.d_out,), decoder)
        if self.skip is not None:
            check_shape("skip", self.skip, (self.d_out, self.d_in), "it maps d_in to d_out")
        if self.subtract_decoder_bias and self.d_in != self.d_out:
            raise InputError(
                f"subtract_decoder_bias needs inputs as wide as outputs; encoder reads {self.d_in} "
                f"and decoder_bias has {self.d_out}."
            )
        self.activation.check(self.n_features)
        self.normalization.check(self.d_in, self.d_out)

    def __repr__(self) -> str:
        where = f", {self.reads} → {self.writes}" if self.reads else ""
        return f"Dictionary({self.kind}, {self.d_in} → {self.n_features} → {self.d_out}{where})"

    @property
    def kind(self) -> str:
        """The activation function: relu, jumprelu, topk, abstopk, batch_topk or gated."""
        return self.activation.kind

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes elsewhere than it reads."""
        return self.reads != self.writes or self.d_in != self.d_out or self.skip is not None

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        return int(self.encoder.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.encoder.shape[1])

    def pre_activations(self, x: mx.array) -> mx.array:
        """(…, d_in) → (…, F): what the activation function is applied to.

        Raises:
            InputError: if `x` has another width.
        """
        check_width("x", x, self.d_in)
        read = self.normalization.normalize(x.astype(self.encoder.dtype))
        if self.subtract_decoder_bias:
            read = read - self.decoder_bias
        return read @ self.encoder + self.encoder_bias

    def encode(self, x: mx.array) -> mx.array:
        """Features: (…, d_in) → (…, F), in the encoder's dtype.

        Raises:
            InputError: if `x` has another width.
        """
        return self.activation(self.pre_activations(x))

    def encode_sparse(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Features of kinds that keep k of them: values (…, k) and indices (…, k).

        Raises:
            InputError: if the dictionary is of another kind, or `x` has another width.
        """
        if not isinstance(self.activation, SparseActivation):
            raise InputError(
                f"{self.kind} has no fixed number of features per token: use encode(x)."
            )
        return self.activation.sparse(self.pre_activations(x))

    def __call__(self, x: mx.array) -> mx.array:
        """The reconstruction: (…, d_in) → (…, d_out).

        Raises:
            InputError: if `x` has another width.
        """
        return self.decode(self.encode(x), x)

    def _finish(self, decoded: mx.array, x: mx.array | None) -> mx.array:
        """The output, from the sum of the decoder's rows."""
        if x is not None:
            check_width("x", x, self.d_in)
            x = x.astype(self.encoder.dtype)
        output = self.normalization.denormalize(decoded + self.decoder_bias, x)
        if self.skip is None:
            return output
        if x is None:
            raise InputError(
                "a skip transcoder adds a linear map of its input: pass the input as well, "
                "dictionary.decode(features, x)."
            )
        return output + x @ self.skip.T
