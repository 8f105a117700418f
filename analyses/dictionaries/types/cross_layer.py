"""Cross-layer transcoders: features of a layer write into that layer and all later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxray.errors import InputError

from .activations import JumpReLU, ReLU
from .shapes import check_floats, check_shape, check_width

if TYPE_CHECKING:
    from .features import LayerFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class TranscoderLayer:
    """The features of one layer, with circuit-tracer's layout of tensors.

    Attributes:
        encoder: (F, d), W_enc_l. Note the order of axes: `Dictionary` has its transpose.
        encoder_bias: (F,), b_enc_l.
        decoder: (F, L − l, d), W_dec_l: row i, j is what feature i writes into layer l + j.
        decoder_bias: (d,), b_dec_l, of the layer's output.
        threshold: (F,) of a JumpReLU, kept as float32; None for a ReLU.
    """

    encoder: mx.array
    encoder_bias: mx.array
    decoder: mx.array
    decoder_bias: mx.array
    threshold: mx.array | None = None

    def __post_init__(self) -> None:
        if isinstance(self.threshold, mx.array):
            object.__setattr__(self, "threshold", self.threshold.astype(mx.float32))

    def encode(self, x: mx.array) -> mx.array:
        """Features: (…, d) → (…, F).

        Raises:
            InputError: if `x` has another width.
        """
        check_width("x", x, self.encoder.shape[1])
        pre = x.astype(self.encoder.dtype) @ self.encoder.T + self.encoder_bias
        activation = ReLU() if self.threshold is None else JumpReLU(self.threshold)
        return activation(pre)


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossLayerTranscoder:
    """A transcoder of all MLPs together (Ameisen et al. 2025).

    The output of layer m is the sum, over the layers l ≤ m, of that layer's features times the
    decoder from l to m, plus the bias of m.

    Attributes:
        layers: One `TranscoderLayer` for each layer, first layer first.
        reads: L addresses, or none: where each layer's features read.
        writes: L addresses, or none: what is reconstructed.
        metadata: Where it comes from, how it was trained.

    Raises:
        InputError: if a tensor has a shape that does not fit; it names the tensor and both shapes.
    """

    layers: tuple[TranscoderLayer, ...]
    reads: tuple[str, ...] | None = None
    writes: tuple[str, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InputError("a cross-layer transcoder has at least one layer.")
        check_floats("layer 0: encoder", self.layers[0].encoder, 2)
        features, width = self.layers[0].encoder.shape
        first = f"layer 0's encoder has shape {(features, width)}"
        for number, layer in enumerate(self.layers):
            reach = self.n_layers - number
            written = f"layer {number} of {self.n_layers} writes into {reach}"
            at = f"layer {number}: "
            check_shape(at + "encoder", layer.encoder, (features, width), first)
            check_shape(at + "encoder_bias", layer.encoder_bias, (features,), first)
            check_shape(at + "decoder", layer.decoder, (features, reach, width), written)
            check_shape(at + "decoder_bias", layer.decoder_bias, (width,), first)
            if layer.threshold is not None:
                check_shape(at + "threshold", layer.threshold, (features,), first)
        for name in ("reads", "writes"):
            given = getattr(self, name)
            if given is None:
                continue
            object.__setattr__(self, name, tuple(given))
            if len(given) != self.n_layers:
                raise InputError(f"{name} has {len(given)} addresses for {self.n_layers} layers.")

    def __repr__(self) -> str:
        return f"CrossLayerTranscoder({self.n_layers} layers, {self.d} → {self.n_features})"

    @property
    def kind(self) -> str:
        """The activation function: relu or jumprelu."""
        return "relu" if self.layers[0].threshold is None else "jumprelu"

    @property
    def n_layers(self) -> int:
        """Number of layers, L."""
        return len(self.layers)

    @property
    def d(self) -> int:
        """Width of what each layer reads and writes."""
        return int(self.layers[0].encoder.shape[1])

    @property
    def n_features(self) -> int:
        """Features of each layer, F."""
        return int(self.layers[0].encoder.shape[0])

    def encode(self, inputs: Sequence[mx.array]) -> list[mx.array]:
        """Features of each layer: L inputs (…, d) → L times (…, F).

        Raises:
            InputError: if there are more or fewer inputs than layers, or one has another width.
        """
        self._check_count("inputs", inputs)
        return [layer.encode(x) for layer, x in zip(self.layers, inputs, strict=True)]

    def decode(self, features: Sequence[mx.array]) -> list[mx.array]:
        """Output of each layer: L times (…, F) → L times (…, d).

        Raises:
            InputError: if there are more or fewer than layers, or one has another width.
        """
        self._check_count("features", features)
        for number, own in enumerate(features):
            check_width(f"features of layer {number}", own, self.n_features)
        return [
            sum(
                (features[at] @ self.layers[at].decoder[:, to - at] for at in range(to + 1)),
                start=layer.decoder_bias,
            )
            for to, layer in enumerate(self.layers)
        ]

    def __call__(self, inputs: Sequence[mx.array]) -> list[mx.array]:
        """Reconstruct each layer's output: L inputs (…, d) → L times (…, d)."""
        return self.decode(self.encode(inputs))

    def _check_count(self, what: str, given: Sequence[mx.array]) -> None:
        if len(given) != self.n_layers:
            raise InputError(
                f"{what}: got {len(given)}, but the transcoder has {self.n_layers} layers."
            )

    def derived_points(self) -> tuple[LayerFeatures, ...]:
        """Its features as points of a model, for ``model.attach(dictionary)``.

        Raises:
            InputError: if it does not know where in a model it stands.
        """
        from .features import LayerFeatures

        return tuple(LayerFeatures(self, layer) for layer in range(self.n_layers))
