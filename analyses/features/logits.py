"""Which tokens a feature promotes: what its decoder row does to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import evaluate
from mlxray.checks.arguments import count
from mlxray.errors import InputError, PointAbsent
from mlxray.points.vocabulary import parse

from ..activations.store import ActivationStore
from ..dictionaries.types.cross_layer import CrossLayerTranscoder
from ..dictionaries.types.form import DictionaryForm
from .logits_result import FeatureLogitsResult, TokenLogit
from .reading.active import BUDGET, Active, active_features
from .reading.reader import DictionaryLike, FeatureReader, feature_reader, place_label, same_place
from .top import Largest

#: What is added to the residual stream as it is.
_STREAM = ("resid_pre", "resid_mid", "resid_post", "attn_add", "mlp_add", "mixer_add")


@analysis(result=FeatureLogitsResult)
def feature_logits(
    model: InterpretableModel,
    sae: DictionaryLike,
    feature_id: int | Sequence[int],
    texts: Any = None,
    layer: int | None = None,
    component: str | None = None,
    top_k: int = 10,
    *,
    samples: int = 16,
    verbose: bool = False,
) -> FeatureLogitsResult:
    """The tokens whose logits features raise and lower most, past all later layers.

    What a feature adds to the residual stream reaches the head directly, beside what later layers
    make of it. Only that direct part is computed, by the model's own tail:

    - Without `texts`, the ``"direction"``: the feature's decoder row put through the head with
      the final norm left out, less what the head gives for zeros. It is linear in the row; the
      norm's weights take no part, nor does its scale.
    - With `texts`, the ``"direct effect"``: on the tokens where the feature is most active,
      logits(r) − logits(r − value · row), r being what the last block returns there, through the
      model's own norm and head; the mean over those tokens.

    Args:
        model: The model.
        sae: A dictionary whose output is added to the residual stream, or its path or hub id; of
            a cross-layer transcoder the sum of what a feature writes into all layers.
        feature_id: One feature or several.
        texts: A list of texts or token ids, or None.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        top_k: Tokens at either end.
        samples: With `texts`, on how many of its most active tokens a feature is looked at.
        verbose: Show a progress bar.

    Raises:
        InputError: if the dictionary has no such feature, or writes where nothing is added to the
            stream as it is; or, with `texts`, a feature is active on no token.
        PointAbsent: if the model's tail reads more than the last block's residual stream.
    """
    reader = feature_reader(model, sae, layer, component)
    features = reader.chosen(feature_id, "feature_id")
    top_k = count(top_k, "top_k")
    samples = count(samples, "samples")
    _check_stream(model, reader)
    rows, warned = _rows(reader, features)
    if texts is None:
        kind, tables = "direction", _directions(model, rows)
    else:
        if isinstance(texts, ActivationStore):
            raise InputError(
                "feature_logits runs the model on texts: give the texts, not a store of them."
            )
        kind = "direct effect"
        tables = _effects(model, reader, features, rows, texts, samples, verbose)
    return _result(model, reader, kind, features, tables, top_k, warned)


def _check_stream(model: InterpretableModel, reader: FeatureReader) -> None:
    for address in reader.writes:
        layer = parse(address).layer
        points = [f"layers.{layer}.{point}" for point in _STREAM] if layer is not None else []
        if not any(_is_at(model, address, point) for point in [*points, "embed"]):
            raise InputError(
                f"the dictionary writes {address}, which is not added to the residual stream as it "
                f"is: only {', '.join(_STREAM)} and what equals one of them in this model can be "
                "followed to the logits."
            )


def _is_at(model: InterpretableModel, address: str, other: str) -> bool:
    try:
        return same_place(model, address, other)
    except PointAbsent:
        return False


def _rows(reader: FeatureReader, features: list[int]) -> tuple[mx.array, list[str]]:
    """(n, D) float32, what each feature adds to the stream at value 1, and what to know of it."""
    dictionary = reader.placed.dictionary
    index = mx.array(features)
    if isinstance(dictionary, CrossLayerTranscoder):
        assert reader.layer is not None
        return dictionary.layers[reader.layer].decoder[index].sum(axis=1).astype(mx.float32), []
    if not isinstance(dictionary, DictionaryForm):
        raise InputError(
            "a crosscoder writes several points that depend on each other: its features have no "
            "one direction in the residual stream."
        )
    rows = dictionary.decoder[index].astype(mx.float32)
    if dictionary.normalization.per_token:
        return rows, [
            f"the dictionary's normalization ({dictionary.normalization.kind}) scales each token "
            "by itself: the numbers are those of a token with scale 1"
        ]
    back = dictionary.normalization.denormalize
    return back(rows) - back(mx.zeros_like(rows)), []


def _directions(model: InterpretableModel, rows: mx.array) -> list[mx.array]:
    """(V,) for each row."""
    zeros = mx.zeros((1, 1, rows.shape[1]), rows.dtype)
    nothing = model.finish_from(zeros, skip_norm=True)[0, 0].astype(mx.float32)
    size = max(1, BUDGET // (4 * nothing.shape[0]))
    tables = []
    for start in range(0, len(rows), size):
        some = model.finish_from(rows[None, start : start + size], skip_norm=True)[0]
        tables += list(some.astype(mx.float32) - nothing)
        evaluate(tables)
    return tables


def _effects(
    model: InterpretableModel,
    reader: FeatureReader,
    features: list[int],
    rows: mx.array,
    texts: Any,
    samples: int,
    verbose: bool,
) -> list[mx.array]:
    """(V,) for each feature: the mean effect of removing it where it is most active."""

    def before(batch: Active, row: int, feature: int) -> list[int]:
        first = int(np.searchsorted(batch.documents, batch.documents[row]))
        ids: list[int] = batch.tokens[first : row + 1].tolist()
        return ids

    largest = Largest(samples, once=False, keep=before)
    for batch in active_features(model, reader, texts, features, verbose=verbose):
        largest.add(batch)
    places: dict[int, list[tuple[list[int], float]]] = {feature: [] for feature in features}
    for entry in largest.entries():
        places[entry.feature].append((entry.kept, entry.value))
    if silent := [feature for feature, found in places.items() if not found]:
        raise InputError(
            f"feature {silent[0]} is active on no token of the texts, so it has no effect there: "
            "give other texts, or none for its direction."
        )
    last = f"layers.{model.layout.n_layers - 1}.resid_post"
    tables = []
    for feature, row in zip(features, rows, strict=True):
        prompts = model.tokens.batch([ids for ids, _ in places[feature]])
        stream = model.activations(prompts, last)[last]
        ends = mx.array([length - 1 for length in prompts.lengths])
        here = stream[mx.arange(len(prompts.lengths)), ends][None]
        values = mx.array([value for _, value in places[feature]])[None, :, None]
        without = here - (values * row).astype(here.dtype)
        logits = model.finish_from(mx.concatenate([here, without])).astype(mx.float32)
        tables.append(mx.mean(logits[0] - logits[1], axis=0))
        evaluate(tables)
    return tables


def _result(
    model: InterpretableModel,
    reader: FeatureReader,
    kind: str,
    features: list[int],
    tables: Sequence[mx.array],
    top_k: int,
    warned: list[str],
) -> FeatureLogitsResult:
    size = tables[0].shape[0]
    # A head may have rows that the tokenizer has no token for.
    known = list(range(size)) if model.tokenizer is None else model.tokens.pieces.known(range(size))
    promoted: list[list[TokenLogit]] = []
    suppressed: list[list[TokenLogit]] = []
    mean, std = [], []
    for table in tables:
        own = np.array(table)[known]
        for end, sign in ((promoted, 1), (suppressed, -1)):
            best = np.argsort(-sign * own, kind="stable")[:top_k].tolist()
            end.append([TokenLogit(known[i], _name(model, known[i]), float(own[i])) for i in best])
        mean.append(float(own.mean()))
        std.append(float(own.std()))
    return FeatureLogitsResult(
        ",".join(map(place_label, reader.writes)),
        kind,
        features,
        promoted,
        suppressed,
        mean,
        std,
        warnings=warned,
        metadata={
            "parameters": {
                "sae": repr(reader.placed.dictionary),
                "features": features,
                "top_k": top_k,
            }
        },
    )


def _name(model: InterpretableModel, token: int) -> str:
    return f"#{token}" if model.tokenizer is None else model.token_to_str(token)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Logits that features write."""
    return [feature_logits]
