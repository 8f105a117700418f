"""Detectors on a model whose heads were set by hand."""

import json
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.attention import (
    HeadScore,
    detect_head_types,
    detect_induction_heads,
    get_attention_patterns,
    induction_score,
    previous_token_score,
)
from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.analyses.attention.repeated import repeated_random_tokens
from mlxray.errors import AddressError, AnalysisError, InputError, PointAbsent, TraceError
from mlxray.results.base import AnalysisResult

PROMPT = [0, 5, 3, 8, 1, 11, 7, 2, 9]


def test_planted_heads_are_found_and_no_others(planted):
    types = detect_head_types(planted, PROMPT)
    assert dict(types) == {"previous_token": [(0, 1)], "first_token": [(1, 1)], "current_token": []}
    found = detect_induction_heads(planted, n_random_tokens=10, threshold=0.5)
    assert [(h.layer, h.head) for h in found] == [(1, 0)]
    assert found[0].score > 0.8
    again = planted.detect_induction_heads(n_random_tokens=5, n_repeats=4, threshold=0.5)
    assert [(h.layer, h.head) for h in again] == [(1, 0)]


def test_head_scores_has_every_behaviour(planted):
    result = planted.head_scores(n_random_tokens=10)
    strongest = {name: result.top(name, 1)[0] for name in result.scores}
    assert list(strongest) == [
        "previous_token",
        "first_token",
        "current_token",
        "induction",
        "copying",
    ]
    for name, place in {"previous_token": (0, 1), "induction": (1, 0), "copying": (1, 0)}.items():
        assert (strongest[name].layer, strongest[name].head) == place
    assert result.scores["copying"][1].tolist() == pytest.approx([1, -1], abs=0.05)
    assert result.scores["copying"][0].tolist() == [0, 0]
    with_text = planted.head_scores(PROMPT, n_random_tokens=10, layers=[1], copying=False)
    assert list(with_text.scores) == ["previous_token", "first_token", "current_token", "induction"]
    assert with_text.layers == [1]
    assert with_text.top("first_token", 1)[0].head == 1
    assert with_text.tokens == [f"#{i}" for i in PROMPT]


def test_scores_are_those_of_the_patterns(make):
    model = make("qwen3")
    patterns = model.get_attention_patterns("hello world")
    result = model.detect_head_types("hello world", threshold=0.1)
    for layer, pattern in patterns.items():
        for head in range(4):
            expected = previous_token_score(pattern[0, head])
            assert result.scores["previous_token"][layer, head].item() == pytest.approx(expected)
    ordered = [h.score for h in result.heads("previous_token")]
    assert ordered == sorted(ordered, reverse=True)


def test_induction_is_scored_on_the_repeated_prompt(make):
    model = make("llama")
    prompt = repeated_random_tokens(model, 6, 2, seed=3)
    result = model.detect_induction_heads(6, 2, threshold=0.0, seed=3, layers=[1])
    pattern = model.get_attention_patterns(prompt.ids)[1]
    assert {h.head: pytest.approx(h.score) for h in result} == {
        head: induction_score(pattern[0, head], 6) for head in range(4)
    }
    assert result.tokens == model.to_str_tokens(prompt.ids)


def test_results_read_as_documented(planted):
    found = planted.detect_induction_heads(n_random_tokens=10)
    assert isinstance(found, AnalysisResult)
    assert isinstance(found[0], HeadScore)
    assert found[:10] == list(found)
    assert len(found) == 1
    assert found.summary().startswith("1 induction head above 0.4: L1H0 ")
    assert json.loads(found.to_json())["data"]["detected"][0]["layer"] == 1
    types = planted.detect_head_types(PROMPT, threshold=0.3)
    assert types["previous_token"][:5] == [(0, 1)]
    assert json.loads(types.to_json())["data"]["types"]["first_token"] == [[1, 1]]
    assert "1 previous_token" in types.summary()
    assert "previous_token" in types.to_markdown()
    with pytest.raises(KeyError, match="there are"):
        types["induction"]


# The repeated prompt


class Special:
    """Ids 0 to 4 are special, in every way that tokenizers say so."""

    bos_token, bos_token_id, eos_token_id = "<s>", 0, 1
    all_special_ids = (2,)
    unk_token_id = 3
    vocab_size = 40

    @property
    def added_tokens_decoder(self):
        return {4: SimpleNamespace(special=True), 9: SimpleNamespace(special=False)}

    def encode(self, text, add_special_tokens=True):
        return [0, 7] if add_special_tokens else [7]

    def decode(self, ids):
        return "x"


def test_random_tokens_are_ordinary_distinct_and_repeated(make):
    model = InterpretableModel(make("llama").model, tokenizer=Special())
    prompt = repeated_random_tokens(model, 35, 3, seed=0)
    block = prompt.ids[1:36]
    assert prompt.ids == [0, *block, *block, *block]
    assert (prompt.start, prompt.period) == (1, 35)
    assert sorted(block) == list(range(5, 40))
    assert repeated_random_tokens(model, 35, 3, seed=0) == prompt
    assert repeated_random_tokens(model, 35, 3, seed=1) != prompt
    assert len(repeated_random_tokens(model, 50, 2, seed=0).ids) == 101


def test_the_score_leaves_the_beginning_token_out(make):
    model = InterpretableModel(make("llama").model, tokenizer=Special())
    prompt = repeated_random_tokens(model, 6, 2, seed=3)
    result = model.detect_induction_heads(6, threshold=0, seed=3)
    pattern = model.get_attention_patterns(prompt.ids)[2][0, 1]
    assert result.scores["induction"][2, 1].item() == pytest.approx(
        induction_score(pattern[1:, 1:], 6)
    )


