"""Histograms counted in one pass, against numpy's over all values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mlxray.analyses.features import feature_activation_histogram
from mlxray.analyses.features.histogram import _Tally
from mlxray.analyses.features.reading import active as active_module
from mlxray.errors import InputError

from .conftest import by_hand


@pytest.mark.parametrize("bins", [1, 4, 33])
@pytest.mark.parametrize("signs", [1, -1, 0])
def test_bins_counted_in_one_pass_are_numpys(bins: int, signs: int) -> None:
    rng = np.random.default_rng(bins)
    values = np.exp(3 * rng.normal(size=700))
    values *= signs or rng.choice([-1, 1], size=700)
    tally = _Tally(bins)
    for part in np.split(values, [1, 5, 300]):
        tally.add(part)
    found = tally.histogram(0, 1000)
    edges = np.array(found.bin_edges)
    assert np.array_equal(np.histogram(values, edges)[0], found.counts)
    assert sum(found.counts) == found.active == 700
    assert len(set(np.diff(edges))) == 1 and edges[0] <= values.min() and edges[-1] > values.max()
    assert bins <= np.abs(edges).max() / np.diff(edges)[0] <= 2 * bins
    whole = np.concatenate([values, np.zeros(300)])
    assert found.mean == pytest.approx(whole.mean()) and found.std == pytest.approx(whole.std())
    assert found.mean_active == pytest.approx(values.mean())
    assert found.sparsity == pytest.approx(0.3)
    assert abs(found.largest) == np.abs(values).max()


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    tally = _Tally(2)
    tally.add(np.array([1.0, 2.0, 3.0, 4.0]))
    found = tally.histogram(0, 4)
    assert found.bin_edges == [0, 2, 4, 6] and found.counts == [1, 2, 1]


@pytest.mark.floats
@pytest.mark.parametrize("size", [4096, 3])
def test_a_feature_over_texts(model, dictionary, texts, monkeypatch, size) -> None:
    monkeypatch.setattr(active_module, "MOST_TOKENS", size)
    found = feature_activation_histogram(model, dictionary, 3, texts, 1, "resid_post", bins=5)
    values = np.concatenate([by_hand(model, dictionary, text)[:, 3] for text in texts])
    assert sum(found["counts"]) == int((values > 0).sum())
    assert found["sparsity"] == pytest.approx((values == 0).mean())
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-4)
    assert found["std"] == pytest.approx(values.std(), rel=1e-4)
    assert found["largest"] == pytest.approx(values.max(), rel=1e-4)
    assert set(found) >= {"bin_edges", "counts", "mean", "std", "sparsity"}
    assert json.loads(found.to_json())["data"]["tokens_read"] == len(values)


def test_several_features_in_one_pass(model, dictionary, texts) -> None:
    found: Any = feature_activation_histogram(model, dictionary, [3, 7], texts)
    one = feature_activation_histogram(model, dictionary, 3, texts)
    assert found.of(3) == one.of(3)
    silent = found.of(7)
    assert silent.counts == [] and silent.sparsity == 1 and silent.mean_active is None
    assert silent.std == 0 and "feature 7 is active on no token" in found.summary()
    assert len(found.rows()[1]) == 2
    with pytest.raises(InputError, match=r"result\.of\(3\)\.mean"):
        found["mean"]
    with pytest.raises(KeyError):
        one["median"]
    with pytest.raises(KeyError):
        one.of(4)
