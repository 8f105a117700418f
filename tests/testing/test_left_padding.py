"""Left padding: proven where mlx-lm's own batches are right, and said where they are not."""

import pytest
from mlx_lm.models.cache import BatchKVCache

from mlxray import InterpretableModel
from mlxray.testing import invariance
from mlxray.testing.subject import Subject
from mlxray.testing.zoo import small_model


def rows(name: str):
    return list(invariance.check_left_padding(Subject(InterpretableModel(small_model(name)))))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_oss", "qwen3_next"])
def test_proven_behind_caches_of_every_kind(name):
    (row,) = rows(name)
    assert (row.status, row.point) == ("proven", "model")
    assert row.error < 1e-5


def test_a_bare_model_that_is_wrong_itself_proves_nothing(monkeypatch):
    monkeypatch.setattr(BatchKVCache, "make_mask", lambda self, n, **_: "causal")
    (row,) = rows("llama")
    assert (row.status, row.reason) == (
        "skipped",
        "the bare model answers differently behind mlx-lm's padding",
    )


def test_activations_of_another_row_are_seen(monkeypatch):
    exact = invariance._watched

    def swapped(subject, tokens, addresses, cache=None):
        logits, values = exact(subject, tokens, addresses, cache)
        return logits, [v if cache is None else v[::-1] for v in values]

    monkeypatch.setattr(invariance, "_watched", swapped)
    assert {row.status for row in rows("llama")} == {"proven", "failed"}


def test_a_cache_that_no_batch_can_have():
    (row,) = rows("llama4")
    assert row.status == "skipped"
    assert "ChunkedKVCache" in row.reason
