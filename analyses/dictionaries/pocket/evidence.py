"""What shows that a feature means something: where it is on, and what its absence changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray import InterpretableModel
from mlxray.arrays import evaluate

from ..types.dictionary import Dictionary

Rows = Sequence[Sequence[int]]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BATCH = 40
BEFORE = 10


@dataclass(frozen=True)
class Example:
    """A place in a text where a feature is on.

    Attributes:
        before: Text before the token.
        token: The token.
        activation: Of the feature.
        next: The token that the model finds likeliest to follow.
        probability: Of that token.
        without: The same, with the feature's share taken off what the dictionary's point holds.
        effect: KL divergence of the next token's distribution from the one without the feature,
            in nats.
    """

    before: str
    token: str
    activation: float
    next: str
    probability: float
    without: float
    effect: float


@dataclass(frozen=True)
class Evidence:
    """What is known of one feature.

    Attributes:
        feature: Its number.
        frequency: Share of tokens that it is on at.
        tokens: The tokens with the largest share of its activation, with that share.
        examples: Its strongest places, each of another row.
    """

    feature: int
    frequency: float
    tokens: list[tuple[str, float]]
    examples: list[Example]


def find_evidence(
    model: InterpretableModel,
    dictionary: Dictionary,
    rows: Rows,
    features: int,
    examples: int = 3,
    most: float = 1.0,
) -> list[Evidence]:
    """The features whose absence changes most what the model says where they are strongest.

    Args:
        model: The model.
        dictionary: Of one point.
        rows: (R, S) token ids; the first token of each is left out.
        features: How many features; no two are on at the same token to the same prediction.
        examples: How many places of each.
        most: Leave out features that are on at a larger share of tokens.
    """
    survey = Survey(dictionary, model.vocab_size or 0, rows)
    for start in range(0, len(rows), BATCH):
        survey.add(model, start)
    alive = np.flatnonzero((survey.on > 0) & (survey.on <= most * survey.tokens))
    first = _effects(model, dictionary, survey, [(int(f), 0) for f in alive])
    chosen: dict[tuple[str, str], int] = {}
    for at in np.argsort([-e.effect for e in first], kind="stable"):
        if len(chosen) < features:
            chosen.setdefault((first[at].token, first[at].next), int(alive[at]))
    wanted = [(f, n) for f in chosen.values() for n in range(examples) if survey.top[n, f] > 0]
    shown = _effects(model, dictionary, survey, wanted)
    return [
        Evidence(
            feature=feature,
            frequency=float(survey.on[feature] / survey.tokens),
            tokens=survey.shares(model, feature),
            examples=[e for (f, _), e in zip(wanted, shown, strict=True) if f == feature],
        )
        for feature in chosen.values()
    ]


class Survey:
    """Where the features of a dictionary are on, over many rows.

    Attributes:
        tokens: Tokens looked at.
        on: (F,) tokens that turn each feature on.
        top: (n, F) largest activations, each of another row, the largest first.
        where: (n, F, 2) row and position of each.
    """

    def __init__(self, dictionary: Dictionary, vocabulary: int, rows: Rows, keep: int = 3) -> None:
        self.dictionary = dictionary
        self.rows = np.array(rows)
        self.tokens = 0
        F = dictionary.n_features
        self.on: Ints = np.zeros(F, np.int64)
        self.top: Floats = np.zeros((keep, F), np.float32)
        self.where: Ints = np.zeros((keep, F, 2), np.int64)
        self._mass = np.zeros((vocabulary, F))

    def add(self, model: InterpretableModel, start: int) -> None:
        """Look at a batch of rows."""
        ids = self.rows[start : start + BATCH]
        reads = self.dictionary.reads
        assert reads is not None
        found = self.dictionary.encode(model.activations(mx.array(ids), [reads])[reads])
        evaluate(found)
        values = np.array(found.astype(mx.float32))
        values[:, 0] = 0  # the token that begins every row
        self.tokens += ids[:, 1:].size
        self.on += (values > 0).sum(axis=(0, 1))
        np.add.at(self._mass, ids.ravel(), values.reshape(ids.size, -1))
        best = values.max(axis=1)
        places = np.stack(
            [np.broadcast_to(np.arange(len(ids))[:, None] + start, best.shape), values.argmax(1)],
            axis=-1,
        )
        top, where = np.concatenate([self.top, best]), np.concatenate([self.where, places])
        order = np.argsort(-top, axis=0, kind="stable")[: len(self.top)]
        self.top = np.take_along_axis(top, order, axis=0)
        self.where = np.take_along_axis(where, order[..., None], axis=0)

    def shares(self, model: InterpretableModel, feature: int) -> list[tuple[str, float]]:
        """The three tokens with the largest shares of a feature's activation."""
        mass = self._mass[:, feature]
        order = np.argsort(-mass, kind="stable")[:3]
        return [(_text(model, [i]), float(mass[i] / mass.sum())) for i in order if mass[i] > 0]


def _effects(
    model: InterpretableModel,
    dictionary: Dictionary,
    survey: Survey,
    wanted: Sequence[tuple[int, int]],
) -> list[Example]:
    """The examples (feature, which of its strongest places), in batches."""
    found: list[Example] = []
    for start in range(0, len(wanted), BATCH):
        found += _batch(model, dictionary, survey, wanted[start : start + BATCH])
    return found


def _batch(
    model: InterpretableModel,
    dictionary: Dictionary,
    survey: Survey,
    wanted: Sequence[tuple[int, int]],
) -> list[Example]:
    feature, number = (np.array(column) for column in zip(*wanted, strict=True))
    row, place = survey.where[number, feature].T
    strength = survey.top[number, feature]
    ids = survey.rows[row, : place.max() + 1]
    at = mx.array(place)[:, None, None]
    share = mx.array(strength)[:, None] * dictionary.decoder[mx.array(feature)]

    def without(activation: mx.array) -> mx.array:
        here = mx.arange(activation.shape[1])[None, :, None] == at
        return activation - mx.where(here, share[:, None].astype(activation.dtype), 0)

    assert dictionary.writes is not None
    clean = _log_probabilities(model.run_with_hooks(mx.array(ids)), place)
    edited = model.run_with_hooks(mx.array(ids), {dictionary.writes: without})
    changed = _log_probabilities(edited, place)
    effects = (np.exp(clean) * (clean - changed)).sum(axis=-1)
    likeliest = clean.argmax(axis=-1)
    return [
        Example(
            before=_text(model, ids[n, max(0, place[n] - BEFORE) : place[n]]),
            token=_text(model, ids[n, place[n] : place[n] + 1]),
            activation=float(strength[n]),
            next=_text(model, likeliest[n : n + 1]),
            probability=float(np.exp(clean[n, likeliest[n]])),
            without=float(np.exp(changed[n, likeliest[n]])),
            effect=float(effects[n]),
        )
        for n in range(len(wanted))
    ]


def _log_probabilities(logits: mx.array, place: Any) -> npt.NDArray[np.float64]:
    """(N, S, V) logits → (N, V) log-probabilities at one position of each row."""
    scores = logits[mx.arange(len(place)), mx.array(place)].astype(mx.float32)
    normal = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
    evaluate(normal)
    return np.array(normal).astype(np.float64)


def _text(model: InterpretableModel, ids: Any) -> str:
    return "".join(model.tokens.piece(int(i)) for i in ids)
