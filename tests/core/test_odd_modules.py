"""Modules that return tuples, take keywords, are called several times or stand in two places."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, EditError
from mlxray.seams.edits import Call

from .conftest import VOCABULARY
from .plain_runs import IDS
from .reference import numbers
from .test_values import close


class Named(nn.Module):
    """Hands everything on by name, the tensor last, and returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8, bias=False)

    def __call__(self, *, hidden: mx.array, flag: bool = True) -> tuple[mx.array, str]:
        assert flag
        return self.inner(hidden), "extra"


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = mx.ones((8,))

    def __call__(self) -> mx.array:
        return self.value


class OddBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = Named()
        self.again = nn.Linear(8, 8, bias=False)
        self.shift = Constant()

    def __call__(self, x: mx.array) -> tuple[mx.array, dict[str, int]]:
        mixed, _ = self.mixer(hidden=x, flag=True)
        for _ in range(3):
            mixed = self.again(mixed)
        return x + mixed + self.shift(), {"calls": 3}


class OddModel(nn.Module):
    """Tuples, keywords, three calls of a module, a block in two places, a call without input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        block = OddBlock()
        self.layers = [block, OddBlock(), block]

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for layer in self.layers:
            x, _ = layer(x)
        return self.embed.as_linear(x)


ODD = Adapter(
    "odd", embed="embed", layers="layers", attn="mixer", mlp="again", final_norm="none", returns=2
)


@pytest.fixture(scope="module")
def odd(make: Any) -> InterpretableModel:
    return InterpretableModel(make.randomised(OddModel()), adapter=ODD)


def odd_forward(model: Any, again: Any = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits, and each call's output of layer 1's `again` after `again(index, value)`."""
    w = numbers
    embedding = w(model.embed.weight)
    x, calls = embedding[IDS][None], []
    for i, layer in enumerate(model.layers):
        y = x @ w(layer.mixer.inner.weight).T
        for index in range(3):
            y = y @ w(layer.again.weight).T
            if i == 1:
                y = again(index, y) if again else y
                calls.append(y)
        x = x + y + w(layer.shift.value)
    return x @ embedding.T, calls


def test_each_call_of_a_module_is_kept_and_addressable(odd: InterpretableModel) -> None:
    logits, calls = odd_forward(odd.model)
    got, cache = odd.run_with_cache(IDS)
    close(got, logits)
    close(odd.run_with_cache(IDS, ["layers.1.again#1"])[1]["layers.1.again#1"], calls[1])
    for index, value in enumerate(calls):
        close(cache[f"layers.1.again#{index}"], value)
        close(odd.activations(IDS, [f"layers.1.again#{index}"])[f"layers.1.again#{index}"], value)
        if index:
            entering = odd.activations(IDS, [f"layers.1.again.input#{index}"])
            close(entering[f"layers.1.again.input#{index}"], calls[index - 1])
    every = cache["layers.1.again"]
    assert isinstance(every, tuple) and len(every) == 3
    for found, value in zip(every, calls, strict=True):
        close(found, value)
    assert "layers.1.again" in cache and "layers.1.again#3" not in cache
    asked = odd.run_with_cache(IDS, ["layers.1.again"])[1]["layers.1.again"]
    assert isinstance(asked, tuple) and mx.array_equal(asked[2], every[2])
    with pytest.raises(AddressError, match=r"called 3 time"):
        odd.activations(IDS, ["layers.1.again#3"])
    with pytest.raises(AddressError, match=r"ambiguous.*layers\.1\.again#0.*layers\.1\.again#2"):
        odd.activations(IDS, [("mlp_out", 1)])
    with pytest.raises(AddressError, match=r"ambiguous"):
        odd.activations(IDS, ["layers.1.again.input"])


def test_one_call_or_all_calls_are_edited(odd: InterpretableModel) -> None:
    one, _ = odd_forward(odd.model, lambda i, y: 2 * y if i == 1 else y)
    close(odd.run_with_hooks(IDS, [("layers.1.again#1", iv.scale(2.0))]), one)
    into, _ = odd_forward(odd.model, lambda i, y: 2 * y if i == 0 else y)
    close(odd.run_with_hooks(IDS, [("layers.1.again.input#1", iv.scale(2.0))]), into)
    every, _ = odd_forward(odd.model, lambda i, y: 2 * y)
    close(odd.run_with_hooks(IDS, [("layers.1.again", iv.scale(2.0))]), every)
    indices: list[int] = []

    def look(activation: mx.array, call: Call) -> mx.array:
        indices.append(call.index)
        return activation

    odd.run_with_hooks(IDS, [("layers.1.again", look)])
    assert indices == [0, 1, 2]


