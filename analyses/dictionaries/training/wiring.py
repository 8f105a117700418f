"""How features are connected: to one input and output, or from each layer to all later ones."""

from __future__ import annotations

from typing import Protocol, cast

import mlx.core as mx

from .gradients import project, sparse_decode

Params = dict[str, mx.array]
#: Features of all kinds: dense (N, F), or values (N, k) and indices (N, k).
Code = mx.array | tuple[mx.array, mx.array]


class Wiring(Protocol):
    """The linear maps of a dictionary in training; inputs and outputs of all points are joined."""

    #: Features in all.
    n_features: int

    @property
    def decoders(self) -> tuple[str, ...]:
        """Parameters with a row for each feature, whose rows have norm 1."""

    def initial(self, key: mx.array, scale: float, mean: mx.array) -> Params:
        """First parameters.

        Args:
            key: Of the random numbers.
            scale: Norm of each feature's encoder.
            mean: (d_out,), of the outputs.
        """

    def project(self, params: Params, x: mx.array) -> mx.array:
        """Pre-activations without bias: (N, d_in) → (N, F)."""

    def decode(self, params: Params, code: Code) -> mx.array:
        """What features write, without bias: → (N, d_out)."""

    def rest(self, params: Params, x: mx.array) -> mx.array:
        """What does not depend on features: bias and skip, (d_out,) or (N, d_out)."""


class Flat:
    """Every feature reads all of the input and writes all of the output.

    Args:
        d_in: Width of the joined inputs.
        d_out: Width of the joined outputs.
        n_features: Features.
        tied: Whether the encoder starts as the decoder's transpose.
        centred: Whether the decoder's bias is taken off the input.
        skip: Whether a linear map goes past the features.
    """

    decoders: tuple[str, ...] = ("decoder",)

    def __init__(
        self, d_in: int, d_out: int, n_features: int, *, tied: bool, centred: bool, skip: bool
    ) -> None:
        self.d_in, self.d_out, self.n_features = d_in, d_out, n_features
        self.tied, self.centred, self.skip = tied, centred, skip

    def initial(self, key: mx.array, scale: float, mean: mx.array) -> Params:
        first, second = mx.random.split(key)
        decoder = unit_rows(mx.random.normal((self.n_features, self.d_out), key=first))
        reading = decoder
        if not self.tied:
            reading = unit_rows(mx.random.normal((self.n_features, self.d_in), key=second))
        params = {"encoder": scale * reading.T, "decoder": decoder, "decoder_bias": mean}
        if self.skip:
            params["skip"] = mx.zeros((self.d_out, self.d_in))
        return params

    def project(self, params: Params, x: mx.array) -> mx.array:
        encoder = params["encoder"].astype(x.dtype)
        if not self.centred:
            return x @ encoder
        return cast(mx.array, project(x, params["decoder_bias"].astype(x.dtype), encoder))

    def decode(self, params: Params, code: Code) -> mx.array:
        if isinstance(code, mx.array):
            return code @ params["decoder"].astype(code.dtype)
        values, indices = code
        decoder = params["decoder"].astype(values.dtype)
        return cast(mx.array, sparse_decode(values, indices, decoder))

    def rest(self, params: Params, x: mx.array) -> mx.array:
        if not self.skip:
            return params["decoder_bias"]
        return params["decoder_bias"] + x @ params["skip"].T.astype(x.dtype)


class CrossLayer:
    """Features of layer l read layer l and write into l and all later layers.

    Args:
        layers: Number of layers, L.
        width: Of each layer, d.
        per_layer: Features of each layer.
    """

    def __init__(self, layers: int, width: int, per_layer: int) -> None:
        self.layers, self.width, self.per_layer = layers, width, per_layer
        self.n_features = layers * per_layer
        self.decoders = tuple(f"decoder.{layer}" for layer in range(layers))

    def initial(self, key: mx.array, scale: float, mean: mx.array) -> Params:
        keys = mx.random.split(key, self.layers + 1)
        every = (self.layers, self.per_layer, self.width)
        reading = unit_rows(mx.random.normal(every, key=keys[0]))
        params = {"encoder": scale * reading.transpose(0, 2, 1), "decoder_bias": mean}
        for layer, name in enumerate(self.decoders):
            shape = (self.per_layer, (self.layers - layer) * self.width)
            params[name] = unit_rows(mx.random.normal(shape, key=keys[layer + 1]))
        return params

    def project(self, params: Params, x: mx.array) -> mx.array:
        by_layer = x.reshape(-1, self.layers, self.width).swapaxes(0, 1)
        projected = by_layer @ params["encoder"].astype(x.dtype)  # (L, N, F)
        return projected.swapaxes(0, 1).reshape(-1, self.n_features)

    def decode(self, params: Params, code: Code) -> mx.array:
        if not isinstance(code, mx.array):
            raise TypeError("cross-layer features are dense")
        outputs = mx.zeros((code.shape[0], self.layers * self.width), code.dtype)
        for layer, name in enumerate(self.decoders):
            own = code[:, layer * self.per_layer : (layer + 1) * self.per_layer]
            written = own @ params[name].astype(code.dtype)
            outputs = outputs + mx.pad(written, [(0, 0), (layer * self.width, 0)])
        return outputs

    def rest(self, params: Params, x: mx.array) -> mx.array:
        return params["decoder_bias"]


def unit_rows(rows: mx.array) -> mx.array:
    """Rows of norm 1."""
    return rows / mx.maximum(mx.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def without_parallel(gradient: mx.array, rows: mx.array) -> mx.array:
    """A gradient without what would change the norms of rows of norm 1."""
    return gradient - mx.sum(gradient * rows, axis=-1, keepdims=True) * rows


def first_scale(kind: str, d_in: int, n_features: int) -> float:
    """Norm of each feature's encoder at first.

    Kinds that start with half of all features on would overshoot the input by F / 2d. Under an L1
    penalty those of relu find their directions sooner from small ones.
    """
    if kind not in ("relu", "gated", "jumprelu"):
        return 1.0
    return min(0.1 if kind == "relu" else 1.0, 2 * d_in / n_features)
