"""Derived points: values with a way back, attached to a model under addresses of their own.

The oracle is plain arithmetic on the activation in a hook at the underlying point.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import (
    AddressError,
    EditChangedNothing,
    EditError,
    InputError,
)
from mlxray.points.attached import Attachment
from mlxray.points.derived import Change
from mlxray.testing.zoo import small_model

IDS = [[3, 5, 7, 2]]
AT = "layers.1.resid_post"


@dataclass(eq=False)
class Subspace:
    """Coordinates in a few directions, which are orthonormal: (D, k)."""

    directions: mx.array
    reads: tuple[str, ...] = (AT,)
    writes: tuple[str, ...] = (AT,)
    unit: str = "coordinate"
    fixed: str | None = None
    seen: list[Change] = field(default_factory=list)

    @property
    def count(self) -> int:
        return int(self.directions.shape[1])

    def read(self, inputs: Sequence[mx.array]) -> mx.array:
        if inputs[0].shape[-1] != self.directions.shape[0]:
            raise InputError(f"{inputs[0].shape[-1]} is not {self.directions.shape[0]}")
        return inputs[0].astype(mx.float32) @ self.directions

    def write(self, number: int, activation: mx.array, change: Change) -> mx.array:
        self.seen.append(change)
        units = change.units
        columns = self.directions if units is None else self.directions[:, mx.array(units)]
        return activation + ((change.new - change.old) @ columns.T).astype(activation.dtype)

    def derived_points(self) -> tuple[Subspace, ...]:
        return (self,)


def subspace(width: int = 16, k: int = 3, seed: int = 0, **more: Any) -> Subspace:
    matrix = np.random.default_rng(seed).normal(size=(width, k))
    return Subspace(mx.array(np.linalg.qr(matrix)[0].astype(np.float32)), **more)


@pytest.fixture
def model(make: SimpleNamespace) -> InterpretableModel:
    return InterpretableModel(make.llama(), tokenizer=make.tokenizer())


def test_values_are_those_of_the_underlying_activation(model: InterpretableModel) -> None:
    space = subspace()
    assert model.attach(space, name="plane") == [f"{AT}.plane"]
    _, cache = model.run_with_cache(IDS, [AT, ("plane", 1), ("coordinate", 1, 2)])
    expected = cache[AT] @ space.directions
    assert mx.array_equal(cache[f"{AT}.plane"], expected)
    assert mx.array_equal(cache["layers.1.plane.2"], expected[..., 2])
    assert mx.array_equal(cache["resid_post.plane", -2], expected)
    assert cache["plane", 1].shape == (1, 4, 3)
    assert cache["coordinate", 1, 2].shape == (1, 4)


@pytest.mark.parametrize("base", [AT, "layers.1.resid_mid", "layers.0.mlp.down_proj.input"])
def test_an_edit_is_the_same_by_hand(model: InterpretableModel, base: str) -> None:
    width = 24 if "down_proj" in base else 16
    space = subspace(width, reads=(base,), writes=(base,))
    (address,) = model.attach(space, name="plane")
    got = model.run_with_hooks(IDS, {address: lambda v: 3 * v + 1})

    def by_hand(x: mx.array) -> mx.array:
        return x + (2 * (x @ space.directions) + 1) @ space.directions.T

    assert mx.allclose(got, model.run_with_hooks(IDS, {base: by_hand}), atol=1e-4)


def test_one_value_is_edited_with_its_own_row_alone(model: InterpretableModel) -> None:
    space = subspace()
    model.attach(space, name="plane")
    space.seen.clear()
    got = model.run_with_hooks(IDS, {("coordinate", 1, 2): iv.replace_with(4.0)})
    assert [change.units for change in space.seen] == [(2,)]
    assert space.seen[0].new.shape == (1, 4, 1)
    row = space.directions[:, 2]
    hand = model.run_with_hooks(IDS, {AT: lambda x: x + (4 - x @ row)[..., None] * row})
    assert mx.allclose(got, hand, atol=1e-4)


def test_edits_of_one_point_see_one_reading(model: InterpretableModel) -> None:
    """Directions that overlap: what one edit writes is not what the other reads."""
    tilted = mx.array(np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32))
    space = Subspace(tilted)
    model.attach(space, name="plane")
    at = f"{AT}.plane"
    edits = [
        (f"{at}.0", lambda v: v + 2),
        ("layers.0.mlp", iv.scale(0.5)),
        (f"{at}.1", lambda v: 0 * v),
    ]
    hand = [
        ("layers.0.mlp", iv.scale(0.5)),
        (AT, lambda x: x + 2 * tilted[:, 0] - (x @ tilted[:, 1])[..., None] * tilted[:, 1]),
    ]
    expected = model.run_with_hooks(IDS, hand)
    for order in (edits, edits[::-1]):
        assert mx.allclose(model.run_with_hooks(IDS, order), expected, atol=1e-4)
    _, plain = model.run_with_cache(IDS, [at], interventions={"layers.0.mlp": iv.scale(0.5)})
    _, cache = model.run_with_cache(IDS, [at, f"{at}.0"], interventions=edits)
    assert mx.array_equal(cache[at][..., 2], plain[at][..., 2])  # untouched to the bit
    assert mx.array_equal(cache[at][..., 1], mx.zeros((1, 4)))
    assert mx.array_equal(cache[f"{at}.0"], plain[at][..., 0] + 2)


def test_an_edit_of_the_activation_between_two_is_between_them(model: InterpretableModel) -> None:
    space = subspace()
    (at,) = model.attach(space, name="plane")
    edits = [(f"{at}.0", lambda v: v + 2), (AT, mx.zeros_like), (f"{at}.1", lambda v: v + 1)]
    _, cache = model.run_with_cache(IDS, [AT, at], interventions=edits)
    expected = mx.broadcast_to(space.directions[:, 1], (1, 4, 16))
    assert mx.allclose(cache[AT], expected, atol=1e-6)
    assert mx.allclose(cache[at], mx.array([0.0, 1.0, 0.0]), atol=1e-6)


def test_an_edit_that_follows_is_seen_by_what_is_read(model: InterpretableModel) -> None:
    (at,) = model.attach(subspace(), name="plane")
    edits = [(at, lambda v: v + 2), (AT, mx.zeros_like)]
    _, cache = model.run_with_cache(IDS, [at], interventions=edits)
    assert mx.array_equal(cache[at], mx.zeros((1, 4, 3)))


def test_a_model_with_something_attached_runs_as_before(model: InterpretableModel) -> None:
    before = model.run_with_hooks(IDS)
    space = subspace()
    model.attach(space, name="plane")
    space.directions = None  # type: ignore[assignment]  # whoever asked it would fail
    logits, cache = model.run_with_cache(IDS)
    assert mx.array_equal(before, logits)
    assert not [address for address in cache if "plane" in address]
    assert mx.array_equal(before, model.model(mx.array(IDS)))


def test_gradients_are_central_differences(model: InterpretableModel) -> None:
    (at,) = model.attach(subspace(), name="plane")

    def metric(logits: mx.array) -> mx.array:
        return logits[0, -1, 3] - logits[0, -1, 4]

    _, found = model.gradients(IDS, metric, [at, f"{at}.1"])
    assert mx.array_equal(found[at][..., 1], found[f"{at}.1"])
    for token, unit in ((0, 0), (2, 1), (3, 2)):
        values = []
        for sign in (1, -1):
            step = mx.zeros((1, 4, 3)).at[0, token, unit].add(sign * 1e-2)
            values.append(metric(model.run_with_hooks(IDS, {at: lambda v, s=step: v + s})).item())
        slope = (values[0] - values[1]) / 2e-2
        assert found[at][0, token, unit].item() == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_gradients_where_values_are_edited_too(model: InterpretableModel) -> None:
    (at,) = model.attach(subspace(), name="plane")

    def metric(logits: mx.array) -> mx.array:
        return logits[0, -1, 3]

    edits = {f"{at}.0": lambda v: 0.5 * v + 1}
    _, found = model.gradients(IDS, metric, [at], interventions=edits)

    def hooked(sign: int) -> float:
        hooks = [*edits.items(), (at, lambda v: v + sign * 1e-2)]
        return float(metric(model.run_with_hooks(IDS, hooks)).item())

    slope = (hooked(1) - hooked(-1)) / 2e-2
    assert found[at].sum().item() == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_a_block_attaches_and_detaches(model: InterpretableModel) -> None:
    space = subspace()
    with model.attached(space, name="plane") as addresses:
        assert addresses == [f"{AT}.plane"]
        with model.attached(space, name="plane"):
            pass
        values = model.activations(IDS, addresses)
        assert model.attachments == {f"{AT}.plane": space}
    assert values[addresses[0]].shape == (1, 4, 3) and model.attachments == {}
    with pytest.raises(AddressError, match="nothing at"):
        model.activations(IDS, addresses)
    model.attach(space, name="plane")
    with model.attached(space, name="plane"):
        pass
    assert model.activations(IDS, addresses)[addresses[0]].shape == (1, 4, 3)
    assert model.detach("plane") == addresses
    with pytest.raises(InputError, match="'plane' is not attached"):
        model.detach("plane")
    assert model.detach() == []


def test_what_one_thread_attached_others_use(model: InterpretableModel) -> None:
    (at,) = model.attach(subspace(), name="plane")

    def shifted(step: int) -> mx.array:
        return model.run_with_hooks(IDS, {f"{at}.0": lambda v: v + step})

    alone = [shifted(step) for step in (1, 2, 3, 4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(shifted, (1, 2, 3, 4)))
    assert all(mx.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_block_that_fails_detaches_too(model: InterpretableModel) -> None:
    with pytest.raises(ZeroDivisionError), model.attached(subspace(), name="plane"):
        raise ZeroDivisionError
    with pytest.raises(AddressError):
        model.layout.site(("plane", 1))


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (subspace(8), InputError, r"does not fit 'layers\.1\.resid_post': 16 is not 8"),
        (subspace(reads=("layers.7.resid_post",)), AddressError, "no layer 7"),
        (subspace(writes=("layers.1.nowhere",)), AddressError, "nothing at 'layers.1.nowhere'"),
        (subspace(writes=("layers.0.resid_post",)), EditError, "which the model has not computed"),
        (
            subspace(reads=("layers.0.mlp_out",), writes=("layers.1.mlp_act",)),
            InputError,
            "cannot be written into",
        ),
        (subspace(reads=("layers.1.z",)), InputError, "does not fit"),
        (object(), InputError, "cannot be attached"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    model: InterpretableModel, space: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.attach(space, name="plane")
    assert model.detach() == []


@pytest.mark.parametrize("name", ["", "a.b", "3", "input", "h2", "with space", None])
def test_names_that_cannot_stand_in_an_address(model: InterpretableModel, name: Any) -> None:
    with pytest.raises(InputError):
        model.attach(subspace(), name=name)


def test_two_at_one_place_need_two_names(model: InterpretableModel) -> None:
    first, second = subspace(), subspace(seed=1)
    model.attach(first, name="plane")
    with pytest.raises(InputError, match="is taken by"):
        model.attach(second, name="plane")
    model.attach(second, name="other")
    assert not mx.array_equal(model.watch(IDS, "plane", [1])[1], model.watch(IDS, "other", [1])[1])
    with pytest.raises(AddressError, match=r"may mean 'layers\.1\.resid_post\.plane', 'layers"):
        model.activations(IDS, ("coordinate", 1, 0))
    with pytest.raises(InputError, match="is something else in this model"):
        model.attach(subspace(reads=("layers.1",), writes=("layers.1",)), name="mlp")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("coordinate", 1, 3), "there is no coordinate 3: 'layers.1.resid_post.plane' has 3"),
        (("coordinate", 1, -1), "numbered 0 to 2; got '-1'"),
        (("plane", 1, True), "not an integer"),
        (("plane", 1, 1.0), "not an integer"),
        (("plane", 9), "no layer 9"),
        (("plane", 0), "nothing of that name is attached to the model there. Attached are"),
        ("layers.1.plane.x", "numbered 0 to 2; got 'x'"),
        ("layers.1.mlp_out.plane", "nothing at"),
        ("layers.1.plane#0", "nothing at"),
    ],
)
def test_addresses_that_mean_nothing(model: InterpretableModel, address: Any, message: str) -> None:
    model.attach(subspace(), name="plane")
    with pytest.raises(AddressError, match=message):
        model.activations(IDS, address)


def test_an_edit_that_changes_nothing_is_told(model: InterpretableModel) -> None:
    (at,) = model.attach(subspace(), name="plane")
    with pytest.raises(EditChangedNothing):
        model.run_with_hooks(IDS, {at: lambda v: 1 * v})
    same = model.run_with_hooks(IDS, {at: lambda v: 1 * v}, allow_unchanged=True)
    assert mx.array_equal(same, model.run_with_hooks(IDS))


def test_the_model_is_freed_with_what_is_attached(make: SimpleNamespace) -> None:
    model, space = InterpretableModel(make.llama()), subspace()
    (at,) = model.attach(space, name="plane")
    model.run_with_cache(IDS, [at], interventions={at: lambda v: v + 1})
    gone = weakref.ref(model.model), weakref.ref(space)
    gc.collect()
    gc.disable()
    try:
        del model, space
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def test_a_run_frees_what_it_held(model: InterpretableModel) -> None:
    """No cycle keeps the arrays of a run with edited values."""
    from mlxray.run.run import Run
    from mlxray.seams.edits import Edit

    (at,) = model.attach(subspace(), name="plane")
    gc.collect()
    gc.disable()
    try:
        run = Run(model.layout, watch=[at], edits=[Edit(f"{at}.0", lambda v: v + 1)])
        run.execute(mx.array(IDS))
        gone = weakref.ref(run)
        del run
        assert gone() is None
        assert not [o for o in gc.get_objects() if type(o).__name__ == "Together"]
    finally:
        gc.enable()


def test_modules_that_are_replaced_are_found_anew(
    model: InterpretableModel, make: SimpleNamespace
) -> None:
    space = subspace()
    (at,) = model.attach(space, name="plane")
    before = model.activations(IDS, at)[at]
    model.model.model.layers[1] = make.llama(seed=5).model.layers[1]
    cache = model.activations(IDS, [AT, at])
    assert not mx.allclose(cache[at], before)
    assert mx.array_equal(cache[at], cache[AT] @ space.directions)


def test_a_module_that_is_called_twice_is_changed_twice() -> None:
    """Attaching there is refused, since no one value can be read; edits reach every call."""
    model = InterpretableModel(small_model("iquestloopcoder"))
    base = "layers.0.mlp"
    space = subspace(32, reads=(base,), writes=(base,))
    with pytest.raises(InputError, match=r"attach at a point, .* 'layers\.0\.mlp#0'"):
        model.attach(space)
    model.layout.attached.add([Attachment(f"{base}.plane", "plane", space, space)], lasting=True)

    def by_hand(x: mx.array) -> mx.array:
        return x + (2 * (x @ space.directions) + 1) @ space.directions.T

    edits = {f"{base}.plane": lambda v: 3 * v + 1}
    expected = model.run_with_hooks(IDS, {base: by_hand})
    assert mx.allclose(model.run_with_hooks(IDS, edits), expected, atol=1e-4)
    kept, _ = model.run_with_cache(IDS, interventions=edits)
    assert mx.allclose(kept, expected, atol=1e-4)
    call = subspace(32, reads=(f"{base}#1",), writes=(f"{base}#1",))
    (at,) = model.attach(call, name="second")
    got = model.run_with_hooks(IDS, {at: lambda v: 3 * v + 1})
    hand = model.run_with_hooks(
        IDS, {f"{base}#1": lambda x: x + (2 * (x @ call.directions) + 1) @ call.directions.T}
    )
    assert mx.allclose(got, hand, atol=1e-4)


def test_in_a_trace(model: InterpretableModel) -> None:
    space = subspace()
    (at,) = model.attach(space, name="plane")
    with model.trace(IDS) as trace:
        before = trace.save(at)
        trace.edit(f"{at}.0", lambda v: v + 1)
        stream = model.layers[1].output.save()
        after = trace.save(at, "after")
    assert mx.array_equal(after[..., 1:], before[..., 1:])
    assert mx.array_equal(after[..., 0], before[..., 0] + 1)
    assert mx.array_equal(trace.activations[at], after)
    assert mx.allclose(stream @ space.directions, after, atol=1e-5)
    assert [report.changed for report in trace.reports] == [4]
