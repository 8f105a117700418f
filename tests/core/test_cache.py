"""The cache of a run: its spellings, what it tells, what it costs, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError

from .plain_runs import IDS


def test_the_cache_answers_to_every_spelling(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(IDS, ["model.layers.0.mlp", ("pattern", -1)])
    assert list(cache) == ["layers.0.mlp", "layers.2.pattern"] == list(cache.keys())
    assert len(cache) == 2 and set(cache.activations) == set(cache)
    for spelling in ("layers.0.mlp", "model.layers.0.mlp", "model.model.layers.0.mlp.output"):
        assert mx.array_equal(cache[spelling], cache["layers.0.mlp"]) and spelling in cache
    assert ("pattern", 2) in cache and ("pattern", 1) not in cache
    assert cache.get("layers.1.mlp") is None and cache.get("layers.1.mlp", 5) == 5
    assert "nonsense" not in cache and 3 not in cache and None not in cache
    with pytest.raises(AddressError, match=r"did not keep 'layers\.1\.mlp'.*layers\.0\.mlp"):
        cache["layers.1.mlp"]
    with pytest.raises(AddressError, match="nothing at"):
        cache["layers.1.mpl"]
    with pytest.raises(LookupError):
        cache["layers.7"]


def test_the_cache_tells_tokens_and_edits(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(
        [[1, 2], [3, 4, 5]], ["layers.0"], interventions={"layers.1": iv.scale(2.0)}
    )
    assert cache.metadata is not None
    assert cache.metadata["tokens"] == [[1, 2], [3, 4, 5]]
    (report,) = cache.metadata["edits"]
    assert (report.address, report.fired, report.changed) == ("layers.1", 1, 2 * 3 * 16)
    assert cache["layers.0"].shape == (2, 3, 16)


def test_activations_compute_no_logits(make: Any) -> None:
    model = InterpretableModel(make.llama(vocab_size=100_000))
    ids = list(range(64))
    logits = 4 * 64 * 100_000

    def peak(run: Callable[[], Any]) -> int:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        run()
        return mx.get_peak_memory() - before

    assert peak(lambda: model.run_with_cache(ids, ["layers.0"])) >= logits
    assert peak(lambda: model.activations(ids, ["layers.0"])) < logits / 10


def test_no_hooks_and_no_addresses(llama_model: InterpretableModel) -> None:
    bare = llama_model.model(mx.array([IDS]))
    assert mx.array_equal(llama_model.run_with_hooks(IDS), bare)
    logits, cache = llama_model.run_with_cache(IDS, [])
    assert mx.array_equal(logits, bare) and len(cache) == 0
    assert dict(cache) == {}


def test_addresses_are_checked_before_anything_runs(llama_model: InterpretableModel) -> None:
    ran: list[int] = []

    def hook(a: mx.array) -> mx.array:
        ran.append(1)
        return 2 * a

    for bad in ("layers.0.atn_out", "layers.3", ("mlp_out", 3), ("nothing", 0), "", 5, None):
        with pytest.raises(AddressError):
            llama_model.run_with_hooks(IDS, [("layers.0", hook), (bad, hook)])  # type: ignore[list-item]
        with pytest.raises(AddressError):
            llama_model.run_with_cache(IDS, [bad])  # type: ignore[list-item]
    assert not ran
