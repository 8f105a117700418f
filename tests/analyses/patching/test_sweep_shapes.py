"""Where each new shape costs time, a sweep has few of them and gives the same numbers."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxray.analyses.patching import sweep as engine
from mlxray.analyses.patching.patches import Patch
from mlxray.analyses.patching.sweep import Sweep

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

COMPONENTS = ("resid_pre", "mlp_out", "z")


def swept(model, cells):
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    addresses = [f"layers.{i}.{c}" for i in range(model.layout.n_layers) for c in COMPONENTS]
    values = sweep.sources(model.tokens.batch(CLEAN), addresses)
    found = {}
    for indices, logits in sweep.logits(cells, values):
        found |= dict(zip(indices, logits[:, -1], strict=True))
    naive = [sweep.naive(cell, values)[-1] for cell in cells]
    return mx.stack([found[i] for i in range(len(cells))]), mx.stack(naive)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(engine, "shapes_cost", lambda: True)
    monkeypatch.setattr(engine, "FEW", 3)


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_batches_that_are_filled_up_give_the_numbers_of_single_passes(few, make):
    model = make()
    cells = [
        (Patch(component, layer, position),)
        for component in COMPONENTS
        for layer in range(model.layout.n_layers)
        for position in (0, 1, 4, 5, 9)
    ]
    cells += [(Patch("z", 1, 4, 1), Patch("mlp_out", 2, 9)), (Patch("mlp_out", 1),)]
    found, naive = swept(model, cells)
    assert mx.allclose(found, naive, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cost", [True, False])
def test_shapes_are_few_where_they_cost(few, monkeypatch, cost):
    monkeypatch.setattr(engine, "shapes_cost", lambda: cost)
    model = small_llama()
    cells = [(Patch("resid_pre", layer, p),) for layer in range(4) for p in range(10)]
    attention = type(model.model.model.layers[0].self_attn)
    plain, shapes = attention.__call__, set()

    def looking(self, x, mask=None, cache=None):
        shapes.add(x.shape[:2])
        return plain(self, x, mask, cache)

    swept(model, cells)
    monkeypatch.setattr(attention, "__call__", looking)
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    values = sweep.sources(model.tokens.batch(CLEAN), [f"layers.{i}.resid_pre" for i in range(4)])
    shapes.clear()
    sweep.effects(cells, values, lambda logits: logits[:, 0])
    shapes.discard((1, 10))  # the run whose keys and values are reused
    by_prefix = {length: {rows for rows, at in shapes if at == length} for _, length in shapes}
    if cost:
        assert len(by_prefix) <= 3
        assert max(map(len, by_prefix.values())) <= 3
    else:
        assert max(map(len, by_prefix.values())) == 4  # one for each layer


def test_passes_of_one_prefix_are_equally_large(monkeypatch):
    monkeypatch.setattr(engine, "ENOUGH_TOKENS", 60)
    model = small_llama()
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    cells = [(Patch("mlp_out", layer % 4),) for layer in range(13)]
    assert sweep.rows_per_pass() == 6
    assert [len(indices) for _, indices in sweep.passes(cells)] == [5, 5, 3]
