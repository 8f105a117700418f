"""Seeds, callbacks, batches, watching, and what is refused."""

from __future__ import annotations

import gc
import json
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxray import InterpretableModel
from mlxray.errors import (
    AddressError,
    AnalysisError,
    EditChangedNothing,
    EditError,
    EditNeverFired,
    InputError,
    TokenizerMissing,
)
from mlxray.generation import Where, generate, generate_batch, stream_generate
from mlxray.interventions import add_vector, scale
from mlxray.testing.zoo import small_model


@pytest.fixture
def llama(models: dict[str, InterpretableModel]) -> InterpretableModel:
    return models["llama"]


# Seeds


def test_seeds(llama: InterpretableModel, prompt: list[int]):
    mx.random.seed(1)
    first = llama.generate(prompt, 12, temperature=1.5, seed=7).tokens
    mx.random.seed(99)
    mx.random.normal((3,))
    state = mx.array(mx.random.state[0])
    assert llama.generate(prompt, 12, temperature=1.5, seed=7).tokens == first
    assert mx.array_equal(mx.random.state[0], state).item()  # nothing drawn from it
    others = {tuple(llama.generate(prompt, 12, temperature=1.5, seed=s).tokens) for s in range(8)}
    assert len(others) == 8


def test_seeded_choices_follow_the_distribution(llama: InterpretableModel, prompt: list[int]):
    row = llama.generate(prompt, 1, keep_logits=True).token_logits[0]
    share = mx.softmax(row)
    drawn = [llama.generate(prompt, 1, temperature=1.0, seed=s).tokens[0] for s in range(400)]
    for token in mx.argsort(-share)[:3].tolist():
        expected = share[token].item()
        found = drawn.count(token) / len(drawn)
        assert abs(found - expected) < 4 * (expected * (1 - expected) / len(drawn)) ** 0.5


# Callbacks, streams


def test_callback_sees_and_stops(llama: InterpretableModel, prompt: list[int]):
    seen: list[tuple[int, int]] = []

    def callback(step: int, token: int, logits: mx.array) -> bool:
        assert int(mx.argmax(logits).item()) == token
        seen.append((step, token))
        return step >= 3

    found = llama.generate(prompt, 10, callback=callback)
    assert found.finish_reason == "callback"
    assert seen == list(enumerate(found.tokens))
    assert len(seen) == 4


def test_callback_may_change_an_edit_for_the_next_step(
    llama: InterpretableModel, prompt: list[int]
):
    strength = [1.0]

    def callback(step: int, token: int, logits: mx.array) -> None:
        strength[0] = float(step + 2)

    edits = {"layers.0": lambda x: x * strength[0]}
    found = llama.generate(
        prompt, 4, interventions=edits, callback=callback, watch=["layers.0.resid_post"]
    )
    again = llama.generate(
        prompt,
        4,
        interventions=[
            ("layers.0", Where(steps=[n]).edit(scale(float(n + 1)))) for n in range(1, 4)
        ],
    )
    assert found.tokens == again.tokens


def test_a_stream_left_early_leaves_the_model_alone(llama: InterpretableModel, prompt: list[int]):
    before = [type(m) for _, m in llama.named_modules()]
    steps = stream_generate(llama, prompt, 50, interventions={"layers.0": scale(2.0)})
    first = next(steps)
    assert [type(m) for _, m in llama.named_modules()] == before
    assert llama.generate(prompt, 1).tokens != []  # another run in between
    assert next(steps).index == first.index + 1
    steps.close()
    assert list(steps) == []


def test_two_streams_take_turns(llama: InterpretableModel, prompt: list[int]):
    edited = {"layers.0": scale(3.0)}
    a, b = (
        stream_generate(llama, prompt, 6),
        stream_generate(llama, prompt, 6, interventions=edited),
    )
    pairs = [(x.token, y.token) for x, y in zip(a, b, strict=True)]
    assert [x for x, _ in pairs] == llama.generate(prompt, 6).tokens
    assert [y for _, y in pairs] == llama.generate(prompt, 6, interventions=edited).tokens


