"""Options, prompts, chats and models that generation refuses, and where it ends by itself."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxray import InterpretableModel
from mlxray.errors import AddressError, AnalysisError, EditError, InputError, TokenizerMissing
from mlxray.generation import Where
from mlxray.interventions import add_vector, scale
from mlxray.testing.zoo import small_model


class Reader(nn.Module):
    """A model that takes no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_model("llama")
        self.layers = self.inner.model.layers

    def __call__(self, ids: mx.array) -> mx.array:
        return self.inner(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is an integer, at least 1"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": "a"}, "seed"),
        ({"use_cache": False, "prompt_cache": []}, "prompt_cache"),
        ({"stop_tokens": [-1]}, "stop token"),
        ({"stop_tokens": 5}, "list of token ids"),
        ({"stop_tokens": [2.0]}, "stop token"),
    ],
)
def test_options_out_of_range(
    llama: InterpretableModel, prompt: list[int], options: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        llama.generate(prompt, **options)


def test_stop_tokens_of_any_kind_of_integer(llama: InterpretableModel, prompt: list[int]):
    first = llama.generate(prompt, 3, stop_tokens=[]).tokens[0]
    for kind in (list, np.array, mx.array):
        assert llama.generate(prompt, 3, stop_tokens=kind([first])).tokens == [first]


def test_interventions_that_are_none(llama: InterpretableModel, prompt: list[int]):
    for wrong in ([scale(2.0)], scale(2.0), 3):
        with pytest.raises(EditError, match="interventions are"):
            llama.generate(prompt, 2, interventions=wrong)  # type: ignore[arg-type]
    with pytest.raises(EditError, match="not a function"):
        llama.generate(prompt, 2, interventions={"layers.0": 3})  # type: ignore[dict-item]


def test_top_k_of_the_whole_vocabulary_is_no_filter(llama: InterpretableModel, prompt: list[int]):
    few, all_, none = (
        llama.generate(prompt, 6, temperature=1.0, top_k=k, seed=1).tokens for k in (1, 10**6, 0)
    )
    assert all_ == none
    assert few == llama.generate(prompt, 6).tokens


def test_prompts_that_cannot_be_used(
    llama: InterpretableModel, models: dict[str, InterpretableModel], pocket: InterpretableModel
):
    for empty in ("", [], mx.zeros((0,), dtype=mx.int32)):
        with pytest.raises(InputError):
            pocket.generate(empty)
    with pytest.raises(TokenizerMissing):
        llama.generate("text")
    with pytest.raises(TokenizerMissing):
        llama.generate([{"role": "user", "content": "Hi"}])
    with pytest.raises(InputError, match="outside the vocabulary"):
        llama.generate([10**6])
    with pytest.raises(AddressError):
        llama.generate([1], watch=["layers.99"])
    with pytest.raises(InputError, match="256"):
        pocket.generate([7] * 257)
    with pytest.raises(InputError, match="context is 64"):
        models["gpt2"].generate([7] * 10_000)


def test_a_generation_ends_where_the_context_does(pocket: InterpretableModel):
    found = pocket.generate([9] * 254, 50, stop_tokens=[])
    assert (len(found.tokens), found.finish_reason) == (3, "context")
    full = pocket.generate([9] * 256, 50, stop_tokens=[])
    assert (len(full.tokens), full.finish_reason) == (1, "context")


def test_chats_that_cannot_be_used(pocket: InterpretableModel):
    def says(role: Any, content: Any) -> dict[str, Any]:
        return {"role": role, "content": content}

    for wrong, message in [
        ([{"role": "user"}], "message 0 has no content"),
        ([says("user", None)], "message 0 has no content"),
        ([says("user", "Hi"), {"content": "x"}], "message 1 has no role"),
        ([says("user", "Hi"), "text"], "message 1 is str"),
    ]:
        with pytest.raises(InputError, match=message):
            pocket.generate(wrong)


class Strict:
    """A tokenizer whose template refuses a system turn, or that has none."""

    has_chat_template = True

    def encode(self, text: str) -> list[int]:
        return [ord(c) % 90 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(40 + i) for i in ids)

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("System role not supported")
        return "|".join(m["content"] for m in messages)


def test_templates_that_refuse():
    model = InterpretableModel(small_model("llama"), tokenizer=Strict())
    user = {"role": "user", "content": "Hi"}
    assert model.generate([user], 2).prompt_tokens == model.encode("Hi")
    with pytest.raises(InputError, match=r"roles system, user\): ValueError: .*not supported"):
        model.generate([{"role": "system", "content": "Be brief."}, user], 2)
    model.tokenizer.has_chat_template = False
    with pytest.raises(InputError, match="no chat template"):
        model.generate([user], 2)


def test_too_strong_a_vector_is_named(llama: InterpretableModel, prompt: list[int]):
    strong = add_vector(mx.full((32,), mx.nan))
    for options in ({}, {"use_cache": False}, {"temperature": 1.0, "seed": 1}):
        with pytest.raises(EditError, match=r"step 2.*too strong.*layers.0"):
            llama.generate(
                prompt, 5, interventions={"layers.0": Where(steps=[2]).edit(strong)}, **options
            )
    broken = small_model("llama")
    broken.update(tree_map(lambda p: p * mx.nan, broken.parameters()))
    with pytest.raises(AnalysisError, match="step 0"):
        InterpretableModel(broken).generate(prompt, 3)


def test_a_model_that_takes_no_cache(prompt: list[int]):
    model = InterpretableModel(Reader(), adapter=_adapter())
    with pytest.raises(InputError, match="use_cache=False"):
        model.generate(prompt, 3)
    expected = InterpretableModel(small_model("llama")).generate(prompt, 3)
    assert model.generate(prompt, 3, use_cache=False).tokens == expected.tokens


def _adapter() -> Any:
    from dataclasses import replace

    from mlxray.adapters.llama import LLAMA

    paths = {"embed": "model.embed_tokens", "layers": "model.layers", "final_norm": "model.norm"}
    inside = {name: f"inner.{path}" for name, path in paths.items()}
    return replace(LLAMA, name="reader", head="inner.lm_head", **inside)
