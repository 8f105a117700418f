"""A prompt cache after a generation holds the same tokens, whatever ended it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import llama
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache

from mlxray import InterpretableModel
from mlxray.errors import EditError, InputError
from mlxray.generation import Where
from mlxray.interventions import scale
from mlxray.testing.zoo import small_model

from ..backends import need_quantised_cache

PROMPT = [5, 17, 3, 44, 9, 60, 21, 8]
MORE = [7, 30, 2]


class Letters:
    """One character for each id."""

    def encode(self, text: str) -> list[int]:
        return [(ord(c) - 40) % 97 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(40 + i) for i in ids)


@pytest.fixture(scope="module", params=["llama", "llama/windows", "gemma3_text"])
def model(request: pytest.FixtureRequest) -> InterpretableModel:
    return InterpretableModel(small_model(request.param, seed=3), tokenizer=Letters())


ENDINGS = {
    "length": "length",
    "stop token with room": "stop",
    "stop token without room": "stop",
    "stop string": "stop",
    "callback": "callback",
    "callback and stop token": "stop",
}


def ended(model: InterpretableModel, how: str, cache: list[Any]) -> Any:
    """Four tokens or fewer, ended in one of the ways above."""
    free = model.generate(PROMPT, 4)
    stop = {"stop_tokens": [free.tokens[3]]}
    options: dict[str, Any] = {
        "length": {},
        "stop token with room": {**stop, "max_tokens": 20},
        "stop token without room": stop,
        "stop string": {"stop_strings": model.decode(free.tokens[2:4]), "max_tokens": 20},
        "callback": {"callback": lambda step, *_: step == 3, "max_tokens": 20},
        "callback and stop token": {**stop, "callback": lambda *_: False, "max_tokens": 20},
    }[how]
    options = {"max_tokens": 4, "stop_tokens": [], **options}
    return model.generate(PROMPT, prompt_cache=cache, **options)


@pytest.mark.parametrize("how", ENDINGS)
def test_a_continuation_equals_the_whole_prompt(model: InterpretableModel, how: str):
    cache = make_prompt_cache(model.model)
    first = ended(model, how, cache)
    assert first.finish_reason == ENDINGS[how]
    assert {c.offset for c in cache} == {len(PROMPT) + len(first.tokens) - 1}
    options: dict[str, Any] = {"max_tokens": 4, "stop_tokens": [], "keep_logits": True}
    found = model.generate([first.tokens[-1], *MORE], prompt_cache=cache, **options)
    whole = model.generate([*PROMPT, *first.tokens, *MORE], **options)
    assert found.tokens == whole.tokens
    assert mx.allclose(found.token_logits, whole.token_logits, atol=1e-3).item()


@pytest.mark.parametrize("count", [-1, 1])
def test_caches_of_another_number_of_layers_are_refused(model: InterpretableModel, count: int):
    caches = make_prompt_cache(model.model)
    caches = caches[:count] if count < 0 else [*caches, KVCache()]
    with pytest.raises(InputError, match=rf"has {len(caches)} caches"):
        model.generate(PROMPT, 2, prompt_cache=caches)
    assert all(cache.offset == 0 for cache in caches)


def test_the_context_ends_it(model: InterpretableModel):
    cache = make_prompt_cache(model.model)
    found = model.generate(PROMPT, 1000, prompt_cache=cache, stop_tokens=[])
    assert found.finish_reason == "context"
    assert {c.offset for c in cache} == {len(PROMPT) + len(found.tokens) - 1}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stream_left_early(model: InterpretableModel, steps: int):
    cache = make_prompt_cache(model.model)
    stream = model.stream_generate(PROMPT, 20, prompt_cache=cache, stop_tokens=[])
    tokens = [next(stream).token for _ in range(steps)]
    stream.close()
    assert {c.offset for c in cache} == {len(PROMPT) + steps - 1}
    found = model.generate([tokens[-1]], 3, prompt_cache=cache)
    assert found.tokens == model.generate(PROMPT, steps + 3).tokens[steps:]


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("steps", [1, 3])
def test_a_stream_that_is_dropped(model: InterpretableModel, steps: int):
    cache = make_prompt_cache(model.model)
    for step in model.stream_generate(PROMPT, 20, prompt_cache=cache, stop_tokens=[]):
        if step.index + 1 == steps:
            break
    assert {c.offset for c in cache} == {len(PROMPT) + steps - 1}
    again = make_prompt_cache(model.model)
    stream = model.stream_generate(PROMPT, 20, prompt_cache=again, stop_tokens=[])
    for _ in range(steps):
        next(stream)
    del stream
    assert {c.offset for c in again} == {len(PROMPT) + steps - 1}


@pytest.mark.parametrize("kind", [KVCache, lambda: QuantizedKVCache(32, 8)], ids=["plain", "8 bit"])
@pytest.mark.parametrize("broken", [0, 2])
def test_a_generation_that_fails(kind: Any, broken: int):
    if kind is not KVCache:
        need_quantised_cache(head_dim=32, heads=2, kv_heads=2, tokens=len(PROMPT) - 1)
    arguments = llama.ModelArgs("llama", 64, 2, 96, 2, 1e-5, 97, tie_word_embeddings=False)
    model = InterpretableModel(llama.Model(arguments))
    cache = [kind() for _ in model.layers]
    edit = Where(steps=[broken]).edit(scale(float("nan")))
    with pytest.raises(EditError, match=f"step {broken}"):
        model.generate(PROMPT, 9, prompt_cache=cache, interventions={"layers.1": edit})
    held = len(PROMPT) + broken  # the prompt, and the tokens that were handed out
    assert {c.offset for c in cache} == {held}
    fails = {"layers.1": lambda x: x[0]}
    with pytest.raises(EditError, match="shape"):
        model.generate(PROMPT, 9, prompt_cache=cache, interventions=fails)
    assert {c.offset for c in cache} == {held}
