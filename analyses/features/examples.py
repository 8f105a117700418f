"""Maximally activating examples: the places in a text where features are most active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count

from ..activations.store import ActivationStore
from ..prompts import token_texts
from .examples_result import Example, MaxActivatingResult, TopTextsResult
from .reading.active import Active, active_features
from .reading.reader import DictionaryLike, FeatureReader, feature_reader
from .top import Entry, Largest

#: Tokens on either side in which a text of a store is shown by `get_top_texts_for_feature`.
STORE_WINDOW = 64


@analysis(result=MaxActivatingResult)
def max_activating_examples(
    model: InterpretableModel,
    sae: DictionaryLike,
    feature_id: int | Sequence[int],
    texts: Any,
    layer: int | None = None,
    component: str | None = None,
    top_k: int = 10,
    *,
    window: int = 20,
    once_per_text: bool = True,
    skip_first: int = 0,
    verbose: bool = False,
) -> MaxActivatingResult:
    """The places where features are most active, each with the tokens around it.

    Texts are read once, batch by batch; what is kept are `top_k` places for each feature, so the
    memory does not grow with the texts, and the result is that of sorting everything. Equal
    values come in the order of the texts. Features of a dictionary that keeps signs are ordered
    by magnitude.

    Args:
        model: The model.
        sae: A dictionary of any form, or its path or hub id.
        feature_id: One feature or several, all in one pass.
        texts: A list of texts or of token ids, a file, a data set (see `harvest`), or an
            `ActivationStore` or its folder. Of a store the tokens that it keeps are shown.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        top_k: Examples of each feature.
        window: Tokens shown on either side.
        once_per_text: Only the most active place of each text.
        skip_first: Tokens at the start of each text that do not count, such as the one that
            begins all texts.
        verbose: Show a progress bar.

    Returns:
        A list of dictionaries with ``text``, ``activation_value``, ``token_position`` and more.

    Raises:
        InputError: if the dictionary has no such feature, does not fit the point, or the texts
            have no tokens.
        AddressError: if the model or the store lacks the point.

    Example:
        >>> found = model.max_activating_examples(sae, 42, texts, top_k=3)
        >>> found[0]["text"], found[0]["activation_value"]
    """
    reader = feature_reader(model, sae, layer, component)
    features = reader.chosen(feature_id, "feature_id")
    window = count(window, "window", least=0)
    largest = Largest(
        count(top_k, "top_k"),
        once=once_per_text,
        keep=lambda batch, row, feature: _around(batch, row, feature, window),
    )
    seen, active = 0, dict.fromkeys(features, 0)
    batches = active_features(
        model, reader, texts, features, skip_first=skip_first, margin=window, verbose=verbose
    )
    for batch in batches:
        largest.add(batch)
        seen += int(batch.counted.sum())
        names, times = np.unique(batch.only_counted()[1], return_counts=True)
        for name, number in zip(names.tolist(), times.tolist(), strict=True):
            active[name] += number
    made = {feature: list[Example]() for feature in features}
    for example in _examples(model, list(largest.entries())):
        made[example["feature_id"]].append(example)
    never = [feature for feature in features if not active[feature]]
    return MaxActivatingResult(
        reader.label,
        features,
        [example for feature in features for example in made[feature]],
        [active[feature] / seen for feature in features],
        seen,
        warnings=silent(never),
        metadata={"parameters": described(reader, texts, features, top_k=top_k, window=window)},
    )


@analysis(result=TopTextsResult)
def get_top_texts_for_feature(
    model: InterpretableModel,
    sae: DictionaryLike,
    feature_id: int,
    texts: Any,
    layer: int | None = None,
    component: str | None = None,
    top_k: int = 10,
    *,
    skip_first: int = 0,
    verbose: bool = False,
) -> TopTextsResult:
    """The texts on which a feature is most active: (text, activation, position).

    Args:
        model: The model.
        sae: A dictionary of any form, or its path or hub id.
        feature_id: The feature.
        texts: As in `max_activating_examples`. Each is shown as a whole; one of a store by the
            64 stored tokens on either side.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        top_k: Texts at most; a text on which the feature is never active is not among them.
        skip_first: Tokens at the start of each text that do not count.
        verbose: Show a progress bar.

    Raises:
        InputError: if the dictionary has no such feature, does not fit the point, or the texts
            have no tokens.
        AddressError: if the model or the store lacks the point.
    """
    reader = feature_reader(model, sae, layer, component)
    features = reader.chosen(feature_id, "feature_id")
    largest = Largest(
        count(top_k, "top_k"),
        once=True,
        keep=lambda batch, row, feature: _around(batch, row, feature, None),
    )
    batches = active_features(
        model,
        reader,
        texts,
        features,
        skip_first=skip_first,
        margin=STORE_WINDOW,
        verbose=verbose,
    )
    for batch in batches:
        largest.add(batch)
    entries = list(largest.entries())
    examples = _examples(model, entries)
    return TopTextsResult(
        reader.label,
        features[0],
        [(e["text"], e["activation_value"], e["token_position"]) for e in examples],
        [entry.document for entry in entries],
        [example["tokens"] for example in examples],
        [example["activations"] for example in examples],
        warnings=silent([] if entries else features),
        metadata={"parameters": described(reader, texts, features, top_k=top_k)},
    )


Around = tuple[list[int], list[float], int]


def _around(batch: Active, row: int, feature: int, window: int | None) -> Around:
    """Ids of the tokens around one of a batch, the feature's value on each, and which it is.

    Args:
        batch: The batch.
        row: The token.
        feature: The feature.
        window: Tokens on either side; None for all that the batch has of its text.
    """
    first = int(np.searchsorted(batch.documents, batch.documents[row]))
    end = int(np.searchsorted(batch.documents, batch.documents[row], side="right"))
    if window is not None:
        first, end = max(first, row - window), min(end, row + window + 1)
    start, stop = np.searchsorted(batch.rows, [first, end])
    own = batch.features[start:stop] == feature
    values = np.zeros(end - first, np.float32)
    values[batch.rows[start:stop][own] - first] = batch.values[start:stop][own]
    return batch.tokens[first:end].tolist(), values.tolist(), row - first


def _examples(model: InterpretableModel, entries: Sequence[Entry]) -> list[Example]:
    # Each token of the vocabulary once: there may be many thousand examples.
    ids = sorted({token for entry in entries for token in entry.kept[0]})
    names = dict(zip(ids, token_texts(model, ids), strict=True))
    return [_example(model, entry, names) for entry in entries]


def _example(model: InterpretableModel, entry: Entry, names: Mapping[int, str]) -> Example:
    ids, values, at = entry.kept
    tokens = [names[token] for token in ids]
    # The token that the tokenizer puts in front is none of the text.
    own = ids[1:] if ids[0] == model.tokens.bos_id and len(ids) > 1 else ids
    return Example(
        feature_id=entry.feature,
        text=" ".join(tokens) if model.tokenizer is None else model.decode(own),
        activation_value=entry.value,
        token_position=entry.position,
        document=entry.document,
        tokens=tokens,
        activations=values,
        at=at,
    )


def silent(features: Sequence[int]) -> list[str]:
    """What to know of features that no token turned on."""
    if not features:
        return []
    shown = ", ".join(map(str, features[:8])) + (", …" if len(features) > 8 else "")
    several = len(features) > 1
    return [f"feature{'s' * several} {shown} {'are' if several else 'is'} active on no token"]


def described(
    reader: FeatureReader, texts: Any, features: Sequence[int], **more: Any
) -> dict[str, Any]:
    """Parameters for a result's metadata: what was read, without the weights and the texts."""
    count = len(texts) if isinstance(texts, (list, tuple)) else None
    source = f"{count} texts" if count is not None else f"{type(texts).__name__}"
    if isinstance(texts, (str, ActivationStore)):
        source = str(texts)
    return {
        "sae": repr(reader.placed.dictionary),
        "place": reader.label,
        "features": list(features),
        "texts": source,
        **more,
    }


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Maximally activating examples."""
    return [max_activating_examples, get_top_texts_for_feature]
