"""What a trace asks of the model: how many passes, and how many modules are watched in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.arrays import arrays_of
from mlxray.run import run

IDS = [3, 5, 7, 2]


@pytest.fixture
def passes(llama_model: InterpretableModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each pass of a run: how many modules were watched in it. No trace was made before."""
    llama_model.layout.refresh()
    plain, found = run.Run.execute, []

    def counted(self: run.Run, *args: Any, **kwargs: Any) -> Any:
        found.append(len(self.handlers))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(run.Run, "execute", counted)
    return found


def test_a_trace_without_reads_watches_nothing(
    llama_model: InterpretableModel, passes: list[int]
) -> None:
    with llama_model.trace(IDS) as trace:
        pass
    with llama_model.trace(IDS, {"layers.1": iv.scale(2.0)}):
        pass
    assert passes == [0, 1]
    assert mx.array_equal(trace.output, llama_model.model(mx.array([IDS])))


def test_what_was_read_before_after_the_same_first_read_is_planned(
    llama_model: InterpretableModel, passes: list[int]
) -> None:
    modules = len(set(map(id, llama_model.layout.modules.values())))

    def read() -> list[mx.array]:
        with llama_model.trace(IDS):
            first = llama_model.layers[1].output.save()
            second = llama_model.layers[0].mlp.output.save()
        return [first, second]

    new = read()
    assert passes == [modules]
    known = read()
    assert passes == [modules, 2]
    assert all(map(mx.array_equal, new, known))
    llama_model.layout.refresh()
    read()
    assert passes == [modules, 2, modules]


def test_another_second_read_builds_the_pass_once_more(
    llama_model: InterpretableModel, passes: list[int]
) -> None:
    modules = len(set(map(id, llama_model.layout.modules.values())))
    edits = {"layers.0": iv.noise(0.3)}
    everything = llama_model.layout.modules

    def read(*paths: str) -> list[Any]:
        mx.random.seed(4)
        passes.clear()
        with llama_model.trace(IDS, edits) as trace:
            return [trace.save(path) for path in paths]

    (alone,) = read("layers.1")
    assert passes == [modules]
    together = read("layers.1", "layers.0", "layers.2.mlp")
    assert passes == [2, modules]  # the edit's module and the read one, then everything
    again = read("layers.1", "layers.0", "layers.2.mlp")
    assert passes == [3]
    assert mx.array_equal(alone, together[0])
    assert all(map(mx.array_equal, together, again))
    paths = [path for path in everything if path][:9]
    read("layers.1", *paths)
    assert len(passes) == 2
    read("layers.1", *paths)
    assert len(passes) == 1


def test_reads_below_an_edit_are_planned_for_themselves(
    llama_model: InterpretableModel, passes: list[int]
) -> None:
    def read() -> tuple[mx.array, mx.array]:
        with llama_model.trace(IDS):
            before = llama_model.layers[1].output.save("before")
            llama_model.layers[0].output = mx.zeros((1, 4, 16))
            after = llama_model.layers[1].output.save("after")
        return before, after

    read()
    passes.clear()
    before, after = read()
    assert passes == [1, 2]
    assert not mx.allclose(before, after, atol=1e-3)


def test_names_and_points_are_there_after_a_planned_read(llama_model: InterpretableModel) -> None:
    for _ in range(2):
        with llama_model.trace(IDS) as trace:
            llama_model.layers[1].output.save()
            named = trace.names()
            assert trace.read(("pattern", 2)).shape == (1, 4, 4, 4)
            assert trace.read("layers.0.self_attn.q_proj.input").shape == (1, 4, 16)
            assert trace.output.shape == llama_model.output.shape
        assert "layers.2.mlp" in {llama_model.layout.short(name) for name in named}
        assert trace.names() == named


# Random numbers


def test_a_later_read_of_an_unedited_trace_draws_the_same_numbers(make: Any) -> None:
    raw = make.llama()
    raw.model.norm = nn.Sequential(raw.model.norm, nn.Dropout(0.5))
    raw.train()
    model = InterpretableModel(raw)
    with model.trace(IDS) as trace:
        saved = trace.save("layers.1")
    other = mx.random.uniform(shape=(3,))
    assert mx.array_equal(trace.activations["final_norm"], trace.activations["final_norm"])
    assert mx.array_equal(trace.activations["layers.1"], saved)
    with model.trace(IDS) as second:
        pass
    assert not mx.array_equal(second.output, trace.output)
    assert not mx.array_equal(other, mx.random.uniform(shape=(3,)))


# Walking over the activations


@contextmanager
def calls_of(model: InterpretableModel) -> Iterator[list[int]]:
    kind, calls = type(model.model), []
    plain = kind.__call__
    kind.__call__ = lambda self, *a, **k: (calls.append(1), plain(self, *a, **k))[1]
    try:
        yield calls
    finally:
        kind.__call__ = plain


def same(one: Any, other: Any) -> bool:
    pairs = zip(arrays_of(one), arrays_of(other), strict=True)
    return all(bool(mx.array_equal(a, b)) for a, b in pairs)


def test_going_through_the_activations_is_one_run(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS, {"layers.0": iv.noise(0.3)}) as trace:
        pass
    names = trace.names()
    one_by_one = {name: trace.activations[name] for name in names[:4]}
    trace._final.clear()
    with calls_of(llama_model) as calls:
        pairs = dict(trace.activations.items())
        assert len(calls) == 1
        values = list(trace.activations.values())
        assert len(calls) == 2
        for name in trace.activations:
            assert same(trace.activations[name], trace.activations[name])
        assert len(calls) == 3
    assert list(pairs) == names
    for name, value in one_by_one.items():
        assert same(pairs[name], value)
    assert len(values) == len(names)


def test_a_walk_lets_go_of_what_it_passed(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        pass
    steps = iter(trace.activations.items())
    next(steps)
    walk = trace._walk
    assert walk is not None
    left = len(walk.values)
    next(steps)
    assert len(walk.values) == left - 1
    steps.close()
    assert trace._walk is None
    inside = []
    with llama_model.trace(IDS) as trace:
        inside += [value.shape for _, value in trace.activations.items() if hasattr(value, "shape")]
    assert inside
