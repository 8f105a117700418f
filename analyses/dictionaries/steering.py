"""Steering with a feature: what it writes, as a steering vector."""

from __future__ import annotations

from typing import Any

from mlxray import InterpretableModel
from mlxray.checks.arguments import checked, count
from mlxray.errors import InputError
from mlxray.points.vocabulary import parse

from ..steering.contrast import read, rows_of
from ..steering.vector import SteeringVector
from .placement import AnyDictionary
from .types.cross_layer import CrossLayerTranscoder


@checked("dictionary", "prompts")
def feature_vector(
    model: InterpretableModel,
    dictionary: Any,
    feature: int,
    prompts: Any,
    *,
    layer: int | None = None,
) -> SteeringVector:
    """What a feature writes, as a vector to steer with.

    `SteeringVector.at` counts strength in mean norms of the activation, so that 1 adds a vector
    as long as the activation is on average over `prompts`. To add to the feature's own activation
    instead, attach the dictionary and edit ``("feature", layer, feature)``.

    Args:
        model: The model.
        dictionary: Of any form; it knows its addresses.
        feature: Which feature.
        prompts: One prompt or several, over whose tokens the norm of the activation is taken.
        layer: Of a cross-layer transcoder, whose feature it is.

    Returns:
        One vector for each address that the feature writes: the row of the decoder, where a
        constant scale of the activations is undone.

    Raises:
        InputError: if there is no such feature, the dictionary does not know its addresses or
            does not fit the model, or a prompt cannot be run.

    Example::

        vector = feature_vector(model, dictionary, 42, prompts)
        model.generate("Hello", interventions=vector.at(0.5))
    """
    if not isinstance(dictionary, AnyDictionary):
        raise InputError(f"{dictionary!r} is no dictionary.")
    point = dictionary.derived_points()[_number(dictionary, layer)]
    unit = count(feature, "feature", least=0, most=point.count - 1)
    texts = rows_of(model, prompts, "prompts")
    addresses = [model.layout.site(address).key for address in point.writes]
    found = read(model, texts, addresses, "mean")
    vectors, norms = {}, {}
    for address, row in zip(addresses, point.rows(unit), strict=True):
        shape = found[address].values.shape[1:]
        if row.size != found[address].values[0].size:
            raise InputError(
                f"{dictionary!r} writes width {row.size}, and {address!r} has shape {shape}: it "
                "belongs to another point or another model."
            )
        vectors[address] = row.reshape(shape)
        norms[address] = found[address].norms / found[address].counted
    return SteeringVector(
        vectors,
        norms,
        method=f"feature {unit} of {', '.join(point.reads)}",
        position="mean",
        model=model.name,
        n_layers=model.layout.n_layers,
        positive=tuple(model.decode(row) for row in texts) if model.tokenizer is not None else (),
    )


def _number(dictionary: Any, layer: int | None) -> int:
    """Which of a dictionary's derived points is meant."""
    if not isinstance(dictionary, CrossLayerTranscoder):
        if layer is not None:
            raise InputError("layer is for a cross-layer transcoder; leave it out.")
        return 0
    layers = [parse(address).layer for address in dictionary.reads or ()]
    if layer is None or layer not in layers:
        raise InputError(f"layer is one of the transcoder's layers, {layers}; got {layer}.")
    return layers.index(layer)
