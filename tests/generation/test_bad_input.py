"""What cannot be generated from is named, before anything runs where that can be known."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from mlxray import InterpretableModel
from mlxray.errors import AddressError, EditError, InputError
from mlxray.generation import Where
from mlxray.interventions import add_vector, scale
from mlxray.testing.zoo import small_model

FRANCE = "The capital of France is"


def says(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "cannot run NoneType"),
        ((), "empty"),
        (b"Hi", "cannot run bytes"),
        (5, "cannot run int"),
        ([1.5], "token ids are integers"),
        ([True], "token ids are integers"),
        ("\ud800", "cannot encode"),
        (says("user", "Hi"), "cannot run dict"),
        ([says("", "Hi")], "message 0 has no role"),
        ([says("user", [{"type": "image"}])], "message 0 has a part of type 'image'"),
        ([says("user", [{"type": "text", "text": 5}])], "message 0 has a part without text"),
        ([says("user", "a\ud800")], "content of message 0 .*lone surrogate"),
        ([says("user", "Hi"), says("assistant", b"Ho")], "message 1 has no content"),
        ([says("user", "word " * 400)], "tokens; this model's context is 256"),
        ("word " * 400, "tokens; this model's context is 256"),
    ],
)
def test_prompts(pocket: InterpretableModel, prompt: Any, message: str):
    with pytest.raises(InputError, match=message):
        pocket.generate(prompt, 2)


def test_a_turn_may_be_empty(pocket: InterpretableModel):
    assert len(pocket.generate([says("user", "")], 2).tokens) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_strings": 5}, "stop_strings is text or a list of texts; got 5"),
        ({"stop_strings": [""]}, "at least one character"),
        ({"stop_strings": ["a", None]}, "a list of texts; got .*at 1: None"),
        ({"callback": 5}, "callback is a function; got 5"),
        ({"watch": 5}, "5 is not an address, and no list of them"),
        ({"max_tokens": True}, "max_tokens is an integer"),
    ],
)
def test_options(pocket: InterpretableModel, options: dict[str, Any], message: str):
    with pytest.raises((InputError, AddressError), match=message):
        pocket.generate(FRANCE, **options)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([FRANCE, ""], "prompt 1: the prompt is empty"),
        ([FRANCE, "word " * 400], "prompt 1: .*context is 256"),
        ([FRANCE, [says("user", None)]], "prompt 1: message 0 has no content"),
        ([[5], [10**6]], "prompt 1: token id 1000000 is outside the vocabulary"),
        (None, "a list of them; got NoneType"),
        (5, "a list of them; got int"),
        (iter(()), "empty"),
    ],
)
def test_batches_are_looked_at_before_the_first_row_runs(
    pocket: InterpretableModel, prompts: Any, message: str
):
    seen: list[int] = []
    with pytest.raises(InputError, match=message):
        pocket.generate_batch(prompts, 2, callback=lambda step, token, logits: seen.append(step))
    assert not seen


def test_batches_take_any_iterable(pocket: InterpretableModel):
    assert [r.text for r in pocket.generate_batch((p for p in [FRANCE]), 1)] == [" Paris"]


def test_no_room_behind_a_cache(pocket: InterpretableModel):
    cache = make_prompt_cache(pocket.model)
    pocket.generate([9] * 250, 2, prompt_cache=cache, stop_tokens=[])
    with pytest.raises(InputError, match=r"10 tokens after 251 in the cache.*context is 256"):
        pocket.generate([9] * 10, 2, prompt_cache=cache)


@pytest.mark.parametrize("strength", [1e30, 3e38, float("inf")])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 0}, {"use_cache": False}])
def test_a_steering_vector_too_strong(
    pocket: InterpretableModel, strength: float, options: dict[str, Any]
):
    """In float32 a norm makes zeros of what is too large: the logits are numbers, all the same."""
    strong = {"layers.2": add_vector(strength * mx.ones(128))}
    with pytest.raises(EditError, match=r"logits of step 0 are.*too strong.*layers\.2"):
        pocket.generate(FRANCE, 3, interventions=strong, **options)
    later = {"layers.2": Where(steps=[1]).edit(strong["layers.2"])}
    with pytest.raises(EditError, match=r"logits of step 1 are.*too strong"):
        list(pocket.stream_generate(FRANCE, 3, interventions=later, **options))
    with pytest.raises(EditError, match="too strong"):
        pocket.generate_batch([FRANCE], 3, interventions=strong, **options)


def test_a_strong_vector_that_can_be_borne(pocket: InterpretableModel):
    strong = {"layers.2": add_vector(1e4 * mx.ones(128))}
    assert len(pocket.generate(FRANCE, 3, interventions=strong, stop_tokens=[]).tokens) == 3


def test_too_strong_for_half_precision():
    root = small_model("llama", seed=1)
    root.update(tree_map(lambda p: p.astype(mx.float16), root.parameters()))
    model = InterpretableModel(root)
    for edit in (add_vector(mx.full((32,), 1e5)), scale(1e6)):
        with pytest.raises(EditError, match=r"step 0 are not finite numbers.*too strong"):
            model.generate([1, 2, 3], 3, interventions={"layers.0": edit})


def test_too_strong_for_brain_floats():
    root = small_model("llama", seed=1)
    root.update(tree_map(lambda p: p.astype(mx.bfloat16), root.parameters()))
    strong = {"layers.0": add_vector(mx.full((32,), 1e30))}
    with pytest.raises(EditError, match=r"step 0 are all the same.*too strong"):
        InterpretableModel(root).generate([1, 2, 3], 3, interventions=strong)


def test_equal_logits_without_an_edit_are_the_model_s_own():
    root = small_model("llama", seed=1)
    root.lm_head.weight = mx.zeros_like(root.lm_head.weight)
    model = InterpretableModel(root)
    assert len(model.generate([1, 2, 3], 3).tokens) == 3


def test_one_token_left_is_no_fault(pocket: InterpretableModel):
    def only(x: mx.array) -> mx.array:
        return mx.where(mx.arange(x.shape[-1]) == 5, x, -mx.inf)

    found = pocket.generate(FRANCE, 3, interventions={"logits": only}, stop_tokens=[])
    assert found.tokens == [5, 5, 5] and found.logprobs == [0, 0, 0]


@pytest.mark.parametrize("stop", ["is.\nTh", " Paris.", "aris", ".\nThe"])
def test_a_stop_string_that_spans_tokens(pocket: InterpretableModel, stop: str):
    plain = pocket.generate(FRANCE, 6).text
    assert plain.count(stop) == 1
    found = pocket.generate(FRANCE, 6, stop_strings=stop)
    assert (found.text, found.finish_reason) == (plain[: plain.index(stop)], "stop")
    pieces = [step.text for step in pocket.stream_generate(FRANCE, 6, stop_strings=stop)]
    assert "".join(pieces) == found.text


def test_a_stop_string_longer_than_the_text(pocket: InterpretableModel):
    plain = pocket.generate(FRANCE, 4)
    found = pocket.generate(FRANCE, 4, stop_strings=[plain.text + "x" * 500])
    assert (found.text, found.finish_reason) == (plain.text, "length")
