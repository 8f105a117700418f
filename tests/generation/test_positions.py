"""A position means the same token in every pass: with and without a cache, alone and in a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.analyses.steering import Probe, ablate_direction, ablate_stream, only_while
from mlxray.analyses.steering.vector import SteeringVector
from mlxray.conversation import Turn, TurnList
from mlxray.errors import EditError, EditNeverFired, InputError
from mlxray.generation import Where
from mlxray.testing.zoo import small_model

ADDRESS = "layers.0.resid_post"
LENGTH, WIDTH, COUNT = 8, 32, 5
MIDDLE = Where(positions=[2, -1])


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return 2.0 * mx.random.normal(shape, key=mx.random.key(seed))


def steering(strength: float = 2.0, where: Where | None = None) -> Any:
    vector = SteeringVector({ADDRESS: drawn(WIDTH)}, {ADDRESS: 2.0}, "mean", -1, "llama", 2)
    return vector.at(strength, where=where)


def at(edit: Callable[..., Any]) -> Any:
    return [(ADDRESS, edit)]


def hidden_turns(model: InterpretableModel) -> Any:
    from mlxray.analyses.conversation import cut_turns

    turns = TurnList([Turn(0, "user", 0, 3, 1, 2), Turn(1, "assistant", 3, 8, 4, 6)])
    return list(cut_turns(model, turns, [0]).items())


#: Every edit that comes with the package, by the name of the function that makes it.
EDITS: dict[str, Callable[[InterpretableModel], Any]] = {
    "zero_out": lambda _: [("layers.0.mlp_out", iv.zero_out)],
    "scale": lambda _: at(iv.scale(3.0)),
    "add_vector": lambda _: at(iv.add_vector(drawn(WIDTH))),
    "add_vector, each token's": lambda _: at(
        Where(generated=False).edit(iv.add_vector(drawn(LENGTH, WIDTH)))
    ),
    "add_vector, some tokens'": lambda _: at(MIDDLE.edit(iv.add_vector(drawn(1, 2, WIDTH)))),
    "replace_with": lambda _: at(MIDDLE.edit(iv.replace_with(drawn(WIDTH)))),
    "replace_with, each token's": lambda _: at(MIDDLE.edit(iv.replace_with(drawn(LENGTH, WIDTH)))),
    "clamp": lambda _: at(iv.clamp(-0.1, 0.1)),
    "noise": lambda _: at(iv.noise(2.0, seed=3)),
    "noise, some tokens'": lambda _: at(Where(positions=[1, 9]).edit(iv.noise(2.0, seed=3))),
    "noise of heads": lambda _: [("layers.0.z", iv.noise(2.0, seed=3))],
    "replace_at_positions": lambda _: at(
        iv.replace_at_positions(drawn(1, LENGTH, WIDTH), [0, 3, -1])
    ),
    "replace_at_positions, one each": lambda _: at(
        iv.replace_at_positions(drawn(1, 3, WIDTH), [-1, 4, 10])
    ),
    "replace_at_positions of heads": lambda _: [
        ("layers.0.z", iv.replace_at_positions(drawn(1, 4, 2, 8), [1, -1]))
    ],
    "compose": lambda _: at(
        iv.compose()
        .add(iv.replace_at_positions(drawn(1, 2, WIDTH), [3, 5]))
        .add(iv.noise(1.0, seed=1))
        .build()
    ),
    "a function that wraps one": lambda _: at(
        lambda x: 2 * iv.replace_at_positions(drawn(1, 1, WIDTH), [3])(x)
    ),
    "Where": lambda _: at(MIDDLE.edit(iv.replace_at_positions(drawn(1, 1, WIDTH), [-1]))),
    "SteeringVector.at": lambda _: steering(),
    "SteeringVector.at, where": lambda _: steering(where=Where(positions=[1, -1, 9])),
    "ablate_direction": lambda _: at(ablate_direction(drawn(WIDTH))),
    "ablate_stream": lambda model: ablate_stream(model, drawn(WIDTH)),
    "only_while": lambda _: only_while(
        Probe("layers.0.resid_pre", drawn(WIDTH), 0.0),
        at(iv.replace_at_positions(drawn(1, 4, WIDTH), [0, 1, 2, 3])),
    ),
    "cut_turns": hidden_turns,
}

#: Those that mean a position after the prompt.
GENERATED = {
    "noise, some tokens'",
    "replace_at_positions, one each",
    "SteeringVector.at, where",
}


@pytest.mark.parametrize("name", EDITS)
def test_cached_is_uncached_for_every_edit(
    llama: InterpretableModel, prompt: list[int], name: str, monkeypatch: pytest.MonkeyPatch
):
    from mlxray.generation import passes

    edits = EDITS[name](llama)
    options: dict[str, Any] = {"interventions": edits, "keep_logits": True}
    uncached = llama.generate(prompt, COUNT, use_cache=False, **options)
    cached = llama.generate(prompt, COUNT, **options)
    filled = make_prompt_cache(llama.model)
    monkeypatch.setattr(passes, "PIECE", 3)
    pieces = llama.generate(prompt, COUNT, prompt_cache=filled, **options)
    for other in (cached, pieces):
        assert other.tokens == uncached.tokens
        assert mx.abs(other.token_logits - uncached.token_logits).max().item() < 2e-3
    bare = llama.generate(prompt, COUNT, keep_logits=True)
    assert mx.abs(bare.token_logits - uncached.token_logits).max().item() > 1e-2


@pytest.mark.parametrize("name", [name for name in EDITS if name != "cut_turns"])
def test_a_single_run_is_the_prompts_pass(llama: InterpretableModel, prompt: list[int], name: str):
    edits = EDITS[name](llama)
    if name in GENERATED:
        with pytest.raises(EditError, match="there is no position"):
            llama.run_with_hooks(prompt, edits)
        return
    first = llama.generate(prompt, 1, interventions=edits, keep_logits=True).token_logits[0]
    assert mx.allclose(llama.run_with_hooks(prompt, edits)[0, -1], first, atol=2e-3).item()


def test_the_list_of_edits_is_whole():
    made = {name.partition(",")[0] for name in EDITS}
    public = {
        name
        for name, fn in vars(iv).items()
        if inspect.isfunction(fn) and fn.__module__ == iv.__name__ and not name.startswith("_")
    }
    assert public - made == {"as_pairs", "replace_in_block"}


SINGLE = {
    "last": Where(positions=[-1]).edit(iv.add_vector(drawn(WIDTH))),
    "first and last": Where(positions=[0, -1]).edit(iv.add_vector(drawn(WIDTH))),
    "prompt": Where(generated=False).edit(iv.add_vector(drawn(WIDTH))),
    "replaced": iv.replace_at_positions(drawn(3, 1, WIDTH)[:1], [-1]),
    "noise": iv.noise(2.0, seed=3),
    "noise at the end": Where(positions=[-1]).edit(iv.noise(2.0, seed=3)),
    "heads": Where(positions=[-1]).edit(iv.scale(3.0)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_each_row_of_a_batch_gets_what_it_gets_alone(llama: InterpretableModel, name: str):
    rows = [[5], [5, 17, 3, 44], [9, 60]]
    address = "layers.0.q" if name == "heads" else ADDRESS
    alone = [llama.run_with_hooks(row, [(address, SINGLE[name])])[0] for row in rows]
    edit = SINGLE[name]
    if name == "replaced":
        edit = iv.replace_at_positions(mx.broadcast_to(drawn(3, 1, WIDTH)[:1], (3, 1, WIDTH)), [-1])
    pairs = [(address, edit)]
    with llama.trace(rows, pairs):
        traced = llama.output.save()
    kept, _ = llama.run_with_cache(rows, [ADDRESS], interventions=pairs)
    for together in (llama.run_with_hooks(rows, pairs), traced, kept):
        for index, row in enumerate(rows):
            error = mx.abs(together[index, : len(row)] - alone[index]).max().item()
            assert error < 1e-3


def test_gradients_at_each_rows_own_positions(llama: InterpretableModel):
    rows = [[5], [5, 17, 3, 44]]
    edits = [(ADDRESS, SINGLE["last"])]

    def metric(logits: mx.array) -> mx.array:
        return logits[..., 3].sum()

    value, found = llama.gradients(rows, metric, [ADDRESS], positions=[-1], interventions=edits)
    each = [
        llama.gradients(row, metric, [ADDRESS], positions=[-1], interventions=edits) for row in rows
    ]
    assert value.item() == pytest.approx(sum(v.item() for v, _ in each), abs=1e-3)
    for index, row in enumerate(rows):
        alone = each[index][1][ADDRESS][0]
        assert mx.allclose(found[ADDRESS][index, : len(row)], alone, atol=1e-4).item()
    for wrong in ([4], [-2], [0, 9], []):
        with pytest.raises(InputError, match="position"):
            llama.gradients(rows, metric, [ADDRESS], positions=wrong)


def test_positions_that_are_not_there(llama: InterpretableModel, prompt: list[int]):
    vector = iv.add_vector(drawn(WIDTH))
    for position in (8, -9, 10**12):
        limited = {ADDRESS: Where(positions=[0, position]).edit(vector)}
        with pytest.raises(EditError, match="there is no position"):
            llama.run_with_hooks(prompt, limited)
    for edit in (
        Where(positions=[-9]).edit(vector),
        iv.replace_at_positions(drawn(1, 1, WIDTH), [-9]),
    ):
        with pytest.raises(EditError, match="no position -9: the prompt has 8 tokens"):
            llama.generate(prompt, 2, interventions={ADDRESS: edit})
    with pytest.raises(EditError, match="prompt 1 has 1 tokens"):
        llama.run_with_hooks([[1, 2], [3]], {ADDRESS: Where(positions=[1]).edit(vector)})
    cache = make_prompt_cache(llama.model)
    llama.generate(prompt, 1, prompt_cache=cache)
    limited = {ADDRESS: Where(positions=[0]).edit(vector)}
    with pytest.raises(EditNeverFired):  # position 0 is in the cache already
        llama.generate([3, 4], 1, prompt_cache=cache, interventions=limited)
    short = {ADDRESS: iv.add_vector(drawn(LENGTH - 1, WIDTH))}
    whole = {ADDRESS: iv.add_vector(drawn(LENGTH, WIDTH))}
    for use_cache in (True, False):
        with pytest.raises(EditError, match="the prompt has 8"):
            llama.generate(prompt, 3, interventions=short, use_cache=use_cache)
        with pytest.raises(EditError, match=r"Where\(generated=False\)"):
            llama.generate(prompt, 3, interventions=whole, use_cache=use_cache)


def test_where_cannot_be_called_or_nested():
    limited = Where(positions=[-1]).edit(iv.scale(2.0))
    with pytest.raises(EditError, match="Where already"):
        Where(generated=False).edit(limited)
    with pytest.raises(EditError, match="cannot be called"):
        limited(mx.zeros((1, 2, 3)))


@pytest.mark.parametrize("count", [4, 1])
def test_points_watched_behind_a_filled_cache(
    llama: InterpretableModel, prompt: list[int], count: int
):
    points = [f"layers.1.{p}" for p in ("q", "k", "v", "scores", "pattern", "z", "resid_post")]
    cache = make_prompt_cache(llama.model)
    llama.generate(prompt[:4], 1, prompt_cache=cache)
    new = prompt[4 : 4 + count]
    found = llama.generate(new, 2, prompt_cache=cache, watch=points)
    ids = prompt[:4] + new
    whole = llama.activations([ids + found.tokens[:1]], points)
    for point in points:
        (first, second), every = found.activations[point], whole[point]
        axis = 1 if point.endswith("resid_post") else 2
        if point.endswith((".k", ".v")):
            assert first.shape[2] == len(ids)
            assert mx.allclose(first, every[:, :, : len(ids)], atol=1e-4).item()
            continue
        own = mx.split(every, [4, len(ids)], axis=axis)[1:]
        if point.endswith(("scores", "pattern")):
            assert first.shape == (1, 4, len(new), len(ids))
            own[0] = own[0][..., : len(ids)]
        for a, b in zip((first, second), own, strict=True):
            assert mx.allclose(mx.exp(a), mx.exp(b), atol=1e-4).item()


def test_a_cache_that_does_not_count():
    model = InterpretableModel(small_model("mamba", seed=3))
    vector = iv.add_vector(drawn(WIDTH))
    cache = make_prompt_cache(model.model)
    fresh = {ADDRESS: Where(positions=[1]).edit(vector)}
    assert model.generate([5, 17, 3], 1, prompt_cache=cache, interventions=fresh)
    for edit in (fresh[ADDRESS], iv.replace_at_positions(drawn(1, 1, WIDTH), [4])):
        with pytest.raises(EditError, match="does not tell how many tokens"):
            model.generate([44, 9], 1, prompt_cache=cache, interventions={ADDRESS: edit})
    last = {ADDRESS: Where(positions=[-1]).edit(vector)}
    cache = make_prompt_cache(model.model)
    model.generate([5, 17, 3], 1, prompt_cache=cache)
    options: dict[str, Any] = {"interventions": last, "keep_logits": True, "max_tokens": 2}
    found = model.generate([44, 9], prompt_cache=cache, **options)
    whole = model.generate([5, 17, 3, 44, 9], **options)
    assert mx.allclose(found.token_logits, whole.token_logits, atol=1e-3).item()
