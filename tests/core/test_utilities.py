"""Collecting activations, and prompts of unequal length: each row is as if alone."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel, batch_get_activations, collect_activations, get_activations
from mlxray import interventions as iv
from mlxray.errors import AddressError, InputError

from .reference import PER_LAYER, WHOLE, forward
from .test_values import close

RAGGED = [[3, 5, 7, 2, 11, 1], [9], [4, 4, 30], [8, 8, 8, 8, 8]]


# Padding


def test_each_row_of_a_padded_batch_is_as_if_alone(any_model: InterpretableModel) -> None:
    """At every point, against the oracle, which never sees padding."""
    every = [*WHOLE, *((name, 1) for name in PER_LAYER)]
    cache = any_model.activations(RAGGED, every)
    logits = any_model.run_with_hooks(RAGGED)
    for row, ids in enumerate(RAGGED):
        expected_logits, expected = forward(any_model.model, ids)
        size = len(ids)
        close(logits[row : row + 1, :size], expected_logits)
        for place in every:
            name = place if isinstance(place, str) else place[0]
            value = cache[place][row : row + 1]
            if name in ("scores", "pattern"):
                value = value[:, :, :size, :size]
            elif name in ("q", "k", "v", "z", "head_out"):
                value = value[:, :, :size]
            else:
                value = value[:, :size]
            if name != "scores":
                close(value, expected[place])


def test_padding_takes_no_attention(any_model: InterpretableModel) -> None:
    patterns = any_model.get_attention_patterns(RAGGED)
    for pattern in patterns.values():
        for row, ids in enumerate(RAGGED):
            seen = pattern[row, :, : len(ids)]
            assert mx.allclose(seen.sum(-1), mx.ones(seen.shape[:-1]), atol=1e-5)
            assert mx.all(seen[..., len(ids) :] == 0)


def test_the_order_and_company_of_rows_do_not_matter(any_model: InterpretableModel) -> None:
    together = any_model.run_with_hooks(RAGGED)
    backwards = any_model.run_with_hooks(RAGGED[::-1])
    for row, ids in enumerate(RAGGED):
        assert mx.allclose(together[row, : len(ids)], backwards[3 - row, : len(ids)], atol=1e-5)


def test_edits_of_padded_batches(any_model: InterpretableModel) -> None:
    logits = any_model.run_with_hooks(RAGGED, [(("pattern", 0), iv.scale(0.5))])
    for row, ids in enumerate(RAGGED):
        expected, _ = forward(any_model.model, ids, {("pattern", 0): lambda x: 0.5 * x})
        close(logits[row : row + 1, : len(ids)], expected)


@pytest.mark.parametrize("point", ["scores", "pattern", "scores.h1", "pattern.h1"])
@pytest.mark.parametrize("edit", [iv.zero_out, lambda x: x + 1.0], ids=["zero", "more"])
def test_an_edit_gives_no_attention_to_padding(
    any_model: InterpretableModel, point: str, edit: Any
) -> None:
    edits = {f"layers.0.{point}": edit}
    together = any_model.run_with_hooks(RAGGED, edits)
    for row, ids in enumerate(RAGGED):
        alone = any_model.run_with_hooks(ids, edits)[0]
        assert mx.allclose(together[row, : len(ids)], alone, atol=1e-4), row


# get_activations


@pytest.mark.parametrize("positions", [-1, 0, [0, -1], [-1], range(1), np.int64(-1), np.array([0])])
def test_positions_count_in_each_prompts_own_tokens(
    any_model: InterpretableModel, positions: Any
) -> None:
    found = get_activations(any_model, RAGGED, [1, 0], positions)
    assert list(found) == ["layer_1", "layer_0"]
    wanted = [int(p) for p in np.atleast_1d(np.array(positions))]
    for layer in (0, 1):
        for row, ids in enumerate(RAGGED):
            _, expected = forward(any_model.model, ids)
            picked = expected["resid_post", layer][0][wanted]
            got = found[f"layer_{layer}"][row]
            close(got, picked[0] if np.ndim(positions) == 0 else picked)


def test_shapes_of_the_reference(llama_model: InterpretableModel) -> None:
    assert {k: v.shape for k, v in get_activations(llama_model, "ab").items()} == {
        f"layer_{i}": (1, 16) for i in range(3)
    }
    assert get_activations(llama_model, ["ab", "c"], [1])["layer_1"].shape == (2, 16)
    assert get_activations(llama_model, "ab", [1], [0, -1])["layer_1"].shape == (1, 2, 16)
    assert get_activations(llama_model, "ab", [-1])["layer_2"].shape == (1, 16)


@pytest.mark.parametrize("point", PER_LAYER)
def test_every_point_is_picked_along_its_tokens(any_model: InterpretableModel, point: str) -> None:
    axis = 2 if point in ("q", "k", "v", "z", "scores", "pattern", "head_out") else 1
    prompts = [[3, 5, 7], [9, 2, 4]]
    last = get_activations(any_model, prompts, [1], -1, point=point)["layer_1"]
    both = get_activations(any_model, prompts, [1], [0, -1], point=point)["layer_1"]
    value = any_model.activations(prompts, [(point, 1)])[point, 1]
    expected = mx.take(value, mx.array([0, 2]), axis=axis)
    assert mx.array_equal(last, mx.take(expected, 1, axis=axis))
    assert mx.array_equal(both, mx.moveaxis(expected, axis, 1))


def test_refusals(llama_model: InterpretableModel) -> None:
    for act, fault in (
        (lambda: get_activations(llama_model, RAGGED, [0], 1), "prompt 1 has 1 tokens"),
        (lambda: get_activations(llama_model, RAGGED, [0], [0, -2]), "no position -2"),
        (lambda: get_activations(llama_model, RAGGED, [0], []), "positions is empty"),
        (lambda: get_activations(llama_model, RAGGED, []), "list of layers is empty"),
        (lambda: get_activations(llama_model, [], [0]), "empty"),
        (lambda: batch_get_activations(llama_model, []), "empty"),
        (lambda: batch_get_activations(llama_model, "ab", batch_size=0), "batch_size"),
        (
            lambda: get_activations(llama_model, "ab", [0], point="self_attn.rope"),
            "tuple, not an array",
        ),
    ):
        with pytest.raises(InputError, match=fault):
            act()
    with pytest.raises(AddressError):
        get_activations(llama_model, "ab", [3])
    with pytest.raises(AddressError, match="resid_post"):
        get_activations(llama_model, "ab", [0], point="resid_pots")


# batch_get_activations, collect_activations


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_batches_give_what_one_batch_gives(llama_model: InterpretableModel, size: int) -> None:
    texts = ["ab", "c", "abcdef", "xyz", "b", "ghij", "k"]
    whole = get_activations(llama_model, texts, positions=[0, -1])
    parts = batch_get_activations(llama_model, texts, positions=[0, -1], batch_size=size)
    assert list(parts) == list(whole)
    for key, value in whole.items():
        assert parts[key].shape == (7, 2, 16)
        assert mx.allclose(parts[key], value, atol=1e-5)


def test_what_counts_as_a_prompt_does_not_depend_on_the_batch(
    llama_model: InterpretableModel,
) -> None:
    """A text is not its letters, and the ids of one prompt are not prompts."""
    for prompts, count in (
        ("abcdefghijklmn", 1),
        (list(range(20)), 1),
        (mx.array([[1, 2], [3, 4], [5, 6]]), 3),
        (np.array([[1, 2], [3, 4], [5, 6]]), 3),
        ([[1, 2], [3]], 2),
        (("a", "b", "c"), 3),
    ):
        found = batch_get_activations(llama_model, prompts, [0], batch_size=2)["layer_0"]
        assert found.shape == (count, 16)
        expected = get_activations(llama_model, prompts, [0])["layer_0"]
        assert mx.allclose(found, expected, atol=1e-5)


def test_progress_goes_to_stderr_only(
    llama_model: InterpretableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_get_activations(llama_model, ["a", "b"], [0], batch_size=1, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "activations" in shown.err
    batch_get_activations(llama_model, ["a", "b"], [0], batch_size=1)
    assert capsys.readouterr().err == ""


def test_collect_activations(llama_model: InterpretableModel) -> None:
    cache = collect_activations(llama_model, "ab", ["layers.0", "layers.2.mlp"])
    assert list(cache.keys()) == ["layers.0", "layers.2.mlp"]
    everything = collect_activations(llama_model, "ab")
    assert "layers.1" in everything and ("pattern", 2) in everything
    assert mx.array_equal(everything.get("layers.0"), cache["layers.0"])
    assert len(everything) > 60
