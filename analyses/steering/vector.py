"""A steering vector: a direction at one or several addresses, with where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxray import InterpretableModel, __version__
from mlxray.arrays import evaluate, held, number
from mlxray.checks.arguments import whole_number
from mlxray.errors import AddressError, EditError, InputError
from mlxray.generation import Where
from mlxray.points.vocabulary import parse, tokens_axis

if TYPE_CHECKING:
    from .contrast import Layers

Pair = tuple[str, Callable[..., mx.array]]


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """Directions to add to activations, one for each address.

    Attributes:
        vectors: Address → float32 vector, shaped like the activation without its axes of batch
            and tokens: (D,) at ``resid_post``, (H, d) at ``z``.
        norms: Address → the mean Euclidean norm of the activation there: over the tokens that the
            vector was read from, of positive and negative prompts alike. A prompt's first token
            is left out unless it was the only one read.
        method: How it was made.
        position: Which tokens were read.
        model: Name of the model that it was made with.
        n_layers: Layers of that model.
        positive, negative: The prompts.
        version: Of the mlxray that made it.

    Raises:
        InputError: if there is no vector, one is zero or not finite, or the norms do not fit.
    """

    vectors: Mapping[str, mx.array]
    norms: Mapping[str, float]
    method: str
    position: str | int
    model: str
    n_layers: int
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    version: str = field(default=__version__)

    def __post_init__(self) -> None:
        if not self.vectors:
            raise InputError("a steering vector has at least one address; this one has none.")
        if set(self.norms) != set(self.vectors):
            raise InputError("a steering vector needs one norm for each address.")
        kept = {a: held(mx.array(v, dtype=mx.float32)) for a, v in self.vectors.items()}
        evaluate(kept)
        for address, vector in kept.items():
            length = number(mx.linalg.norm(vector.reshape(-1)))
            if not (math.isfinite(length) and length > 0):
                raise InputError(f"the vector at {address!r} is zero or not finite.")
            if not (math.isfinite(self.norms[address]) and self.norms[address] > 0):
                raise InputError(f"the norm at {address!r} is {self.norms[address]}.")
        object.__setattr__(self, "vectors", MappingProxyType(kept))
        object.__setattr__(self, "norms", MappingProxyType(dict(self.norms)))

    @property
    def layers(self) -> list[int]:
        """The layers that have a vector, ascending."""
        return sorted({n for a in self.vectors if (n := parse(a).layer) is not None})

    def addresses(self, layers: Layers = None) -> list[str]:
        """The addresses at some layers, negative ones counted from the model's end; None for all.

        Raises:
            AddressError: if the vector does not have one of the layers.
            InputError: if one is no integer.
        """
        if layers is None:
            return list(self.vectors)
        several = layers if isinstance(layers, Iterable) else [layers]
        wanted = [whole_number(layer, "a layer") for layer in several]
        wanted = [layer + self.n_layers if layer < 0 else layer for layer in wanted]
        missing = [layer for layer in wanted if layer not in self.layers]
        if missing or not wanted:
            raise AddressError(
                f"this steering vector has layers {self.layers}; got {missing or wanted}."
            )
        return [a for a in self.vectors if parse(a).layer in wanted]

    def direction(self, layer: int | None = None) -> mx.array:
        """The unit vector of one layer; of the only address if `layer` is None.

        Raises:
            AddressError: if that is not exactly one address.
        """
        found = self.addresses(layer)
        if len(found) != 1:
            raise AddressError(f"choose one of the layers {self.layers}: direction(layer).")
        vector = self.vectors[found[0]]
        unit = vector / mx.linalg.norm(vector.reshape(-1))
        evaluate(unit)
        return unit

    def shift(self, address: str, strength: float, *, norm_scaled: bool = True) -> mx.array:
        """What a strength adds at an address, shaped like the vector there.

        Raises:
            AddressError: if the vector does not have the address.
        """
        if address not in self.vectors:
            raise AddressError(f"this steering vector has {list(self.vectors)}; got {address!r}.")
        vector = self.vectors[address]
        if norm_scaled:
            vector = vector * (self.norms[address] / mx.linalg.norm(vector.reshape(-1)))
        shift = strength * vector
        evaluate(shift)
        return shift

    def at(
        self,
        strength: float,
        *,
        layers: Layers = None,
        norm_scaled: bool = True,
        where: Where | None = None,
    ) -> list[Pair]:
        """The vector as interventions: pairs (address, edit) for traces, hooks and generation.

        Lists of several vectors go together with ``+``; where they meet at an address, both act.

        Args:
            strength: How much; negative goes the other way. Norm-scaled, 1 adds a vector as long
                as the mean activation there (see `norms`).
            layers: Only these layers of the vector; None for all.
            norm_scaled: False adds `strength` times the vector as it is.
            where: In a generation, the positions at which it acts; None for all.

        Raises:
            InputError: if `strength` is not a finite number, or `where` no `Where`.
            AddressError: if the vector does not have one of the layers.
        """
        strength = finite(strength)
        if where is not None and not isinstance(where, Where):
            raise InputError(f"where is a Where(…) of mlxray.generation; got {where!r}.")
        pairs: list[Pair] = []
        for address in self.addresses(layers):
            shift = self.shift(address, strength, norm_scaled=norm_scaled)
            edit = _Shift(address, shift, self.model, strength)
            pairs.append((address, edit if where is None else where.edit(edit)))
        return pairs

    def check(self, model: InterpretableModel) -> None:
        """See that the vector fits a model, by running it on one token.

        Raises:
            AddressError: if the model does not have one of the addresses.
            EditError: if its activations have another width there.
        """
        cache = model.activations([0], list(self.vectors))
        for address, vector in self.vectors.items():
            _check_shape(address, vector, cache[address], self.model)

    def save(self, path: str | Path) -> Path:
        """Write the vector as safetensors, where it came from in the metadata; see `files`."""
        from .files import save

        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, model: InterpretableModel | None = None) -> SteeringVector:
        """Read what `save` wrote, and `check` it if a model is given; see `files`."""
        from .files import load

        vector = load(Path(path))
        if model is not None:
            vector.check(model)
        return vector

    def __repr__(self) -> str:
        return (
            f"<SteeringVector of {self.model}: {', '.join(self.vectors)}; {self.method}, "
            f"{len(self.positive)} positive and {len(self.negative)} negative prompts>"
        )


def finite(strength: Any) -> float:
    """A strength as a number.

    Raises:
        InputError: if it is none, or not finite.
    """
    if isinstance(strength, bool) or not isinstance(strength, Real) or not math.isfinite(strength):
        raise InputError(f"a strength is a finite number; got {strength!r}.")
    return float(strength)


def _check_shape(address: str, vector: mx.array, activation: mx.array, model: str) -> None:
    if not isinstance(activation, mx.array):
        kind = type(activation).__name__
        raise EditError(f"a steering vector needs an array at {address!r}; it is {kind}.")
    axis, shape = tokens_axis(address), activation.shape
    if shape[1:axis] + shape[axis + 1 :] != vector.shape:
        raise EditError(
            f"the steering vector at {address!r} was made with {model!r} and has shape "
            f"{vector.shape}; the activation has shape {shape}, batch and tokens included. "
            "It belongs to another model."
        )


class _Shift:
    """Adds a vector at every token."""

    def __init__(self, address: str, shift: mx.array, model: str, strength: float) -> None:
        self.may_change_nothing = strength == 0
        self.label = f"strength {strength:g}"
        self._address, self._model, self._shift = address, model, shift
        self._spread = mx.expand_dims(shift, tokens_axis(address) - 1)
        evaluate(self._spread)

    def __repr__(self) -> str:
        return f"<{self.label} of a vector of {self._model} at {self._address}>"

    def __call__(self, activation: mx.array) -> mx.array:
        _check_shape(self._address, self._shift, activation, self._model)
        return (activation + self._spread).astype(activation.dtype)
