"""Edits in the block: what may be assigned, and what is refused."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, EditChangedNothing, EditError, EditNeverFired, TraceError

from .plain_runs import IDS, bare, edited
from .reference import forward
from .test_values import close


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
