"""The features that a text turns on."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count

from ..prompts import one_prompt
from .reading.active import active_features
from .reading.reader import DictionaryLike, feature_reader
from .text_result import TopFeaturesResult


@analysis(result=TopFeaturesResult)
def get_top_features_for_text(
    model: InterpretableModel,
    sae: DictionaryLike,
    text: Any,
    layer: int | None = None,
    component: str | None = None,
    top_k: int = 10,
    *,
    position: int | None = None,
    skip_first: int = 0,
) -> TopFeaturesResult:
    """The features that are most active in a text: (feature, activation).

    Args:
        model: The model.
        sae: A dictionary of any form, or its path or hub id.
        text: One prompt: text, token ids, or an array.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        top_k: Features at most; inactive ones are not among them.
        position: Look at this token alone; by default a feature counts with its largest value
            (by magnitude, if the dictionary keeps signs) over all tokens, equal ones in the order
            of their numbers.
        skip_first: Tokens at the start that do not count.

    Raises:
        InputError: if there are several prompts, or the dictionary does not fit the point.
        AddressError: if the model lacks the point.
    """
    reader = feature_reader(model, sae, layer, component)
    batch, tokens = one_prompt(model, text)
    top_k = count(top_k, "top_k")
    skip_first = count(skip_first, "skip_first", least=0)
    at = None if position is None else batch.index(0, position)
    (active,) = active_features(model, reader, batch.rows(), skip_first=skip_first)
    rows, features, values = active.only_counted()
    if at is not None:
        rows, features, values = (each[rows == at] for each in (rows, features, values))
    # Feature by feature, its largest first, and of equal ones the first token.
    order = np.lexsort((rows, -np.abs(values), features))
    _, first = np.unique(features[order], return_index=True)
    best = order[first]
    best = best[np.lexsort((features[best], -np.abs(values[best])))]
    top = best[:top_k]
    table = np.zeros((len(top), len(tokens)), np.float32)
    for line, feature in zip(table, features[top], strict=True):
        own = active.features == feature
        line[active.rows[own]] = active.values[own]
    return TopFeaturesResult(
        reader.label,
        list(zip(features[top].tolist(), values[top].tolist(), strict=True)),
        rows[top].tolist(),
        tokens,
        table.tolist(),
        len(best),
        metadata={
            "parameters": {
                "sae": repr(reader.placed.dictionary),
                "text": text if isinstance(text, str) else batch.rows()[0],
                "position": position,
                "skip_first": skip_first,
            }
        },
    )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Features of a text."""
    return [get_top_features_for_text]