def test_generating_inside_a_hook(llama: InterpretableModel, prompt: list[int]):
    inner: list[list[int]] = []

    def edit(x: mx.array) -> mx.array:
        inner.append(llama.generate(prompt, 3).tokens)
        return x * 2

    llama.run_with_hooks([prompt], [("layers.0", edit)])
    assert inner == [llama.generate(prompt, 3).tokens]


# Watching


def test_watched_values_are_those_of_one_run_over_all(model: InterpretableModel, prompt: list[int]):
    points = ["layers.1.resid_pre", "layers.0.z", "logits", "layers.0.mlp_out"]
    count = 5
    found = model.generate(prompt, count, watch=points, keep_logits=True)
    whole = model.activations([prompt + found.tokens[:-1]], points)
    for key in points:
        axis = 2 if key.endswith(".z") else 1
        values = found.activations[key]
        assert len(values) == count
        assert values[0].shape[axis] == len(prompt)
        assert all(v.shape[axis] == 1 for v in values[1:])
        error = mx.abs(mx.concatenate(values, axis=axis) - whole[key]).max().item()
        assert error < 1e-3
    assert mx.array_equal(found.activations["logits"][0][0, -1], found.token_logits[0]).item()
    uncached = model.generate(prompt, count, watch=points, use_cache=False)
    for key in points:
        for a, b in zip(found.activations[key], uncached.activations[key], strict=True):
            assert a.shape == b.shape
            assert mx.allclose(a, b, atol=1e-3).item()


def test_patterns_have_rows_that_sum_to_one(llama: InterpretableModel, prompt: list[int]):
    found = llama.generate(prompt, 4, watch=["layers.1.pattern", "layers.1.k"])
    for step, pattern in enumerate(found.activations["layers.1.pattern"]):
        rows = len(prompt) if step == 0 else 1
        assert pattern.shape[2:] == (rows, len(prompt) + step)
        assert mx.allclose(pattern.sum(-1), mx.ones(pattern.shape[:-1]), atol=1e-5).item()
        assert found.activations["layers.1.k"][step].shape[2] == len(prompt) + step
    whole = llama.get_attention_patterns([prompt], [1])[1]
    assert mx.allclose(found.activation(("pattern", 1), 0), whole, atol=1e-5).item()


def test_patterns_of_a_window_shorter_than_the_prompt_are_refused(
    models: dict[str, InterpretableModel], prompt: list[int]
):
    with pytest.raises(InputError, match="window"):
        models["llama/windows"].generate(prompt * 3, 2, watch=["layers.0.pattern"])


def test_memory_does_not_grow(llama: InterpretableModel):
    model = InterpretableModel(small_model("gemma3_text"))  # rotating caches of a few tokens
    held: dict[int, int] = {}
    steps = model.stream_generate(
        [1, 2, 3],
        61,
        temperature=1.0,
        repetition_penalty=1.1,
        seed=0,
        interventions={"layers.0": scale(1.1)},
        watch=["layers.0", "layers.1.resid_mid"],
    )
    for step in steps:
        if step.index in (20, 40, 60):
            gc.collect()
            held[step.index] = mx.get_active_memory()
    assert held[60] - held[40] < 2000


# Batches


def test_a_batch_is_each_row_alone(model: InterpretableModel, prompt: list[int]):
    rows = [prompt, prompt[:2], [7], prompt[::-1]]
    edits = {"layers.0": Where(positions=[-1]).edit(scale(2.0))}
    together = model.generate_batch(rows, 5, interventions=edits, keep_logits=True)
    for row, found in zip(rows, together, strict=True):
        alone = generate(model, row, 5, interventions=edits, keep_logits=True)
        assert found.tokens == alone.tokens
        assert mx.array_equal(found.token_logits, alone.token_logits).item()


