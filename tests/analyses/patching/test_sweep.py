"""The sweep engine against one full forward pass per cell, written by hand."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.patching import reuse
from mlxray.analyses.patching.patches import Patch, selection
from mlxray.analyses.patching.sweep import Sweep
from mlxray.errors import InputError
from mlxray.points.layout import Layout
from mlxray.testing.zoo import small_model

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

POINTS = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "mlp_act", "z", "q", "k", "v", "pattern")


def by_hand(model, patch, value):
    """Logits of the last position with one patch, by an edit that indexes the activation."""
    heads = patch.component in ("z", "q", "k", "v", "pattern")

    def put(activation):
        new = mx.array(activation)
        index = [slice(None)] * new.ndim
        if patch.head is not None:
            index[1] = patch.head
        if patch.position is not None:
            index[2 if heads else 1] = patch.position
        if patch.unit is not None:
            index[-1] = patch.unit
        new[tuple(index)] = value[tuple(index)]
        return new

    logits = model.run_with_hooks(CORRUPTED, [(patch.address, put)], allow_unchanged=True)
    return logits[0, -1]


def swept(model, cells, components, **options):
    batches = model.tokens.batch(CORRUPTED), model.tokens.batch(CLEAN)
    sweep = Sweep(model, batches[0], **options)
    layers = range(model.layout.n_layers)
    addresses = [f"layers.{layer}.{name}" for layer in layers for name in components]
    values = sweep.sources(batches[1], addresses)
    found = {}
    for indices, logits in sweep.logits(cells, values):
        found |= dict(zip(indices, logits[:, -1], strict=True))
    return [found[i] for i in range(len(cells))], values


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
@pytest.mark.parametrize("component", POINTS)
def test_every_cell_is_its_own_forward_pass(make, component):
    model = make()
    patches = [
        Patch(component, layer, position)
        for layer in range(model.layout.n_layers)
        for position in (None, 0, 4, 7, 9)
    ]
    if component in ("z", "q", "pattern"):
        patches += [Patch(component, 1, None, head) for head in range(4)]
        patches += [Patch(component, 2, 5, 3)]
    if component == "mlp_act":
        patches += [Patch(component, 1, 4, None, unit) for unit in (0, 7)]
    logits, values = swept(model, [(p,) for p in patches], [component])
    plain = model.run_with_hooks(CORRUPTED)[0, -1]
    moved = 0
    for patch, row in zip(patches, logits, strict=True):
        expected = by_hand(model, patch, values[patch.address])
        assert mx.allclose(row, expected, rtol=1e-5, atol=1e-5), patch
        moved += int(mx.max(mx.abs(expected - plain)).item() > 1e-3)
    assert moved >= len(patches) // 4  # or patches that do nothing would pass


@pytest.mark.parametrize("component", ["mlp_out", "mlp_add", "resid_post"])
@pytest.mark.parametrize(
    "name", ["granite", "cohere", "gemma2", "mixtral", "gemma4_text", "gemma3n"]
)
def test_rows_that_join_behind_the_patched_block(name, component):
    """Multipliers, parallel blocks, norms behind the MLP, and sums that the model departs from."""
    model = InterpretableModel(small_model(name))
    if component == "resid_post" and name == "gemma3n":
        pytest.skip("gemma3n has no single stream to patch")
    layers = range(model.layout.n_layers)
    patches = [Patch(component, layer, p) for layer in layers for p in (None, 4, len(CLEAN) - 1)]
    logits, values = swept(model, [(p,) for p in patches], [component])
    plain = model.run_with_hooks(CORRUPTED)[0, -1]
    moved = []
    for patch, row in zip(patches, logits, strict=True):
        expected = by_hand(model, patch, values[patch.address])
        assert mx.allclose(row, expected, rtol=1e-5, atol=1e-5), patch
        moved.append(mx.max(mx.abs(expected - plain)).item() > 1e-3)
    assert sum(moved) > len(moved) // 2


def test_one_cell_joins_before_its_block_and_one_behind():
    model = small_llama()
    cells = [
        (Patch("mlp_out", 1, 4),),
        (Patch("resid_pre", 2, 4),),
        (Patch("resid_post", 1, 5),),
        (Patch("mlp_out", 3),),
        (Patch("mlp_out", 1, 3), Patch("mlp_out", 1, 4)),
    ]
    together, values = swept(model, cells, ["mlp_out", "resid_pre", "resid_post"])
    for cell, row in zip(cells, together, strict=True):
        naive = Sweep(model, model.tokens.batch(CORRUPTED)).naive(cell, values)[-1]
        assert mx.allclose(row, naive, rtol=1e-5, atol=1e-5), cell


def test_the_last_mlp_sees_only_the_positions_that_are_read(monkeypatch):
    model = small_llama()
    mlp = type(model.model.model.layers[0].mlp)
    plain, seen = mlp.__call__, []

    def looking(self, x):
        seen.append(x.shape[1])
        return plain(self, x)

    reuse.trimmable(model.layout)
    monkeypatch.setattr(mlp, "__call__", looking)
    swept(model, [(Patch("z", 2, 4),)], ["z"], positions=(-1, 3))
    assert seen[-2:] == [10, 2]
    swept(model, [(Patch("mlp_act", 3, 9),)], ["mlp_act"])
    assert seen[-1] == 10 - 8  # behind the prefix; a patch inside the MLP needs its positions


def test_an_mlp_that_mixes_positions_is_left_whole(monkeypatch):
    """As RWKV's does, whose channel mixing reads the token before."""
    model = small_llama()
    mlp = type(model.model.model.layers[0].mlp)
    plain = mlp.__call__

    def shifted(self, x):
        return (
            plain(self, x)
            + mx.roll(plain(self, x), 1, axis=1) * (mx.arange(x.shape[1]) > 0)[:, None]
        )

    monkeypatch.setattr(mlp, "__call__", shifted)
    layout = Layout(model.model, model.adapter)
    assert not reuse.trimmable(layout)
    assert reuse.trimmable(model.layout) is False
    patch = Patch("z", 2, 4)
    (row,), values = swept(model, [(patch,)], ["z"])
    assert mx.allclose(row, by_hand(model, patch, values[patch.address]), rtol=1e-5, atol=1e-5)