def test_one_module_at_two_paths(odd: InterpretableModel) -> None:
    """Layers 0 and 2 are one object: an address cannot mean one of them, a call can."""
    _, cache = odd.run_with_cache(IDS)
    for layer in (0, 2):
        first, last = cache[f"layers.{layer}#0"], cache[f"layers.{layer}#1"]
        assert not mx.array_equal(first[0], last[0])
        assert len(cache[f"layers.{layer}"]) == 2
        assert len(cache[f"layers.{layer}.again"]) == 6
    final = cache["layers.2#1"][0]
    close(cache["logits"], numbers(final) @ numbers(odd.model.embed.weight).T)
    assert "layers.0.resid_post" not in cache
    with pytest.raises(AddressError, match=r"ambiguous.*layers\.2#0"):
        odd.activations(IDS, [("resid_post", 2)])
    assert mx.array_equal(cache["resid_pre", 1], cache["layers.0#0"][0])


def test_tuples_keywords_and_calls_without_arguments(odd: InterpretableModel) -> None:
    _, cache = odd.run_with_cache(IDS)
    whole = cache["layers.1.mixer"]
    assert isinstance(whole, tuple) and whole[1] == "extra"
    assert mx.array_equal(cache["attn_out", 1], whole[0])
    assert cache["layers.1"][1] == {"calls": 3}
    inside = odd.activations(IDS, ["layers.1.mixer.input", "layers.1.input"])
    assert mx.array_equal(inside["layers.1.mixer.input"], inside["layers.1.input"])
    assert mx.array_equal(cache["layers.1.shift"], odd.model.layers[1].shift.value)
    with pytest.raises(AddressError, match="without arguments"):
        odd.activations(IDS, ["layers.1.shift.input"])
    with pytest.raises(AddressError, match="without arguments"):
        odd.run_with_hooks(IDS, [("layers.1.shift.input", iv.zero_out)])


def test_edits_of_tuples_and_keywords(odd: InterpretableModel) -> None:
    doubled = odd.run_with_hooks(IDS, [("layers.1.mixer.inner", iv.scale(2.0))])
    assert not mx.allclose(doubled, odd.model(mx.array([IDS])), atol=1e-3)
    for address, hook in (
        (("attn_out", 1), iv.scale(2.0)),
        ("layers.1.mixer", lambda pair: (2 * pair[0], pair[1])),
        ("layers.1.mixer.input", iv.scale(2.0)),
    ):
        got = odd.run_with_hooks(IDS, [(address, hook)])
        assert mx.allclose(got, doubled, atol=1e-5), address
    for hook, fault in (
        (lambda pair: pair[0], r"array where the module returns \(array, str\)"),
        (lambda pair: (pair[0],), "1 values for 2"),
        (lambda pair: (pair[0], 3), "returned int for str"),
        (lambda pair: (None, pair[1]), "returned None"),
        (lambda pair: None, "returned NoneType for tuple"),
    ):
        with pytest.raises(EditError, match=fault):
            odd.run_with_hooks(IDS, [("layers.1.mixer", hook)])
    seen: list[Any] = []

    def look(inputs: Any, output: Any, wrapper: Any) -> None:
        seen.append((inputs, sorted(wrapper.kwargs), output[1]))

    odd.run_with_hooks(IDS, [("layers.1.mixer", look)])
    assert seen == [((), ["flag", "hidden"], "extra")]


def test_arguments_by_name_are_copies_as_well(odd: InterpretableModel) -> None:
    """The block adds what it passed by name to the stream: a hook must not reach it."""

    def through_names(inputs: Any, output: Any, wrapper: Any) -> None:
        wrapper.kwargs["hidden"][:] = 5

    bare = odd.model(mx.array([IDS]))
    assert mx.array_equal(odd.run_with_hooks(IDS, [("layers.1.mixer", through_names)]), bare)


def test_a_model_that_returns_more_than_logits(make: Any) -> None:
    class Pair(OddModel):
        def __call__(self, tokens: mx.array) -> tuple[mx.array, str]:
            return super().__call__(tokens), "more"

    pair = InterpretableModel(make.randomised(Pair()), adapter=ODD)
    single = InterpretableModel(make.randomised(OddModel()), adapter=ODD)
    bare = single.model(mx.array([IDS]))
    assert mx.array_equal(pair.run_with_hooks(IDS), bare)
    logits, cache = pair.run_with_cache(IDS)
    assert mx.array_equal(logits, bare) and mx.array_equal(cache["logits"], bare)
    assert pair.run_with_cache(IDS, ["output"])[1]["output"][1] == "more"
    with pair.trace(IDS) as trace:
        pair.output[:, -1] = 0
    assert mx.array_equal(trace.output[:, :-1], bare[:, :-1])
    assert mx.all(trace.output[:, -1] == 0)
    assert trace.activations["layers.1.mixer.inner"].shape == (1, 4, 8)
    number, _ = pair.gradients(IDS, lambda x: x[0, -1, 3], ["layers.1.mixer.inner"])
    assert number.item() == pytest.approx(bare[0, -1, 3].item(), abs=1e-5)
    residual = mx.ones((1, 2, 8))
    assert mx.array_equal(pair.finish_from(residual), single.finish_from(residual))


def test_the_outputs_own_proxy_of_a_tuple(odd: InterpretableModel) -> None:
    with odd.trace(IDS):
        pair = odd.layers[1].mixer.output.save()
        assert odd.layers[1].mixer.output[0].shape == (1, 4, 8)
    assert pair[1] == "extra"
