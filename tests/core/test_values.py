"""Every hook point holds what its definition says, and an edit there does what it says.

The oracle is `reference.py`: NumPy, float64, no line of mlxray.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.errors import PointAbsent
from mlxray.points.status import where
from mlxray.points.vocabulary import POINTS

from .reference import PER_LAYER, WHOLE, forward, numbers

IDS = [[3, 5, 7, 2, 11], [1, 30, 4, 4, 9]]


def close(ours: Any, theirs: np.ndarray, *, scale: float = 1.0) -> None:
    got = numbers(ours) if isinstance(ours, mx.array) else np.asarray(ours)
    assert got.shape == theirs.shape
    limit = 2e-5 * scale * max(1.0, np.abs(theirs[np.isfinite(theirs)]).max())
    np.testing.assert_allclose(got, theirs, rtol=0, atol=limit)


def test_the_oracle_computes_the_same_model(any_model: InterpretableModel) -> None:
    logits, _ = forward(any_model.model, IDS)
    close(any_model.model(mx.array(IDS)), logits)


def test_every_point_is_what_its_definition_says(any_model: InterpretableModel) -> None:
    _, expected = forward(any_model.model, IDS)
    cache = any_model.activations(mx.array(IDS), list(expected))
    assert {*expected} == {
        *WHOLE,
        *((n, i) for n in PER_LAYER for i in any_model.layer_indices(None)),
    }
    for place, value in expected.items():
        got = numbers(cache[place])
        if place[0] == "scores":  # masked: the model's own most negative number, or -inf
            got = np.where(np.isfinite(value), got, -np.inf)
        close(got, value)


def test_the_other_points_of_the_vocabulary_are_refused(any_model: InterpretableModel) -> None:
    for name, point in POINTS.items():
        if name not in (*WHOLE, *PER_LAYER):
            with pytest.raises(PointAbsent, match=name):
                any_model.activations(IDS, [(name, 0) if point.per_layer else name])


def test_watching_everything_gives_the_same_values(any_model: InterpretableModel) -> None:
    _, expected = forward(any_model.model, IDS)
    _, cache = any_model.run_with_cache(mx.array(IDS))
    for place, value in expected.items():
        if "head_out" not in place and "scores" not in place:
            close(cache[place], value)


def bend(shape: tuple[int, ...]) -> np.ndarray:
    """A fixed array that is different everywhere."""
    return np.cos(np.arange(int(np.prod(shape)), dtype=np.float64)).reshape(shape)


@pytest.mark.parametrize("place", [*WHOLE, *((name, 1) for name in PER_LAYER)], ids=str)
def test_an_edit_changes_exactly_what_follows_from_it(
    any_model: InterpretableModel, place: Any
) -> None:
    """x → x/2 + something that differs everywhere, compared in the logits and at every point."""

    def theirs(x: np.ndarray) -> np.ndarray:
        return 0.5 * x + bend(x.shape)

    def ours(x: mx.array) -> mx.array:
        return 0.5 * x + mx.array(bend(x.shape), dtype=mx.float32)

    logits, expected = forward(any_model.model, IDS, {place: theirs})
    clean, _ = forward(any_model.model, IDS)
    assert np.abs(logits - clean).max() > 1e-3
    close(any_model.run_with_hooks(mx.array(IDS), [(place, ours)]), logits, scale=4)
    with any_model.trace(mx.array(IDS)) as trace:
        trace.edit(place, ours)
        seen = {p: trace.read(p) for p in expected if "scores" not in p}
    for p, value in seen.items():
        if not same_call(any_model, place, p):
            close(value, expected[p], scale=4)


def same_call(model: InterpretableModel, edited: Any, other: Any) -> bool:
    """Whether an edit shows at a point of the same layer that a definition puts before it.

    Without post-norms `attn_out` and `attn_add` are one call, and an edit of `resid_mid` is made
    by way of what attention adds.
    """
    if edited == ("resid_mid", 1):
        return same_call(model, ("attn_add", 1), other) or other == ("attn_add", 1)
    site = model.layout.site
    return other != edited and where(site(other)) == where(site(edited)) and other[0][-3:] == "out"


@pytest.mark.parametrize("point", ["scores", "pattern", "z", "head_out", "q", "k", "v"])
def test_one_head_edited_leaves_the_others(any_model: InterpretableModel, point: str) -> None:
    """Twice the weight on the first key, in head 1 alone."""

    def theirs(x: np.ndarray) -> np.ndarray:
        new = x.copy()
        new[:, 1, :, 0] = 2 * new[:, 1, :, 0] + 1
        return new

    def ours(x: mx.array) -> mx.array:
        new = mx.array(x)
        new[:, 1, :, 0] = 2 * new[:, 1, :, 0] + 1
        return new

    logits, expected = forward(any_model.model, IDS, {(point, 0): theirs})
    close(any_model.run_with_hooks(mx.array(IDS), [((point, 0), ours)]), logits, scale=4)
    clean = forward(any_model.model, IDS)[1]
    if point in ("scores", "pattern", "z"):
        others = [h for h in range(clean["z", 0].shape[1]) if h != 1]
        assert np.array_equal(expected["z", 0][:, others], clean["z", 0][:, others])


def test_a_pattern_edit_is_pattern_at_v(llama_model: InterpretableModel) -> None:
    """Put the identity: each head's z becomes the v of its own position."""
    ids = mx.array(IDS)
    identity = mx.broadcast_to(mx.eye(5), (2, 4, 5, 5))
    with llama_model.trace(ids) as trace:
        trace.edit(("pattern", 2), lambda _: identity)
        z, v = trace.read(("z", 2)), trace.read(("v", 2))
    assert mx.allclose(z, mx.repeat(v, 2, axis=1), atol=1e-6)


def test_edits_at_many_points_at_once(any_model: InterpretableModel) -> None:
    edited = [("resid_pre", 1), ("scores", 0), ("head_out", 1), ("resid_mid", 0), ("mlp_act", 1)]

    def theirs(x: np.ndarray) -> np.ndarray:
        return x * 0.75

    def ours(x: mx.array) -> mx.array:
        return x * 0.75

    logits, _ = forward(any_model.model, IDS, dict.fromkeys(edited, theirs))
    for order in (edited, edited[::-1]):
        got = any_model.run_with_hooks(mx.array(IDS), [(place, ours) for place in order])
        close(got, logits, scale=4)


def test_one_layer_and_one_token(make: Any) -> None:
    for maker in (make.llama, make.gpt2, make.gemma2):
        model = InterpretableModel(maker(layers=1))
        logits, expected = forward(model.model, [[7]])
        close(model.run_with_hooks([7]), logits)
        for place, value in expected.items():
            close(model.activations([7], [place])[place], value)
