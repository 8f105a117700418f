"""What was made in one thread is used in another, where MLX cannot compute what was left lazy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import InterpretableModel, get_activations, registry
from mlxray import interventions as iv
from mlxray.analyses import steering
from mlxray.analyses.attention import AttentionPatternDetector, ov_circuit
from mlxray.analyses.conversation import cut_turns
from mlxray.arrays import arrays_of
from mlxray.conversation import detect_turns
from mlxray.errors import ThreadError
from mlxray.generation import Where

from .every_analysis import CALLS, CHAT, FRANCE, ITALY, SWAPS, TEXTS


@pytest.fixture(scope="module")
def pocket() -> InterpretableModel:
    return InterpretableModel("pocket")


def in_a_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises, from a thread that is over."""
    outcome: list[Any] = []

    def guarded() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)
        mx.clear_streams()

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def use(value: Any) -> int:
    """Read every array in `value`, and count them."""
    found = arrays_of(vars(value) if hasattr(value, "__dict__") else value)
    for array in found:
        np.array(array.astype(mx.float32))
    return len(found)


def test_every_analysis_has_a_call_here() -> None:
    own = {row.name for row in registry.rows() if row.kind == "analysis"}
    assert {name for name in own if row_of(name).distribution == "mlxray"} == set(CALLS)


def row_of(name: str) -> Any:
    return next(row for row in registry.rows() if (row.kind, row.name) == ("analysis", name))


@pytest.mark.parametrize("name", CALLS)
def test_results(pocket: InterpretableModel, name: str, tmp_path: Path) -> None:
    folder = [tmp_path] if name.startswith("load_") else []
    result = in_a_thread(lambda: CALLS[name](pocket, *folder))
    use(result)
    result.to_json()
    result.to_markdown()


def vector_of(model: InterpretableModel) -> Any:
    return steering.steering_vector(model, [FRANCE], [ITALY], layers=[1])


def traced(model: InterpretableModel) -> Any:
    with model.conversation_trace(CHAT) as trace:
        pass
    return trace


MADE: dict[str, Callable[[InterpretableModel], Any]] = {
    "get_activations": lambda m: get_activations(m, FRANCE, [1]),
    "gradients": lambda m: m.gradients(FRANCE, lambda x: x.sum(), ["layers.1"])[1],
    "ov_circuit": lambda m: ov_circuit(m, 1, 0),
    "steering vector": vector_of,
    "direction": lambda m: vector_of(m).direction(1),
    "shift": lambda m: vector_of(m).shift("layers.1.resid_post", 2.0),
    "probe": lambda m: steering.contrast_probe(m, [FRANCE], [ITALY], layer=1),
    "detector": lambda m: AttentionPatternDetector(0.4).analyze_head(
        m.get_attention_patterns(FRANCE)[1][0, 0]
    ),
    "steps": lambda m: list(m.stream_generate(FRANCE, max_tokens=3, watch=["layers.1"])),
    "generation": lambda m: m.generate(FRANCE, max_tokens=3, watch=["layers.1"]),
    "unembedding": lambda m: m.get_token_predictions(mx.ones((128,)), return_scores=True),
    "turn activation": lambda m: traced(m).get_turn_activation(0, "layers.1"),
    "turn attention": lambda m: traced(m).turn_attention([1]),
    "turn matrix": lambda m: traced(m).cross_turn_attention(layer=1),
}


@pytest.mark.parametrize("name", MADE)
def test_what_public_functions_return(pocket: InterpretableModel, name: str) -> None:
    found = in_a_thread(lambda: MADE[name](pocket))
    use(found)


EDITS: dict[str, Callable[[InterpretableModel], Any]] = {
    "add_vector": lambda m: {"layers.1": iv.add_vector(mx.ones(128) * 2)},
    "replace_with": lambda m: {"layers.1": iv.replace_with(mx.ones(128) * 2)},
    "replace_at_positions": lambda m: {
        "layers.1": iv.replace_at_positions(mx.ones((1, 1, 128)) * 2, [0])
    },
    "steering": lambda m: vector_of(m).at(1.5),
    "ablate_direction": lambda m: {"layers.1": steering.ablate_direction(mx.ones(128) * 2)},
    "ablate_stream": lambda m: steering.ablate_stream(m, mx.ones(128) * 2),
    "eraser": lambda m: m.concept_erasure(**TEXTS).eraser().edit(),
    "interchange": lambda m: (
        m.distributed_alignment_search(SWAPS, layers=[1], steps=1, draws=1)
        .subspace()
        .interchange(m, ITALY)
    ),
    "probe's condition": lambda m: steering.only_while(
        m.linear_probe(**TEXTS, kind="mass_mean").probe().condition(),
        {"layers.2": iv.add_vector(mx.ones(128) * 2)},
    ),
    "only_while": lambda m: steering.only_while(
        steering.contrast_probe(m, [FRANCE], [ITALY], layer=0), vector_of(m).at(1.5)
    ),
    "where": lambda m: {"layers.1": Where(generated=False).edit(iv.add_vector(mx.ones(128) * 2))},
}


@pytest.mark.parametrize("name", EDITS)
def test_what_edits_capture(pocket: InterpretableModel, name: str) -> None:
    edits = in_a_thread(lambda: EDITS[name](pocket))
    steps = list(pocket.stream_generate(FRANCE, max_tokens=2, interventions=edits))
    assert len(steps) == 2


def test_cut_turns(pocket: InterpretableModel) -> None:
    turns = detect_turns(pocket.tokenizer, CHAT)
    edits = in_a_thread(lambda: cut_turns(pocket, turns, [0]))
    with pocket.conversation_trace(CHAT, edits) as trace:
        pass
    assert np.isfinite(np.array(trace.trace.output)).all()


def test_weights_that_were_changed(make: Any) -> None:
    model = make("llama")
    before = model.run_with_hooks([1, 2, 3])
    edit = in_a_thread(lambda: steering.orthogonalize_weights(model, mx.ones(32) * 2))
    assert not mx.allclose(model.run_with_hooks([1, 2, 3]), before, atol=1e-3)
    in_a_thread(edit.undo)
    assert mx.array_equal(model.run_with_hooks([1, 2, 3]), before)


def test_a_parameter_that_another_thread_left_lazy_is_told(make: Any) -> None:
    model = make("llama")
    model.run_with_hooks([1, 2])
    norm: nn.RMSNorm = model.model.model.norm
    norm.weight = norm.weight * 2
    with pytest.raises(ThreadError, match="another thread"):
        in_a_thread(lambda: model.run_with_hooks([1, 2]))
    mx.eval(model.model.parameters())
    assert in_a_thread(lambda: model.run_with_hooks([1, 2])).shape == (1, 2, 61)


def test_an_undo_that_was_broken_off_goes_on(make: Any) -> None:
    model = make("llama")
    before = model.run_with_hooks([1, 2, 3])
    edit = steering.orthogonalize_weights(model, mx.ones(32) * 2)
    module, name, old, _ = edit._changes[0]
    module[name] = old  # what an exception leaves of it
    edit.undo()
    assert mx.array_equal(model.run_with_hooks([1, 2, 3]), before)