def test_a_batch_draws_differently_in_each_row(llama: InterpretableModel, prompt: list[int]):
    rows = generate_batch(llama, mx.array([prompt, prompt]), 8, temperature=2.0, seed=3)
    alone = [generate(llama, prompt, 8, temperature=2.0, seed=s).tokens for s in (3, 4)]
    assert [r.tokens for r in rows] == alone
    assert alone[0] != alone[1]


def test_batches_of_texts_and_chats(pocket: InterpretableModel):
    chat = [{"role": "user", "content": "My name is Alice."}]
    texts = ["The capital of France is", "The Colosseum is in"]
    found = pocket.generate_batch([*texts, chat], 1)
    assert [r.text for r in found[:2]] == [" Paris", " Rome"]
    assert found[2].tokens == pocket.generate(chat, 1).tokens
    with pytest.raises(InputError, match="generate_batch"):
        pocket.generate(texts)  # type: ignore[arg-type]
    for one in ("text", chat):
        with pytest.raises(InputError, match="for one, use generate"):
            pocket.generate_batch(one)
    with pytest.raises(InputError, match="empty"):
        pocket.generate_batch([])


# Edits that do nothing


def test_edits_that_do_nothing(llama: InterpretableModel, prompt: list[int]):
    late = Where(steps=[5])
    with pytest.raises(EditNeverFired):
        llama.generate(prompt, 3, interventions={"layers.0": late.edit(scale(2.0))})
    assert llama.generate(prompt, 6, interventions={"layers.0": late.edit(scale(2.0))})
    # The pass of a step that is computed ahead and not used does not count.
    second = llama.generate(prompt, 3).tokens[1]
    edit = {"layers.0": Where(steps=[2]).edit(scale(2.0))}
    with pytest.raises(EditNeverFired):
        llama.generate(prompt, 3, interventions=edit, stop_tokens=[second])
    with pytest.raises(EditChangedNothing):
        llama.generate(prompt, 3, interventions={"layers.0": scale(1.0)})
    same = llama.generate(prompt, 3, interventions={"layers.0": scale(1.0)}, allow_unchanged=True)
    assert same.tokens == llama.generate(prompt, 3).tokens
    # Once is enough.
    ones = iter([1.0, 1.0, 1.0, 2.0])
    assert llama.generate(prompt, 3, interventions={"layers.0": lambda x: x * next(ones)})


def test_places(llama: InterpretableModel, prompt: list[int]):
    for wrong in (
        {"positions": []},
        {"steps": []},
        {"positions": [1.5]},
        {"steps": [-1]},
        {"prompt": False, "generated": False},
    ):
        with pytest.raises(EditError):
            Where(**wrong)  # type: ignore[arg-type]
    with pytest.raises(EditError, match="takes a function"):
        Where().edit(3)  # type: ignore[arg-type]
    limited = Where(prompt=False).edit(scale(2.0))
    with pytest.raises(EditError, match="generate"):
        llama.run_with_hooks([prompt], [("layers.0", limited)])
    assert Where(positions=3) == Where(positions=[3])  # type: ignore[arg-type]


# Bad input


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


# Results


def test_what_a_result_shows(pocket: InterpretableModel):
    found = pocket.generate("The capital of France is", 3, watch=["layers.0"], keep_logits=True)
    data = json.loads(found.to_json())["data"]
    assert data["text"] == found.text
    assert data["prompt"].endswith("The capital of France is")
    columns, rows = found.rows()
    assert columns == ["step", "id", "token", "probability"]
    assert rows[0][2] == " Paris"
    assert "Paris" in found.summary()
    assert "| 0 |" in found.to_markdown()
    assert found.token_logits.shape == (3, pocket.model.args.vocab_size)
    with pytest.raises(AddressError, match="was not watched"):
        found.activation(("resid_post", 1), 0)
    with pytest.raises(AddressError, match="no step 3"):
        found.activation("layers.0", 3)