def test_a_prompt_that_does_not_fit_is_refused(make):
    with pytest.raises(InputError, match="context of 24: pass n_random_tokens=12 or fewer"):
        make("gpt2").detect_induction_heads()
    assert list(make("gpt2").detect_induction_heads(n_random_tokens=12, threshold=1)) == []
    # Rotary positions have no table that ends, and the model was trained for so many all the same.
    with pytest.raises(InputError, match="context of 64: pass n_random_tokens=32 or fewer"):
        make("qwen3").detect_induction_heads(n_random_tokens=10**20)
    with pytest.raises(InputError, match="at least 2 repeats"):
        make("gpt2").detect_induction_heads(n_random_tokens=12, n_repeats=1)
    with pytest.raises(InputError, match="at least 2 tokens"):
        make("gpt2").detect_induction_heads(n_random_tokens=1)


def test_bad_input_is_refused(make):
    model = make("llama")
    for call in (model.detect_head_types, model.head_scores):
        with pytest.raises(InputError, match="at least two tokens"):
            call("a")
        with pytest.raises(InputError, match="got 2"):
            call(["ab", "cd"])
        with pytest.raises(AddressError, match="no layer 7"):
            call("abc", layers=[7])


def test_not_a_number_is_refused(make):
    model = make("llama", seed=5)
    weight = model.model.model.layers[1].self_attn.q_proj.weight
    model.model.model.layers[1].self_attn.q_proj.weight = weight * mx.nan
    with pytest.raises(AnalysisError, match="NaN"):
        model.detect_head_types("abc")


# Patterns


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_patterns_of_a_prompt_and_of_a_trace(make, family):
    model = make(family)
    with model.trace("hello") as trace:
        pass
    patterns = get_attention_patterns(trace)
    result = model.attention_patterns("hello", layers=[0, 2])
    assert isinstance(result, AttentionResult)
    assert list(result) == [0, 2]
    assert list(patterns) == [0, 1, 2]
    assert list(get_attention_patterns(trace, layers=[-1])) == [2]
    for layer, pattern in patterns.items():
        assert isinstance(pattern, np.ndarray)
        assert pattern.shape == (1, 4, 5, 5)
        assert pattern.dtype == np.float32
        assert np.allclose(pattern.sum(-1), 1, atol=1e-5)
        assert np.allclose(np.triu(pattern[0, 0], 1), 0)
        own = np.array(model.get_attention_patterns("hello", [layer])[layer])
        assert np.array_equal(own, pattern)
        if layer in result:
            assert np.array_equal(np.array(result[layer]), pattern[0])
    assert result.tokens == model.to_str_tokens("hello")


def test_all_layers_of_a_trace_cost_one_run(make):
    model = make("llama")
    calls = []
    with model.trace("hello") as trace:
        pass
    plain = type(trace).replay
    try:
        type(trace).replay = lambda self, a: calls.append(a) or plain(self, a)
        get_attention_patterns(trace)
    finally:
        type(trace).replay = plain
    assert len(calls) == 1


def test_a_trace_with_an_edit_gives_the_edited_patterns(make):
    model = make("llama")
    with model.trace("hello", interventions={"layers.0.resid_post": lambda x: x * 3 + 1}) as trace:
        pass
    edited = get_attention_patterns(trace)
    plain = model.get_attention_patterns("hello")
    assert np.allclose(edited[0], np.array(plain[0]))
    assert not np.allclose(edited[1], np.array(plain[1]), atol=1e-3)


def test_what_is_no_trace_is_refused(make):
    with pytest.raises(InputError, match="expected a trace"):
        get_attention_patterns("hello")
    with pytest.raises(TraceError):
        get_attention_patterns(make("llama").trace("hello"))


def test_a_model_without_attention_is_refused(make):
    from dataclasses import replace

    model = make("llama")
    blind = replace(model.adapter, absent={"pattern": "it mixes tokens otherwise"})
    model = InterpretableModel(model.model, adapter=blind)
    with pytest.raises(PointAbsent, match="mixes tokens otherwise"):
        model.attention_patterns([1, 2, 3])


def test_no_head_looks_anywhere_in_nan(make):
    model = make("llama")
    weights = model.model.model.layers[1].self_attn.q_proj
    weights.weight = weights.weight * float("nan")
    with pytest.raises(AnalysisError, match="pattern of layer 1 holds NaN"):
        model.attention_patterns([3, 5, 7])
    assert list(model.attention_patterns([3, 5, 7], layers=[0])) == [0]


@pytest.mark.parametrize("seed", [-1, 1.5, None, "x"])
def test_a_seed_that_is_none_is_refused(make, seed):
    with pytest.raises(InputError, match="seed is an integer, at least 0; got"):
        make("llama").detect_induction_heads(n_random_tokens=4, seed=seed)


@pytest.mark.parametrize("threshold", [float("nan"), "0.4", None, True, [0.4]])
def test_a_threshold_that_is_no_number_is_refused(make, threshold):
    model = make("llama")
    with pytest.raises(InputError, match="threshold is"):
        model.detect_head_types([3, 5, 7], threshold)
    with pytest.raises(InputError, match="threshold is"):
        model.detect_induction_heads(n_random_tokens=4, threshold=threshold)
    with pytest.raises(InputError, match="threshold is"):
        model.induction_heads(n_random_tokens=4, threshold=threshold)


@pytest.mark.parametrize("position", [1.0, "1", [1], True, mx.array([1.5])])
def test_a_position_that_is_no_integer_is_refused(make, position):
    model = make("llama")
    for name in ("logit_lens", "direct_logit_attribution"):
        with pytest.raises(InputError, match="position is an integer; got"):
            getattr(model, name)([3, 5, 7], position=position)
    assert model.logit_lens([3, 5, 7], position=np.int64(-1)).keys()
