"""The block: what is read, saved and assigned in it, and what it answers afterwards."""

from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, EditChangedNothing, EditError, EditNeverFired, TraceError

from .reference import PER_LAYER, forward
from .test_values import close

IDS = [3, 5, 7, 2]


def bare(model: InterpretableModel, ids: Any = IDS) -> mx.array:
    return model.model(mx.array([ids]))


def edited(model: InterpretableModel, edits: Any, ids: Any = IDS) -> np.ndarray:
    return forward(model.model, ids, edits)[0]


# Reading and saving


def test_save_returns_the_array_and_keeps_it_by_name(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        block = llama_model.layers[1].output.save()
        attn = llama_model.layers[1].self_attn.output.save()
        named = llama_model.layers[-1].mlp.output.save("mine")
        entering = llama_model.layers[1].input.save()
        out = llama_model.output.save()
    assert list(trace.saved_values) == [
        "layers.1.output",
        "layers.1.self_attn.output",
        "mine",
        "layers.1.input",
        "output",
    ]
    cache = llama_model.activations(
        IDS, ["layers.1", "layers.1.self_attn", "layers.2.mlp", "layers.0"]
    )
    assert mx.array_equal(block, cache["layers.1"])
    assert mx.array_equal(attn, cache["layers.1.self_attn"])
    assert mx.array_equal(named, cache["layers.2.mlp"])
    assert mx.array_equal(entering, cache["layers.0"])
    assert mx.array_equal(out, bare(llama_model))
    assert mx.array_equal(trace.output, out)
    assert trace.get("mine") is not None and trace.get("nothing") is None


def test_a_name_of_ones_own_does_not_shadow_an_address(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output.save("layers.1")
    expected = llama_model.activations(IDS, ["layers.1"])["layers.1"]
    assert mx.array_equal(trace.activations["layers.1"], expected)


def test_activations_are_the_final_ones_even_where_an_earlier_value_was_saved(
    llama_model: InterpretableModel,
) -> None:
    with llama_model.trace(IDS) as trace:
        before = trace.save("layers.0")
        trace.edit("layers.0", iv.scale(2.0))
    assert mx.allclose(trace.activations["layers.0"], 2 * before, atol=1e-6)
    assert mx.array_equal(trace.get("layers.0"), before)


def test_reads_above_an_edit_see_the_unedited_value_and_reads_below_the_edited_one(
    llama_model: InterpretableModel,
) -> None:
    model = llama_model
    with model.trace(IDS):
        one = model.layers[1].output.save("one")
        model.layers[0].output = model.layers[0].output * 2
        two = model.layers[1].output.save("two")
        model.layers[0].mlp.output[:, -1] = 0
        three = model.layers[1].output.save("three")
        four = model.layers[0].output.save("four")
    double = {("resid_post", 0): lambda x: 2 * x}
    place = ("resid_post", 1)
    close(one, forward(model.model, IDS)[1][place])
    close(two, forward(model.model, IDS, double)[1][place])
    # The value assigned above was computed there: it stays what it was.
    close(three, forward(model.model, IDS, double)[1][place])
    close(four, 2 * forward(model.model, IDS)[1]["resid_post", 0])


def test_a_function_edit_is_made_again_from_what_reaches_it(
    llama_model: InterpretableModel,
) -> None:
    with llama_model.trace(IDS) as trace:
        trace.edit("layers.0", lambda x: 2 * x)
        trace.edit(("mlp_out", 0), lambda x: 0 * x)
    edits = {("resid_post", 0): lambda x: 2 * x, ("mlp_out", 0): lambda x: 0 * x}
    close(trace.output, edited(llama_model, edits), scale=2)


def test_looking_is_lazy_and_arithmetic_works(llama_model: InterpretableModel) -> None:
    model = llama_model
    cache = model.activations(IDS, ["layers.0", "layers.1"])
    a, b = cache["layers.0"], cache["layers.1"]
    with model.trace(IDS):
        x, y = model.layers[0].output, model.layers[1].output
        assert x.shape == (1, 4, 16)
        assert len(x) == 1
        found = {
            "sum": x + y,
            "difference": 1 - x,
            "product": 3 * x,
            "quotient": x / 2,
            "matrix": x @ mx.ones((16, 2)),
            "negative": -x,
            "absolute": abs(x),
            "power": x**2,
            "above": x > y,
            "equal": x == y,
            "other": x != y,
            "part": x[0, -1],
            "method": x.sum(axis=-1),
            "function": mx.exp(x),
            "two": mx.maximum(x, y),
            "numpy": mx.array(np.array(x)),
            "rows": next(iter(x)),
        }
    expected = {
        "sum": a + b,
        "difference": 1 - a,
        "product": 3 * a,
        "quotient": a / 2,
        "matrix": a @ mx.ones((16, 2)),
        "negative": -a,
        "absolute": mx.abs(a),
        "power": a**2,
        "above": a > b,
        "equal": a == b,
        "other": a != b,
        "part": a[0, -1],
        "method": a.sum(axis=-1),
        "function": mx.exp(a),
        "two": mx.maximum(a, b),
        "numpy": a,
        "rows": a[0],
    }
    for name, value in expected.items():
        assert isinstance(found[name], mx.array), name
        assert mx.allclose(found[name], value, atol=1e-6), name


def test_inputs_that_no_point_needs_are_kept_once_they_are_asked_for(
    any_model: InterpretableModel,
) -> None:
    """The run starts over with them; noise and what was read before stay the same."""
    attn = "attn.c_attn" if any_model.model.model_type == "gpt2" else "self_attn.q_proj"
    address = f"layers.1.{attn}.input"
    norm = "ln_1" if any_model.model.model_type == "gpt2" else "input_layernorm"
    mx.random.seed(3)
    with any_model.trace(IDS, {"layers.0": iv.noise(0.2)}) as trace:
        before = any_model.layers[0].output.save("before")
        entering = trace.save(address)
        assert mx.array_equal(trace.read(f"layers.1.{norm}"), entering)
        assert mx.array_equal(trace.read(f"layers.1.{attn}.input"), entering)
        after = any_model.layers[0].output.save("after")
        any_model.layers[0].output[..., 0] += 3
        assert not mx.allclose(trace.read(address), entering, atol=1e-3)
    assert mx.array_equal(before, after)
    assert mx.array_equal(trace.activations[f"layers.1.{attn}.input"], trace.activations[address])
    fresh = any_model.run_with_cache(IDS, [address])[1][address]
    assert fresh.shape == entering.shape


# Assigning


def test_assigning_the_output_edits_the_run(any_model: InterpretableModel) -> None:
    with any_model.trace(IDS) as trace:
        any_model.layers[0].output = mx.zeros((1, 4, any_model.layers[0].output.shape[-1]))
    expected = edited(any_model, {("resid_post", 0): np.zeros_like})
    close(trace.output, expected)
    assert not mx.allclose(trace.output, bare(any_model), atol=1e-3)


def test_assigning_a_part_edits_the_part(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output[:, -1] = 0

    def last_zero(x: np.ndarray) -> np.ndarray:
        new = x.copy()
        new[:, -1] = 0
        return new

    close(trace.output, edited(llama_model, {("resid_post", 0): last_zero}))
    clean = bare(llama_model)
    assert mx.allclose(trace.output[:, :3], clean[:, :3], atol=1e-5)
    assert not mx.allclose(trace.output[:, 3], clean[:, 3], atol=1e-3)
    assert trace.reports[0].changed == 16


@pytest.mark.parametrize(
    ("statement", "theirs"),
    [
        ("at.output += 1", lambda x: x + 1),
        ("at.output -= 2", lambda x: x - 2),
        ("at.output *= 3", lambda x: x * 3),
        ("at.output /= 2", lambda x: x / 2),
        ("at.output = 2 * at.output", lambda x: 2 * x),
        ("at.output = at.input", None),
        ("at.output = 0.5", lambda x: np.full_like(x, 0.5)),
        ("at.output[:] = 0", np.zeros_like),
        ("at.output[...] *= 2", lambda x: 2 * x),
        ("at.output[:, -2:] += 1", lambda x: x + np.array([0, 0, 1, 1])[None, :, None]),
        ("at.output[0, 1, 2] = 9", "one"),
    ],
)
def test_every_form_of_assignment(
    llama_model: InterpretableModel, statement: str, theirs: Any
) -> None:
    if theirs is None:
        pre = forward(llama_model.model, IDS)[1]["resid_pre", 1]

        def theirs(x: np.ndarray) -> np.ndarray:
            return pre

    elif theirs == "one":

        def theirs(x: np.ndarray) -> np.ndarray:
            new = x.copy()
            new[0, 1, 2] = 9
            return new

    with llama_model.trace(IDS) as trace:
        exec(statement, {"at": llama_model.layers[1]})
    close(trace.output, edited(llama_model, {("resid_post", 1): theirs}), scale=2)


def test_assigning_input_and_model_output(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[1].input = llama_model.layers[1].input * 2
    close(trace.output, edited(llama_model, {("resid_pre", 1): lambda x: 2 * x}), scale=2)
    with llama_model.trace(IDS) as trace:
        llama_model.output = llama_model.output * 3
        llama_model.output[:, 0] = 1
    clean = np.array(bare(llama_model))
    expected = 3 * clean
    expected[:, 0] = 1
    close(trace.output, expected)


def test_assigning_one_activation_to_another(llama_model: InterpretableModel) -> None:
    first = forward(llama_model.model, IDS)[1]["resid_post", 0]
    expected = edited(llama_model, {("resid_post", 1): lambda _: first})
    with llama_model.trace(IDS) as trace:
        llama_model.layers[1].output = llama_model.layers[0].output
    close(trace.output, expected)
    with llama_model.trace(IDS) as trace:
        trace.edit("layers.1", llama_model.layers[0].output)
    close(trace.output, expected)
    with llama_model.trace(IDS) as trace:
        trace.edit("layers.1", iv.replace_with(llama_model.layers[0].output))
    close(trace.output, expected)


def test_patching_from_another_trace(llama_model: InterpretableModel) -> None:
    other = [9, 8, 7, 6]
    with llama_model.trace(other):
        donor = llama_model.layers[0].output.save()
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output[:, 2] = donor[:, 2]
    theirs = forward(llama_model.model, other)[1]["resid_post", 0]

    def patched(x: np.ndarray) -> np.ndarray:
        new = x.copy()
        new[:, 2] = theirs[:, 2]
        return new

    close(trace.output, edited(llama_model, {("resid_post", 0): patched}))


@pytest.mark.parametrize(
    "statement",
    [
        "model.layers[0].output = 0",
        "model.layers[0].output += 1",
        "model.layers[0].output[:, -1] = 0",
        "model.layers[0].input = 0",
        "model.output = 0",
        "model.output[0] = 0",
        "model.layers[0].output.save()",
        "model.layers[0].output.shape",
        "model.layers[0].output + 1",
    ],
)
def test_outside_a_block_it_raises_and_says_what_to_write(
    llama_model: InterpretableModel, statement: str
) -> None:
    names = {"model": llama_model, "mx": mx}
    with pytest.raises(TraceError, match=r"with model\.trace"):
        exec(statement, names)
    with llama_model.trace(IDS):
        pass
    with pytest.raises(TraceError, match=r"with model\.trace"):
        exec(statement, names)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("model.layers[0].outptu = 0", "outptu"),
        ("model.layers[0].output.shape = 0", "shape"),
        ("model.layers[0] = 0", "layer 0"),
        ("model.layers[0].mlp = 0", "mlp"),
        ("model.layers[0].mlp.gate_proj.weight = 0", "weight"),
    ],
)
def test_other_assignments_raise(
    llama_model: InterpretableModel, statement: str, fault: str
) -> None:
    for inside in (True, False):
        if inside:
            with pytest.raises(TraceError, match=fault), llama_model.trace(IDS):
                exec(statement, {"model": llama_model})
        else:
            with pytest.raises(TraceError, match=fault):
                exec(statement, {"model": llama_model})


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (mx.zeros((2, 4, 16)), r"\(2, 4, 16\)"),
        (mx.zeros((1, 5, 16)), r"\(1, 5, 16\)"),
        (None, "NoneType"),
        ("text", "str"),
        ({}, "dict"),
    ],
)
def test_values_that_do_not_fit(llama_model: InterpretableModel, value: Any, fault: str) -> None:
    with pytest.raises(EditError, match=fault), llama_model.trace(IDS):
        llama_model.layers[0].output = value


