"""A trace before, in and after its block; ended by an error; nested, and in threads."""

from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import TraceError

from .plain_runs import IDS, bare, edited
from .reference import forward
from .test_values import close

# A trace's life


def test_reports_tell_what_each_edit_did(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS, {"layers.0.self_attn.rope": lambda x: x + 2}) as trace:
        llama_model.layers[1].output[:, 0, :3] = 100.0
    first, second = trace.reports
    assert (first.address, first.fired, first.changed) == (
        "layers.0.self_attn.rope",
        2,
        4 * 4 * 4 + 2 * 4 * 4,
    )
    assert first.largest_change == pytest.approx(2.0)
    value = llama_model.run_with_cache(
        IDS, ["layers.1"], interventions={"layers.0.self_attn.rope": lambda x: x + 2}
    )[1]["layers.1"]
    assert (second.address, second.fired, second.changed) == ("layers.1", 1, 3)
    assert second.largest_change == pytest.approx(
        mx.max(mx.abs(100 - value[0, 0, :3])).item(), rel=1e-6
    )


def test_the_largest_change_is_over_all_calls(llama_model: InterpretableModel) -> None:
    for first, second in ((5.0, 1.0), (1.0, 5.0)):

        def add(x: mx.array, call: Any, steps: tuple[float, float] = (first, second)) -> mx.array:
            return x + steps[call.index]

        edit = {"layers.0.self_attn.rope": add}
        with llama_model.trace(IDS, edit) as trace:
            pass
        assert trace.reports[0].largest_change == pytest.approx(5.0, rel=1e-6)


def test_reports_and_activations_wait_for_the_end(llama_model: InterpretableModel) -> None:
    trace = llama_model.trace(IDS)
    for act in (lambda: trace.read("layers.0"), lambda: trace.output, trace.names):
        with pytest.raises(TraceError, match="open the trace first"):
            act()
    with trace, pytest.raises(TraceError, match="after the block"):
        trace.reports  # noqa: B018
    assert trace.reports == []
    with pytest.raises(TraceError, match="the trace is over"):
        trace.read("layers.0")
    with pytest.raises(TraceError, match="the trace is over"):
        trace.save("layers.0")
    with pytest.raises(TraceError, match="inside the block"):
        trace.edit("layers.0", iv.zero_out)
    with pytest.raises(TraceError, match="entered before"), trace:
        pass


def test_a_block_that_raised_answers_nothing(
    llama_model: InterpretableModel, untouched: Any
) -> None:
    untouched(llama_model.model)
    trace = llama_model.trace(IDS)
    with pytest.raises(ZeroDivisionError), trace:  # noqa: PT012
        saved = llama_model.layers[0].output.save()
        1 / 0  # noqa: B018
    assert saved.shape == (1, 4, 16)
    for act in (
        lambda: trace.output,
        lambda: trace.read("layers.0"),
        lambda: trace.activations["layers.1"],
        lambda: trace.save("layers.0"),
    ):
        with pytest.raises(TraceError, match="error ended"):
            act()
    with pytest.raises(TraceError):
        trace.edit("layers.0", iv.zero_out)
    with pytest.raises(TraceError):
        trace.reports  # noqa: B018
    with pytest.raises(TraceError), trace:
        pass
    with llama_model.trace(IDS) as good:
        pass
    assert mx.array_equal(good.output, bare(llama_model))


def test_a_hook_that_raises_in_a_trace(llama_model: InterpretableModel, untouched: Any) -> None:
    untouched(llama_model.model)

    def broken(_: mx.array) -> mx.array:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), llama_model.trace(IDS, {("pattern", 1): broken}):
        pass
    with pytest.raises(TraceError, match="with model"):
        llama_model.layers[0].output.save()
    with llama_model.trace(IDS) as trace:
        pass
    assert mx.array_equal(trace.output, bare(llama_model))


# Nested, several models, threads


def test_nested_traces_of_one_model(llama_model: InterpretableModel) -> None:
    other = [9, 8, 7, 6]
    with llama_model.trace(IDS) as outer:
        llama_model.layers[0].output[:, 0] = 0
        with llama_model.trace(other) as inner:
            llama_model.layers[0].output[:, 1] = 0
            seen = llama_model.layers[2].output.save()
        llama_model.layers[1].output[:, 3] = 0
        late = llama_model.layers[2].output.save()

    def zero(position: int) -> Any:
        def change(x: np.ndarray) -> np.ndarray:
            new = x.copy()
            new[:, position] = 0
            return new

        return change

    expected = forward(llama_model.model, other, {("resid_post", 0): zero(1)})
    close(inner.output, expected[0])
    close(seen, expected[1]["resid_post", 2])
    expected = forward(
        llama_model.model, IDS, {("resid_post", 0): zero(0), ("resid_post", 1): zero(3)}
    )
    close(outer.output, expected[0])
    close(late, expected[1]["resid_post", 2])


def test_nested_traces_of_two_models(
    llama_model: InterpretableModel, gpt2_model: InterpretableModel
) -> None:
    with llama_model.trace(IDS) as one, gpt2_model.trace(IDS) as two:
        llama_model.layers[0].output *= 2
        gpt2_model.layers[0].output *= 3
        first = llama_model.layers[1].output.save()
        second = gpt2_model.layers[1].output.save()
    for model, trace, saved, factor in (
        (llama_model, one, first, 2),
        (gpt2_model, two, second, 3),
    ):
        logits, values = forward(
            model.model, IDS, {("resid_post", 0): lambda x, factor=factor: factor * x}
        )
        close(trace.output, logits, scale=2)
        close(saved, values["resid_post", 1], scale=2)


def test_a_trace_in_a_hook_of_a_trace(llama_model: InterpretableModel) -> None:
    """The hook runs the same model, instrumented, and puts in what it found there."""
    other = [9, 8, 7, 6]

    def from_other(_: mx.array) -> mx.array:
        with llama_model.trace(other):
            return llama_model.layers[0].output.save()

    with llama_model.trace(IDS, {"layers.0": from_other}) as trace:
        pass
    donor = forward(llama_model.model, other)[1]["resid_post", 0]
    close(trace.output, edited(llama_model, {("resid_post", 0): lambda _: donor}))


def test_other_threads_do_not_see_an_open_trace(llama_model: InterpretableModel) -> None:
    outcomes: list[Any] = []

    def work() -> None:
        try:
            llama_model.layers[0].output.save()
        except TraceError:
            outcomes.append("refused")
        outcomes.append(llama_model.run_with_hooks(IDS).tolist())

    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output *= 2
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert outcomes == ["refused", bare(llama_model).tolist()]
    assert not mx.allclose(trace.output, bare(llama_model), atol=1e-3)
