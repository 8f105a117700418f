"""Where a dictionary of any form stands in a model, and what it does there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray.errors import InputError

from .types.cross_layer import CrossLayerTranscoder
from .types.crosscoder import Crosscoder
from .types.form import DictionaryForm

AnyDictionary = DictionaryForm | CrossLayerTranscoder | Crosscoder


@dataclass(frozen=True)
class Placed:
    """A dictionary with its addresses.

    Attributes:
        dictionary: Of any form.
        reads, writes: Addresses.
    """

    dictionary: AnyDictionary
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def at_once(self) -> bool:
        """Whether all that is read comes before anything that is written is put in place."""
        return not isinstance(self.dictionary, Crosscoder)

    def features(self, inputs: Sequence[mx.array]) -> list[mx.array]:
        """Features of each layer, or the only ones: (…, d) for each address → (…, F)."""
        if isinstance(self.dictionary, CrossLayerTranscoder):
            return self.dictionary.encode(inputs)
        if isinstance(self.dictionary, Crosscoder):
            return [self.dictionary.encode(inputs)]
        return [self.dictionary.encode(inputs[0])]

    def outputs(self, features: Sequence[mx.array], inputs: Sequence[mx.array]) -> list[mx.array]:
        """What is written at each address."""
        if isinstance(self.dictionary, CrossLayerTranscoder):
            return self.dictionary.decode(features)
        if isinstance(self.dictionary, Crosscoder):
            return self.dictionary.decode(features[0])
        return [self.dictionary.decode(features[0], inputs[0])]

    def output(self, number: int, inputs: Mapping[int, mx.array]) -> mx.array:
        """What is written at one address.

        Args:
            number: Of the address in `writes`.
            inputs: Number of an address in `reads` → what is there; for a cross-layer
                transcoder, those up to `number`.
        """
        if not isinstance(self.dictionary, CrossLayerTranscoder):
            ordered = [inputs[at] for at in range(len(self.reads))]
            return self.outputs(self.features(ordered), ordered)[number]
        layers = self.dictionary.layers
        output = layers[number].decoder_bias
        for at, layer in enumerate(layers[: number + 1]):
            output = output + layer.encode(inputs[at]) @ layer.decoder[:, number - at]
        return output

    def check(self, activations: Mapping[str, mx.array]) -> None:
        """See that activations fit the dictionary.

        Raises:
            InputError: if a point has another width, or is not (B, S, D).
        """
        if isinstance(self.dictionary, DictionaryForm):
            width_in, width_out = self.dictionary.d_in, self.dictionary.d_out
        else:
            width_in = width_out = self.dictionary.d
        wanted = [(p, "reads", width_in) for p in self.reads]
        wanted += [(p, "writes", width_out) for p in self.writes]
        for point, verb, width in wanted:
            shape = tuple(activations[point].shape)
            if len(shape) != 3:
                raise InputError(f"{point} has shape {shape}; a dictionary {verb} (B, S, D).")
            if shape[-1] != width:
                raise InputError(
                    f"the dictionary {verb} width {width}, but {point} is {shape[-1]} wide: it "
                    "belongs to another point or another model."
                )


def place(dictionary: AnyDictionary) -> Placed:
    """A dictionary with its addresses.

    Raises:
        InputError: if it does not know them.
    """
    reads: Any
    writes: Any
    if isinstance(dictionary, DictionaryForm):
        reads = None if dictionary.reads is None else (dictionary.reads,)
        writes = None if dictionary.writes is None else (dictionary.writes,)
    elif isinstance(dictionary, Crosscoder):
        reads = writes = dictionary.points
    elif isinstance(dictionary, CrossLayerTranscoder):
        reads, writes = dictionary.reads, dictionary.writes
    else:
        raise InputError(
            f"dictionary is one that load_dictionary(…) or train_dictionary(…) gives; "
            f"got {type(dictionary).__name__}."
        )
    if reads is None or writes is None:
        raise InputError(
            "the dictionary does not say where in the model it stands: set its address, such as "
            'dataclasses.replace(dictionary, reads="layers.3.resid_post").'
        )
    return Placed(dictionary, reads, writes)