def test_edits_that_do_nothing_raise_at_the_end(llama_model: InterpretableModel) -> None:
    with pytest.raises(EditChangedNothing, match=r"layers\.0"), llama_model.trace(IDS) as trace:
        llama_model.layers[0].output = llama_model.layers[0].output
    with pytest.raises(TraceError, match="error ended"):
        trace.output  # noqa: B018
    with pytest.raises(EditNeverFired, match="rope#5"), llama_model.trace(IDS) as trace:
        trace.edit("layers.0.self_attn.rope#5", iv.zero_out)
    with llama_model.trace(IDS, {"layers.0": iv.scale(1.0)}, allow_unchanged=True) as trace:
        pass
    assert mx.array_equal(trace.output, bare(llama_model))


def test_unknown_addresses_raise_at_once(llama_model: InterpretableModel) -> None:
    with pytest.raises(AddressError, match="mlp"):
        llama_model.trace(IDS, {"layers.0.mpl": iv.zero_out})
    with llama_model.trace(IDS) as trace:
        with pytest.raises(AddressError):
            trace.edit("layers.9", iv.zero_out)
        with pytest.raises(AddressError):
            trace.read("layers.0.attn_outt")
        with pytest.raises(AttributeError):
            llama_model.layers[0].attention  # noqa: B018
        with pytest.raises(AddressError):
            llama_model.layers[3]
    assert not trace.reports


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