def test_cells_of_several_patches():
    model = small_llama()
    cell = (Patch("mlp_out", 1, 4), Patch("z", 2, 4, 1), Patch("resid_pre", 3, 8))
    (row,), values = swept(model, [cell], ["mlp_out", "z", "resid_pre"])

    def put(patch):
        value = values[patch.address]

        def edit(activation):
            new = mx.array(activation)
            if patch.head is None:
                new[:, patch.position] = value[:, patch.position]
            else:
                new[:, patch.head, patch.position] = value[:, patch.head, patch.position]
            return new

        return patch.address, edit

    expected = model.run_with_hooks(CORRUPTED, [put(p) for p in cell])[0, -1]
    assert mx.allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_a_small_budget_gives_the_same_numbers():
    model = small_llama()
    cells = [(Patch("attn_out", layer, p),) for layer in range(4) for p in range(10)]
    wide, _ = swept(model, cells, ["attn_out"])
    narrow, _ = swept(model, cells, ["attn_out"], budget=1)
    assert mx.allclose(mx.stack(wide), mx.stack(narrow), rtol=1e-5, atol=1e-5)


def test_naive_is_offered_and_agrees():
    model = small_gpt2()
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    values = sweep.sources(model.tokens.batch(CLEAN), ["layers.1.mlp_out"])
    cells = [(Patch("mlp_out", 1, 4),)]
    naive = next(iter(sweep.logits(cells, values, naive=True)))[1]
    fast = next(iter(sweep.logits(cells, values)))[1]
    assert naive.shape == fast.shape == (1, 1, 40)
    assert mx.allclose(naive, fast, rtol=1e-5, atol=1e-5)


def test_selection_refuses_what_is_not_there():
    with pytest.raises(InputError, match="no heads"):
        selection([(0, Patch("mlp_out", 0, head=1))], (1, 10, 32))
    with pytest.raises(InputError, match="no index 10"):
        selection([(0, Patch("mlp_out", 0, position=10))], (1, 10, 32))


def test_prompts_of_other_length_are_refused():
    model = small_llama()
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    with pytest.raises(InputError, match="equal length"):
        sweep.sources(model.tokens.batch(CLEAN[:-1]), ["layers.0.mlp_out"])
    with pytest.raises(InputError, match="at least one patch"):
        list(sweep.logits([()], {}))


def test_models_whose_rows_cannot_join_are_run_one_by_one(monkeypatch):
    """A block that reads what the block before it computed beside the stream."""
    model = small_llama()
    assert reuse.resumable(model.layout)
    block = type(model.model.model.layers[0])
    plain = block.__call__
    seen = []

    def leaking(self, x, mask=None, cache=None):
        beside = seen[-1] if seen and seen[-1].shape[1] == x.shape[1] else mx.zeros_like(x)
        out = plain(self, x, mask, cache)
        seen.append(out * 2)
        return out + beside[:1].mean() + (beside.shape[0] - 1) * 3

    monkeypatch.setattr(block, "__call__", leaking)
    layout = Layout(model.model, model.adapter)
    assert not reuse.resumable(layout)
    monkeypatch.setattr(block, "__call__", plain)
    monkeypatch.setattr("mlxray.analyses.patching.sweep.resumable", lambda _: False)
    logits, _ = swept(model, [(Patch("mlp_out", 1),)], ["mlp_out"])
    monkeypatch.setattr("mlxray.analyses.patching.sweep.resumable", lambda _: True)
    fast, _ = swept(model, [(Patch("mlp_out", 1),)], ["mlp_out"])
    assert mx.allclose(logits[0], fast[0], atol=1e-5)
