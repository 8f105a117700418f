"""Names that TransformerLens and mlux have: they work, or the error shows the line to write."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.checks import elsewhere
from mlxray.errors import AddressError, AnalysisError, InputError

IDS = [1, 2, 3, 4]
RAGGED = [[1, 2, 3, 4], [5, 6]]


def surprise(logits: mx.array, ids: list[int]) -> list[float]:
    """Minus the log-probability of each token but the first, in numpy and double precision."""
    rows = np.array(logits, dtype=np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return [-logs[at, token] for at, token in enumerate(ids[1:])]


# Runs


def test_a_call_gives_the_models_own_logits(any_model: InterpretableModel) -> None:
    expected = any_model.model(mx.array([IDS]))
    for found in (any_model(IDS), any_model.forward(IDS), any_model(IDS, "logits")):
        assert mx.array_equal(found, expected)
    assert mx.array_equal(any_model("abc"), any_model.model(any_model.to_tokens("abc")))


def test_losses(any_model: InterpretableModel) -> None:
    logits = any_model(RAGGED)
    each = [surprise(row, ids) for row, ids in zip(logits, RAGGED, strict=True)]
    wanted = np.mean([*each[0], *each[1]])  # of the tokens, padding left out
    assert math.isclose(any_model(RAGGED, return_type="loss").item(), wanted, rel_tol=1e-5)
    both = any_model(IDS, return_type="both", loss_per_token=True)
    assert mx.array_equal(both[0], any_model(IDS))
    assert np.allclose(np.array(both[1])[0], surprise(both[0][0], IDS), rtol=1e-5)
    loss, cache = any_model.run_with_cache(IDS, "embed", return_type="loss")
    assert math.isclose(loss.item(), np.mean(surprise(both[0][0], IDS)), rel_tol=1e-5)
    assert list(cache) == ["embed"]
    edit = {"layers.0.mlp_out": iv.zero_out}
    edited = any_model.run_with_hooks(IDS, edit)
    found = any_model.run_with_hooks(IDS, edit, return_type="loss").item()
    assert math.isclose(found, np.mean(surprise(edited[0], IDS)), rel_tol=1e-5)


def test_return_types_that_there_are_not(llama_model: InterpretableModel) -> None:
    with pytest.raises(InputError, match=r"None would give nothing.*model\.activations"):
        llama_model(IDS, return_type=None)
    with pytest.raises(InputError, match="'logits' or 'loss' or 'both'; got 'probs'"):
        llama_model(IDS, return_type="probs")
    for run in (llama_model.run_with_cache, llama_model.run_with_hooks):
        with pytest.raises(InputError, match="'logits' or 'loss'; got 'both'"):
            run(IDS, return_type="both")
    with pytest.raises(InputError, match="two tokens at least"):
        llama_model([[3]], return_type="loss")
    with pytest.raises(InputError, match="equally many tokens"):
        llama_model(RAGGED, return_type="loss", loss_per_token=True)


@pytest.mark.filterwarnings("error")
def test_a_call_warns_of_nan(make: Any) -> None:
    root = make.llama()
    root.model.layers[1].mlp.up_proj.weight *= float("nan")
    with pytest.raises((AnalysisError, Warning), match=r"NaN|number"):
        InterpretableModel(root)(IDS)


# Text and tokens


def test_tokens_of_texts(llama_model: InterpretableModel) -> None:
    model, plain = llama_model, llama_model.tokenizer.encode
    assert model.to_tokens("abc").tolist() == [plain("abc")]
    assert model.to_tokens("abc").dtype == mx.int32
    assert model.to_tokens(["abc", "xyz"]).tolist() == [plain("abc"), plain("xyz")]
    assert model.to_tokens("abc", prepend_bos=True).tolist() == [plain("abc")]
    bare = plain("abc", add_special_tokens=False)
    assert model.to_tokens("abc", prepend_bos=False).tolist() == [bare]
    with pytest.raises(InputError, match="4, 3 tokens, which one array holds only with padding"):
        model.to_tokens(["abc", "ab"])
    with pytest.raises(InputError, match="nothing is left"):
        model.to_tokens([[1]], prepend_bos=False)


def test_tokens_without_a_beginning(make: Any) -> None:
    tokenizer = make.tokenizer()
    tokenizer.bos_token = tokenizer.bos_token_id = None
    tokenizer.encode = lambda text: [2 + ord(c) % 29 for c in text]
    model = InterpretableModel(make.llama(), tokenizer)
    assert model.to_tokens("ab", prepend_bos=False).tolist() == [tokenizer.encode("ab")]
    with pytest.raises(InputError, match="no beginning-of-sequence token"):
        model.to_tokens("ab", prepend_bos=True)


def test_texts_of_tokens(llama_model: InterpretableModel) -> None:
    model = llama_model
    ids = model.to_tokens(["abc", "xyz"])
    assert model.to_string(ids) == ["<s>abc", "<s>xyz"]
    assert model.to_string(ids[0]) == "<s>abc" == model.to_string(ids[0].tolist())
    assert model.to_string(ids.tolist()) == ["<s>abc", "<s>xyz"]
    assert model.to_string(ids[0, 1].item()) == "a"
    with pytest.raises(InputError, match="outside the vocabulary"):
        model.to_string([99])


def test_a_single_token(llama_model: InterpretableModel) -> None:
    assert llama_model.to_single_token("b") == llama_model.encode("b")[-1]
    with pytest.raises(InputError, match=r"'bc' is 2 tokens here: \['b', 'c'\]"):
        llama_model.to_single_token("bc")


# Sizes


def test_sizes_are_those_of_the_configuration(make: Any) -> None:
    llama, gpt2, gemma = (make.llama(), make.gpt2(), make.gemma2())
    cfg = InterpretableModel(llama).cfg
    args = llama.args
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
        assert getattr(cfg, name) == getattr(args, name) == cfg[name]
    assert (cfg.n_heads, cfg.n_key_value_heads, cfg.d_head) == (4, 2, 4)
    assert (cfg.n_layers, cfg.d_model, cfg.d_mlp, cfg.d_vocab) == (3, 16, 24, 31)
    wrapped = InterpretableModel(gpt2)
    assert wrapped.config == wrapped.cfg
    assert (wrapped.cfg.n_ctx, wrapped.cfg.d_mlp, wrapped.cfg.n_kv_heads) == (16, 48, 3)
    assert InterpretableModel(gemma).cfg.d_head == 6
    with pytest.raises(AttributeError, match=r"cfg has no 'act_fn'.*model\.model\.args"):
        _ = cfg.act_fn
    with pytest.raises(AttributeError, match="Did you mean 'd_model'"):
        _ = cfg.d_modell


def test_sizes_in_which_layers_differ(make: Any) -> None:
    wide, narrow = make.llama(), make.llama(intermediate_size=40)
    wide.model.layers[1].mlp = narrow.model.layers[1].mlp
    cfg = InterpretableModel(wide).cfg
    assert cfg.d_mlp is None and cfg.d_model == 16


# Hooks


def test_lists_of_hooks(llama_model: InterpretableModel) -> None:
    names = llama_model.available_hooks()
    assert {"layers.0.resid_post", "embed", "layers.2.mlp.up_proj", "lm_head"} <= set(names)
    assert "layers.0.router" not in names  # it has none
    found = llama_model.find_hooks("resid_post")
    assert found == [f"layers.{x}.resid_post" for x in range(3)]
    assert llama_model.find_hooks("nothing") == []
    llama_model.activations(IDS, [n for n in names if "rope" not in n])  # each is an address


def test_names_filter(llama_model: InterpretableModel) -> None:
    model = llama_model
    wanted = model.find_hooks("resid_post")
    for given in (wanted, lambda name: name.endswith("resid_post")):
        _, cache = model.run_with_cache(IDS, names_filter=given)
        assert list(cache) == wanted
    assert list(model.run_with_cache(IDS, lambda name: name == "embed")[1]) == ["embed"]
    assert list(model.activations(IDS, names_filter="embed")) == ["embed"]
    with pytest.raises(InputError, match="accepts no address here"):
        model.run_with_cache(IDS, names_filter=lambda name: "hook_z" in name)


def test_a_function_in_place_of_an_address(llama_model: InterpretableModel) -> None:
    """TransformerLens takes one in a pair of hooks."""
    chosen = lambda name: name.endswith("mlp_out")  # noqa: E731
    with pytest.raises(AddressError, match=r"\[\(name, edit\) for name in model\.available_hooks"):
        llama_model.run_with_hooks(IDS, [(chosen, iv.zero_out)])
    pairs = [(name, iv.zero_out) for name in llama_model.available_hooks() if chosen(name)]
    by_hand = {("mlp_out", layer): iv.zero_out for layer in range(3)}
    expected = llama_model.run_with_hooks(IDS, by_hand)
    assert mx.array_equal(llama_model.run_with_hooks(IDS, pairs), expected)


def test_spelled_arguments(llama_model: InterpretableModel) -> None:
    model, edit = llama_model, [("layers.1.mlp_out", iv.zero_out)]
    hooked: dict[str, Any] = {"fwd_hooks": edit}
    expected = model.run_with_hooks(IDS, edit)
    assert mx.array_equal(model.run_with_hooks(IDS, **hooked), expected)
    assert mx.array_equal(model.run_with_cache(IDS, "embed", **hooked)[0], expected)
    written = model.generate(IDS, 3).tokens
    assert model.generate(IDS, max_new_tokens=3).tokens == written
    assert model.generate(IDS, max_new_tokens=3, use_past_kv_cache=False).tokens == written
    assert mx.array_equal(model(input=IDS), model(IDS))
    with pytest.raises(InputError, match="'fwd_hooks' is 'hooks' here, which is given as well"):
        model.run_with_hooks(IDS, hooks=edit, **hooked)
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'hoks'. Did you mean 'hooks'"
    ):
        model.run_with_hooks(IDS, hoks=edit)


@pytest.mark.parametrize("name", elsewhere.NO_ARGUMENTS)
def test_arguments_with_another_line(llama_model: InterpretableModel, name: str) -> None:
    for method in (llama_model.run_with_hooks, llama_model.generate, llama_model):
        with pytest.raises(InputError, match=f"no argument '{name}' here: ") as caught:
            method(IDS, **{name: None})
        assert elsewhere.NO_ARGUMENTS[name] in str(caught.value)


def test_the_line_of_pre_hooks_does_what_they_did(llama_model: InterpretableModel) -> None:
    """mlux's pre-hook changed what a module gets."""
    edit = [("layers.1.mlp.input", lambda activation: activation * 2)]
    found = llama_model.run_with_hooks(IDS, edit)
    mlp = llama_model.model.model.layers[1].mlp
    kept = type(mlp)
    mlp.__class__ = type("MLP", (kept,), {"__call__": lambda self, x: kept.__call__(self, x * 2)})
    try:
        assert mx.allclose(found, llama_model.model(mx.array([IDS])), atol=1e-5)
    finally:
        mlp.__class__ = kept


@pytest.mark.parametrize("name", elsewhere.MODEL)
def test_attributes_with_another_line(llama_model: InterpretableModel, name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(llama_model, name)
    assert str(caught.value) == f"the model has no {name!r}: {elsewhere.MODEL[name]}"
    assert not hasattr(llama_model, name)


def test_sizes_are_those_of_the_weights_that_are_there(make: Any) -> None:
    model = InterpretableModel(make.llama())
    before = model.cfg.d_mlp
    for block in model.model.layers:
        mlp = block.mlp
        mlp.gate_proj.weight, mlp.up_proj.weight = mx.zeros((5, 16)), mx.zeros((5, 16))
        mlp.down_proj.weight = mx.zeros((16, 5))
    assert before != 5 and model.cfg.d_mlp == 5 == model.W_in[0].shape[1]