# Afterwards


def test_every_name_and_every_point_answers_afterwards(any_model: InterpretableModel) -> None:
    _, expected = forward(any_model.model, IDS)
    _, cache = any_model.run_with_cache(IDS)
    with any_model.trace(IDS) as trace:
        any_model.output.save()
    names = list(trace.activations)
    assert names == [name for name, _ in any_model.named_modules() if name]
    assert len(trace.activations) == len(names)
    for name, value in trace.activations.items():
        kept = cache[name]
        if isinstance(value, tuple):
            assert name.endswith("rope") and len(value) == 2
            assert all(mx.array_equal(a, b) for a, b in zip(value, kept, strict=True))
            assert mx.array_equal(trace.activations[name + "#1"], value[1])
        else:
            assert mx.array_equal(value, kept), name
        assert name in trace.activations
    for place, value in expected.items():
        if place[0] != "scores":
            close(trace.activations[place], value)
    assert "layers.0.nothing" not in trace.activations
    assert 7 not in trace.activations
    with pytest.raises(AddressError, match="nothing at"):
        trace.activations["layers.0.nothing"]
    assert mx.array_equal(trace.get_activation("layers.1"), cache["layers.1"])


def test_activations_in_the_block_follow_the_edits(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        early = trace.activations["layers.1"]
        assert len(trace.activations) == len(list(llama_model.named_modules())) - 1
        llama_model.layers[0].output *= 2
        late = trace.activations["layers.1"]
    assert mx.array_equal(early, llama_model.activations(IDS, ["layers.1"])["layers.1"])
    assert mx.array_equal(late, trace.activations["layers.1"])
    assert not mx.allclose(early, late, atol=1e-3)


def test_activations_afterwards_are_the_edited_ones(llama_model: InterpretableModel) -> None:
    points = [(name, layer) for name in PER_LAYER for layer in range(3)]
    edits = {("pattern", 0): lambda x: x / 2, ("resid_post", 1): lambda x: x + 1}
    _, expected = forward(llama_model.model, IDS, edits)
    with llama_model.trace(IDS, edits) as trace:
        pass
    for place, value in zip(points, trace.activations.fetch(points), strict=True):
        if place[0] != "scores":
            close(value, expected[place], scale=2)


def test_changed_parameters_are_noticed(make: Any) -> None:
    model = InterpretableModel(make.llama())
    with model.trace(IDS) as trace:
        saved = trace.save("layers.0")
    weight = model.model.model.layers[2].mlp.down_proj.weight
    model.model.model.layers[2].mlp.down_proj.weight = weight + 1e-3
    with pytest.raises(TraceError, match="parameters changed"):
        trace.activations["layers.1"]
    assert mx.array_equal(trace.activations["layers.0"], saved)  # was kept, not computed again
    model.model.model.layers[2].mlp.down_proj.weight = weight
    assert trace.activations["layers.1"].shape == (1, 4, 16)


def test_an_edit_with_a_memory_is_noticed(llama_model: InterpretableModel) -> None:
    seen: list[int] = []

    def unsteady(x: mx.array) -> mx.array:
        seen.append(1)
        return x + len(seen)

    with llama_model.trace(IDS, {"layers.0": unsteady}) as trace:
        pass
    with pytest.raises(TraceError, match="not a function of its input"):
        trace.activations["layers.1"]


def test_random_edits_are_the_same_again_and_the_stream_goes_on(
    llama_model: InterpretableModel,
) -> None:
    edits = {"layers.0": iv.noise(0.5), ("pattern", 1): iv.noise(0.1)}

    def draw() -> list[float]:
        return mx.random.normal((4,)).tolist()

    mx.random.seed(11)
    with llama_model.trace(IDS, edits) as trace:
        saved = llama_model.layers[2].output.save()
    without = draw()
    mx.random.seed(11)
    with llama_model.trace(IDS, edits) as again:
        pass
    assert mx.array_equal(trace.output, again.output)
    assert mx.array_equal(trace.activations["layers.2"], saved)
    for name in ("layers.1", "layers.0", ("pattern", 1), "embed"):
        assert mx.array_equal(again.activations[name], trace.activations[name])
    assert draw() == without


def test_random_edits_with_reads_in_between_are_one_draw(llama_model: InterpretableModel) -> None:
    """Each edit starts the run over: the noise that was seen must stay the same noise."""
    with llama_model.trace(IDS, {"layers.0": iv.noise(0.5)}) as trace:
        first = llama_model.layers[0].output.save("first")
        llama_model.layers[1].output += 1
        second = llama_model.layers[0].output.save("second")
        llama_model.layers[2].output += 1
    assert mx.array_equal(first, second)
    assert mx.array_equal(trace.activations["layers.0"], first)


def test_two_random_traces_differ(llama_model: InterpretableModel) -> None:
    outputs = []
    for _ in range(2):
        with llama_model.trace(IDS, {"layers.0": iv.noise(0.5)}) as trace:
            pass
        outputs.append(trace.output)
    assert not mx.array_equal(*outputs)


def test_nothing_but_what_was_saved_is_held(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        llama_model.layers[0].output.save()
    held = [value for value in vars(trace).values() if isinstance(value, mx.array)]
    assert len(held) == 1 and held[0].shape == (1, 4, 31)
    assert trace._run is None


def test_a_batch_of_texts_and_unequal_lengths(llama_model: InterpretableModel) -> None:
    with llama_model.trace(["ab", "wxyz"]) as trace:
        saved = llama_model.layers[1].output.save()
    assert trace.batch.lengths == (3, 5)
    assert saved.shape == (2, 5, 16)
    for row, text in enumerate(("ab", "wxyz")):
        alone = llama_model.run_with_hooks(text)
        assert mx.allclose(trace.output[row, : alone.shape[1]], alone[0], atol=1e-5)
