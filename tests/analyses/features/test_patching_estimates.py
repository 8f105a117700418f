"""Estimates of features' effects by gradients, and a feature that was planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.features import feature_patching
from mlxray.errors import AnalysisError
from mlxray.testing.planted import path_through_mlp

from .by_hooks import ACTIVE, DIFF, TEXT, identity, loop
from .conftest import FEATURES, WIDTH, random_dictionary

pytestmark = pytest.mark.floats


class LinearBlock(nn.Module):
    """Adds a linear map of the token before and of the token itself."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.before = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def __call__(self, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        shifted = mx.pad(x[:, :-1], [(0, 0), (1, 0), (0, 0)])
        return x + self.own(x) + self.before(shifted)


class LinearModel(nn.Module):
    """No norm and no softmax: logits are linear in every activation."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(61, WIDTH)
        self.layers = [LinearBlock() for _ in range(3)]
        self.lm_head = nn.Linear(WIDTH, 61)

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        h = self.embed_tokens(inputs)
        for block in self.layers:
            h = block(h)
        return self.lm_head(h)


@pytest.mark.parametrize("at", ["layers.0.resid_post", "layers.1.resid_post"])
def test_of_a_linear_model_the_gradient_is_exact(at: str) -> None:
    mx.random.seed(0)
    model, dictionary = InterpretableModel(LinearModel()), random_dictionary(at, **ACTIVE)
    options: dict[str, Any] = {"feature_ids": range(FEATURES), **DIFF}
    prompt = [5, 6, 7, 8, 9]
    exact = feature_patching(model, dictionary, prompt, **options)
    found = feature_patching(model, dictionary, prompt, method="gradient", **options)
    effects = [exact[f] for f in range(FEATURES)]
    assert np.allclose(effects, loop(model, dictionary, prompt, range(FEATURES)), atol=1e-4)
    assert max(map(abs, effects)) > 0.1
    assert [found[f] for f in range(FEATURES)] == pytest.approx(effects, abs=1e-4)
    # So do effects of single features add up to that of all.
    assert sum(effects) == pytest.approx(exact.total, abs=1e-3)
    assert found.certificate is not None and found.certificate.largest_error < 1e-4


def test_the_certificate_is_the_exact_ablation(model, dictionary) -> None:
    exact = feature_patching(model, dictionary, TEXT, feature_ids=range(FEATURES), **DIFF)
    found = feature_patching(
        model, dictionary, TEXT, top_k=6, method="gradient", verify_top=4, verify_random=3, **DIFF
    )
    made = found.certificate
    assert made is not None and made.top == 4 and len(made.features) == 7
    assert made.features[:4] == list(found)[:4]
    assert made.exact == pytest.approx([exact[f] for f in made.features], abs=1e-3)
    assert made.estimated[:4] == pytest.approx([found[f] for f in made.features[:4]])
    errors = np.abs(np.subtract(made.estimated, made.exact))
    assert made.largest_error == pytest.approx(errors.max())
    assert made.largest_missed == pytest.approx(np.abs(made.exact[4:]).max())
    assert made.correlation == pytest.approx(np.corrcoef(made.estimated, made.exact)[0, 1])
    assert "with exact ablation" in found.summary()


def test_gradients_integrated_on_the_way_add_up_to_the_total(model, dictionary) -> None:
    """The sum of all features' integrated gradients is the effect of ablating all together."""
    for options in (DIFF, {"metric": "l2"}):
        found = feature_patching(
            model,
            dictionary,
            TEXT,
            top_k=None,
            method="integrated_gradients",
            steps=100,
            verify_top=0,
            **options,
        )
        assert sum(found.values()) == pytest.approx(found.total, rel=0.02, abs=0.02)


def test_a_metric_without_slope_is_refused(model, dictionary) -> None:
    for metric in ("l2", "kl"):
        with pytest.raises(AnalysisError, match=r'has no slope.*method="integrated_gradients"'):
            feature_patching(model, dictionary, TEXT, metric=metric, method="gradient")


# A planted feature


def test_planted_features_are_found() -> None:
    """Head 0.0 moves the fact into four dimensions: one of them is what the answer hangs on."""
    planted = path_through_mlp()
    model = InterpretableModel(planted.model)
    width = planted.model.model.embed_tokens.weight.shape[1]
    fact, constant = 1 + 11, 0
    dictionary = identity(width, "layers.0.resid_post", dead=[constant])
    options: dict[str, Any] = {
        "metric": "logit_diff",
        "metric_kwargs": {
            "correct_token": planted.correct,
            "incorrect_token": planted.incorrect,
        },
    }
    prompt = list(planted.clean)
    found = feature_patching(model, dictionary, prompt, top_k=None, **options)
    (best, effect), (_, second) = found.top(2)
    assert best == fact and effect == pytest.approx(found.total, rel=0.05)
    assert abs(second) < 0.05 * effect
    # The fact is planted as a direction that no dimension is, too.
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(width, width)))
    rows = mx.array(turned.astype(np.float32))
    swapped = replace(dictionary, encoder=rows.T, decoder=rows)
    moved = mx.array(np.eye(width)[fact].astype(np.float32))
    swapped.encoder[:, 5], swapped.decoder[5] = moved, moved
    ids = feature_patching(model, swapped, prompt, feature_ids=[5], **options)
    assert ids[5] == pytest.approx(effect, rel=0.05)
