"""What edits report after a generation, however many pairs were compared at a time."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.errors import EditChangedNothing
from mlxray.generation import edits

STEPS = 23


def per_step(model: InterpretableModel, prompt: list[int], edit: Any, point: str) -> list[Any]:
    result = model.generate(prompt, STEPS, stop_tokens=[], interventions={point: edit})
    return result.edits


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("point", ["embed", "layers.0.q"])
@pytest.mark.parametrize(("small", "together"), [(0, 16), (10**9, 4), (10**9, 99)])
def test_reports_do_not_depend_on_what_waits(
    models: dict[str, InterpretableModel],
    prompt: list[int],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    point: str,
    small: int,
    together: int,
) -> None:
    """GPT-2 adds positions to what its embedding returns, in place: what waits must not change."""

    model = models[family]

    def bump(x: mx.array) -> mx.array:
        new = mx.array(x)
        new[..., 0] += x.shape[1]
        return new

    point = model.adapter.embed if point == "embed" else point
    expected = per_step(model, prompt, bump, point)
    monkeypatch.setattr(edits, "SMALL", small)
    monkeypatch.setattr(edits, "TOGETHER", together)
    assert per_step(model, prompt, bump, point) == expected
    (report,) = expected
    tokens = len(prompt) + STEPS - 1
    heads = model.layout.heads(0) if point.endswith(".q") else 1
    assert report.changed == tokens * heads
    assert report.fired == STEPS + 1
    widest = heads if heads > 1 else len(prompt) - 1
    assert report.largest_change == pytest.approx(widest, rel=1e-5)


def test_a_last_pass_that_was_ahead_does_not_count(models: dict[str, InterpretableModel]) -> None:
    """The pass after the last step was launched already, and changed more."""
    model, prompt = models["llama"], [5, 17, 3]
    sizes = iter(range(1, 99))

    def growing(x: mx.array) -> mx.array:
        return x + next(sizes)

    steps = model.stream_generate(prompt, 20, stop_tokens=[], interventions={"layers.0": growing})
    written = [step.token for step in steps]
    (report,) = steps.edits
    assert report.fired == len(written) + 1
    assert report.largest_change == pytest.approx(report.fired, rel=1e-5)


def test_changing_nothing_is_still_noticed(models: dict[str, InterpretableModel]) -> None:
    with pytest.raises(EditChangedNothing):
        per_step(models["llama"], [5, 17, 3], lambda x: x * 1, "layers.1.resid_post")


def test_step_that_edits_nothing_keeps_no_graph(models: dict[str, InterpretableModel]) -> None:
    """An edit that ignores what it gets: what it got is computed with its pass, not at the end."""
    seen: list[mx.array] = []

    def replace(x: mx.array) -> mx.array:
        seen.append(x)
        return mx.ones_like(x)

    steps = models["llama"].stream_generate(
        [5, 17, 3], 6, stop_tokens=[], interventions={"layers.1": replace}
    )
    for _ in range(3):
        next(steps)
    mx.synchronize()  # the pass ahead is under way, and frees what it is done with
    before = mx.get_active_memory()
    mx.eval(seen[:4])
    assert mx.get_active_memory() == before
    steps.close()
