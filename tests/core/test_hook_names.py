"""TransformerLens's names of hooks: the same places, or an error with the line to write."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.errors import AddressError
from mlxray.points import elsewhere
from mlxray.points.vocabulary import ALIASES, POINTS

IDS = [[1, 2, 3, 4], [5, 6, 7, 8]]


def seen(model: InterpretableModel) -> dict[str, Any]:
    """Inputs and outputs of modules of a GPT-2, noted by classes of their own: no code of ours."""
    notes: dict[str, Any] = {}
    root = model.model.model
    places = {"embed": root.wte, "final": root.ln_f, "block": root.h[1], "attn": root.h[1].attn}
    places |= {"mlp": root.h[1].mlp, "down": root.h[1].mlp.c_proj, "first": root.h[0]}
    kept = {name: module.__class__ for name, module in places.items()}

    def noting(name: str, cls: Any) -> Any:
        def call(self: Any, x: mx.array, *args: Any, **kwargs: Any) -> Any:
            out = cls.__call__(self, x, *args, **kwargs)
            notes[name] = x, out
            return out

        return type(cls.__name__, (cls,), {"__call__": call})

    for name, module in places.items():
        module.__class__ = noting(name, kept[name])
    try:
        model.model(mx.array(IDS))
    finally:
        for name, module in places.items():
            module.__class__ = kept[name]
    return notes


def test_hooks_are_what_their_modules_have(make: Any) -> None:
    model = InterpretableModel(make.gpt2())
    kept = seen(model)
    wanted = {
        "blocks.1.hook_resid_pre": kept["block"][0],
        "blocks.1.hook_resid_post": kept["block"][1],
        "blocks.1.hook_attn_out": kept["attn"][1],
        "blocks.1.hook_mlp_out": kept["mlp"][1],
        "blocks.1.hook_resid_mid": kept["block"][0] + kept["attn"][1],
        "blocks.1.mlp.hook_post": kept["down"][0],
        "ln_final.hook_normalized": kept["final"][1],
    }
    cache = model.activations(IDS, list(wanted))
    _, everything = model.run_with_cache(IDS)
    for name, value in wanted.items():
        assert mx.allclose(cache[name], value, atol=1e-6), name
        assert mx.allclose(everything[name], value, atol=1e-6), name
        assert name in cache


def test_patterns_by_their_hooks(llama_model: InterpretableModel) -> None:
    cache = llama_model.activations(IDS, ["blocks.1.attn.hook_pattern", ("hook_resid_pre", 2)])
    scores = llama_model.activations(IDS, "blocks.1.attn.hook_attn_scores")["attn_scores", 1]
    pattern = cache["blocks.1.attn.hook_pattern"]
    assert mx.allclose(pattern, mx.softmax(scores, axis=-1), atol=1e-6)
    assert pattern.shape == (2, 4, 4, 4)
    assert list(cache) == ["layers.1.pattern", "layers.2.resid_pre"]
    entered = llama_model.model.model.embed_tokens(mx.array(IDS))
    assert mx.array_equal(llama_model.activations(IDS, "hook_embed")["hook_embed"], entered)


def test_an_edit_at_a_hook(llama_model: InterpretableModel) -> None:
    edited = llama_model.run_with_hooks(IDS, {"blocks.1.hook_resid_post": mx.zeros_like})
    with llama_model.trace(IDS) as trace:
        llama_model.layers[1].output = 0.0
    assert mx.array_equal(edited, trace.output)


def test_what_is_added_behind_a_norm(make: Any) -> None:
    """TransformerLens's attn_out and mlp_out come after Gemma 2's second norms."""
    model = InterpretableModel(make.gemma2())
    names = [f"blocks.1.hook_{x}" for x in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    pre, attn, mlp, post = (model.activations(IDS, names)[name] for name in names)
    assert mx.allclose(pre + attn + mlp, post, atol=1e-5)


@pytest.mark.parametrize("name", elsewhere.LINES)
def test_names_that_mean_something_else(make: Any, name: str) -> None:
    model = InterpretableModel(make.gpt2())
    given = name if name.startswith("ln_final") else f"blocks.1.{name}"
    with pytest.raises(AddressError, match=re.escape(f"nothing at '{given}': ")) as caught:
        model.activations(IDS, given)
    assert "None" not in str(caught.value)
    line = re.search('Write "([^"]+)"', str(caught.value))
    if line is not None:  # the line that it names works
        assert model.activations(IDS, line[1])[line[1]].shape[0] == 2


def test_the_embedding_alone_where_positions_are_learned(make: Any) -> None:
    model = InterpretableModel(make.gpt2())
    with pytest.raises(AddressError, match=r'vector alone. Write "model.wte" for that') as caught:
        model.activations(IDS, "hook_embed")
    assert "nothing at 'hook_embed'" in str(caught.value)
    with pytest.raises(AddressError, match=r'Write "model.wpe"'):
        model.activations(IDS, "hook_pos_embed")
    found = model.activations(IDS, ["model.wte", "model.wpe", "embed"])
    assert mx.allclose(found["model.wte"] + found["model.wpe"], found["embed"], atol=1e-6)


def test_a_hook_that_is_misspelt(llama_model: InterpretableModel) -> None:
    with pytest.raises(AddressError, match=r"Did you mean 'blocks.1.hook_resid_post'"):
        llama_model.activations(IDS, "blocks.1.hook_residpost")
    with pytest.raises(AddressError, match="no layer 9"):
        llama_model.activations(IDS, "blocks.9.attn.hook_z")
    with pytest.raises(AddressError, match="needs a layer"):
        llama_model.activations(IDS, "hook_resid_post")


def test_spellings_lead_to_points() -> None:
    assert set(ALIASES.values()) <= set(POINTS)
    assert not set(ALIASES) & {*POINTS, *elsewhere.LINES}
