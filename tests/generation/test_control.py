"""Seeds, callbacks, streams, batches, and edits that do nothing."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.errors import EditChangedNothing, EditError, EditNeverFired, InputError
from mlxray.generation import Where, generate, generate_batch, stream_generate
from mlxray.interventions import scale

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
