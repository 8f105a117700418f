"""run_with_hooks and run_with_cache: what hooks see, in which order, on which calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import Adapter, HookedModel, InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import AddressError, EditChangedNothing, EditError, EditNeverFired
from mlxray.seams.edits import Call

from .conftest import VOCABULARY
from .reference import forward, numbers
from .test_values import bend, close

IDS = [3, 5, 7, 2]


def test_one_class_under_two_names() -> None:
    assert HookedModel is InterpretableModel


# What hooks look like


def test_the_three_forms_of_a_hook(llama_model: InterpretableModel) -> None:
    def whole(inputs: Any, output: mx.array, wrapper: Any) -> mx.array:
        assert wrapper.wrapped is llama_model.model.model.layers[1].mlp
        assert isinstance(inputs, tuple)
        return 2 * output

    def with_call(activation: mx.array, call: Call) -> mx.array:
        assert call.path == "model.layers.1.mlp" and call.index == 0
        return 2 * activation

    class Doubler:
        def __call__(self, activation: mx.array) -> mx.array:
            return 2 * activation

        def method(self, activation: mx.array) -> mx.array:
            return 2 * activation

    def scaled(factor: float, activation: mx.array) -> mx.array:
        return factor * activation

    forms: list[Any] = [
        whole,
        with_call,
        Doubler(),
        Doubler().method,
        partial(scaled, 2.0),
        lambda a: 2 * a,
        lambda a, factor=2: factor * a,
        lambda a, *rest: (2 + len(rest)) * a,
        lambda *everything: 2 * everything[0],
        lambda a, /, *, factor=2: factor * a,
        iv.scale(2.0),
    ]
    expected, _ = forward(llama_model.model, IDS, {("mlp_out", 1): lambda x: 2 * x})
    for form in forms:
        close(llama_model.run_with_hooks(IDS, [("model.layers.1.mlp", form)]), expected)


@pytest.mark.parametrize(
    ("hook", "fault"),
    [
        (lambda: None, "takes 0 arguments"),
        (lambda a, b, c, d: a, "takes 4 arguments"),
        (5, "int, not a function"),
        (None, "NoneType, not a function"),
        (mx.zeros((2,)), "array, not a function"),
        (lambda a: None, r"returned None\. Return the activation"),
        (lambda a, call: None, "returned None"),
        (lambda a: 0.0, "returned float, not mx.array"),
        (np.array, "returned ndarray, not mx.array"),
        (lambda a: (a,), "returned tuple"),
        (lambda a: a[:, 0], r"shape \(1, 16\); the activation has \(1, 4, 16\)"),
        (lambda a: a[None], r"shape \(1, 1, 4, 16\)"),
        (lambda a: mx.zeros((16,)), r"shape \(16,\)"),
        (lambda a: a > 0, "bool"),
        (lambda a: a.astype(mx.int32), "int32"),
        (lambda a: a.astype(mx.complex64), "complex64"),
    ],
)
def test_hooks_that_return_something_else(
    llama_model: InterpretableModel, hook: Any, fault: str, untouched: Any
) -> None:
    untouched(llama_model.model)
    for address in ("layers.1.mlp", ("mlp_out", 1), "layers.1.mlp.input"):
        with pytest.raises(EditError, match=fault):
            llama_model.run_with_hooks(IDS, [(address, hook)])
    with pytest.raises(EditError, match=fault):
        llama_model.run_with_cache(IDS, interventions={"layers.1.mlp": hook})


def test_errors_name_the_place(llama_model: InterpretableModel) -> None:
    with pytest.raises(EditError, match=r"'layers\.2\.attn_out' returned None"):
        llama_model.run_with_hooks(IDS, [(("attn_out", -1), lambda a: None)])


def test_other_float_dtypes_become_the_activations(make: Any) -> None:
    model = InterpretableModel(make.llama(dtype=mx.bfloat16))
    got = model.run_with_hooks(IDS, [("layers.0", lambda a: a.astype(mx.float32) * 2)])
    expected = model.run_with_hooks(IDS, [("layers.0", lambda a: a * 2)])
    assert got.dtype == mx.bfloat16 and mx.array_equal(got, expected)


def test_edits_that_change_nothing(llama_model: InterpretableModel) -> None:
    for edit in (
        iv.scale(1.0),
        lambda a: a + 0,
        mx.array,
        iv.add_vector(0 * mx.ones(16)),
    ):
        with pytest.raises(EditChangedNothing, match=r"'layers\.0' fired 1 time"):
            llama_model.run_with_hooks(IDS, [("layers.0", edit)])
        logits = llama_model.run_with_hooks(IDS, [("layers.0", edit)], allow_unchanged=True)
        assert mx.array_equal(logits, llama_model.model(mx.array([IDS])))
    with pytest.raises(EditChangedNothing):  # the second one, of two
        llama_model.run_with_hooks(IDS, [("layers.0", iv.scale(2.0)), ("layers.1", iv.scale(1.0))])
    with pytest.raises(EditChangedNothing):
        llama_model.run_with_cache(IDS, [], interventions={"layers.0": iv.scale(1.0)})


def test_edits_that_never_fire(make: Any) -> None:
    raw = make.llama()
    raw.model.layers[0].unused = nn.Linear(2, 2)
    model = InterpretableModel(raw)
    for address in ("layers.0.unused", "layers.0.unused.input", "layers.0.self_attn.rope#2"):
        with pytest.raises(EditNeverFired, match="never fired"):
            model.run_with_hooks(IDS, [(address, iv.zero_out)])
        with pytest.raises(EditNeverFired):
            model.run_with_hooks(IDS, [(address, iv.zero_out)], allow_unchanged=True)
        with pytest.raises(AddressError, match=r"was not reached|called 2 time"):
            model.run_with_cache(IDS, [address])
    _, cache = model.run_with_cache(IDS)
    assert "layers.0.unused" not in cache
    with model.trace(IDS) as trace:
        pass
    assert "layers.0.unused" not in dict(trace.activations)


# Where and in which order


def test_a_parent_and_its_children_at_once(any_model: InterpretableModel) -> None:
    family = any_model.model.model_type
    attn = "attn" if family == "gpt2" else "self_attn"
    out = "c_proj" if family == "gpt2" else "o_proj"
    order: list[str] = []

    def double(name: str) -> Any:
        def hook(a: mx.array) -> mx.array:
            order.append(name)
            return 2 * a

        return hook

    hooks = [
        ("layers.0", double("block after")),
        ("layers.0.input", double("block before")),
        (f"layers.0.{attn}", double("attention after")),
        (f"layers.0.{attn}.{out}", double("projection after")),
        (f"layers.0.{attn}.{out}.input", double("projection before")),
        ("layers.0.mlp", double("mlp after")),
        ("layers.0.mlp.input", double("mlp before")),
    ]

    def factor(number: float) -> Any:
        return lambda x: number * x

    logits = any_model.run_with_hooks(IDS, hooks)
    assert order == [
        "block before",
        "projection before",
        "projection after",
        "attention after",
        "mlp before",
        "mlp after",
        "block after",
    ]
    # c_proj has a bias in gpt2: double its input by doubling z, its output by hand.
    values = forward(any_model.model, IDS)[1]
    assert values["z", 0].shape[-2] == 4
    edits = {
        ("resid_pre", 0): factor(2),
        ("z", 0): factor(2),
        ("attn_out", 0): factor(4),
        ("resid_post", 0): factor(2),
        ("mlp_out", 0): factor(2),
    }
    hooks = [(place, double("")) for place in edits]
    hooks[2] = (("attn_out", 0), iv.scale(4.0))
    expected = forward(any_model.model, IDS, edits)[0]
    close(any_model.run_with_hooks(IDS, hooks), expected, scale=8)
    mlp_input = any_model.run_with_hooks(IDS, [*hooks, ("layers.0.mlp.input", double(""))])
    assert mx.allclose(mlp_input, logits, rtol=1e-4, atol=1e-4)


def test_several_hooks_at_one_place_run_in_their_order(llama_model: InterpretableModel) -> None:
    place = ("resid_post", 0)
    hooks = [
        (place, iv.scale(2.0)),
        ("layers.0", iv.add_vector(mx.ones(16))),
        (place, iv.clamp(-1, 1)),
    ]
    expected = forward(llama_model.model, IDS, {place: lambda x: np.clip(2 * x + 1, -1, 1)})[0]
    close(llama_model.run_with_hooks(IDS, hooks), expected)
    other = forward(llama_model.model, IDS, {place: lambda x: 2 * np.clip(x, -1, 1) + 1})[0]
    assert np.abs(expected - other).max() > 1e-3


@pytest.mark.parametrize(
    "point", ["head_out", "resid_mid", "q", "scores", "pattern", "z", "mlp_act"]
)
def test_two_edits_at_a_point_build_on_one_another(
    any_model: InterpretableModel, point: str
) -> None:
    """The second must see what the first returned."""

    def put(x: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(x), bend(x.shape), x)

    def then(x: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(x), x * x, x)

    def put_here(x: mx.array) -> mx.array:
        return mx.where(x > -1e30, mx.array(bend(x.shape), mx.float32), x)

    def then_here(x: mx.array) -> mx.array:
        return mx.where(x > -1e30, x * x, x)

    expected, _ = forward(any_model.model, IDS, {(point, 1): lambda x: then(put(x))})
    hooks = [((point, 1), put_here), ((point, 1), then_here)]
    close(any_model.run_with_hooks(IDS, hooks), expected, scale=4)
    # The same in two statements of a trace, read in between.
    with any_model.trace(IDS) as trace:
        trace.edit((point, 1), put_here)
        between = trace.read((point, 1))
        trace.edit((point, 1), then_here)
    close(trace.output, expected, scale=4)
    if point not in ("scores", "pattern"):
        close(between, bend(between.shape), scale=4)


def test_hooks_see_what_earlier_hooks_did(llama_model: InterpretableModel) -> None:
    seen: dict[str, mx.array] = {}

    def keep(name: str) -> Any:
        def hook(a: mx.array) -> mx.array:
            seen[name] = a
            return a

        return hook

    hooks = [
        ("layers.0", keep("before")),
        ("layers.0", iv.scale(3.0)),
        ("layers.0", keep("after")),
        ("layers.1.input", keep("next")),
        ("layers.1.input_layernorm.input", keep("norm")),
    ]
    llama_model.run_with_hooks(IDS, hooks)
    assert mx.allclose(seen["after"], 3 * seen["before"])
    assert mx.array_equal(seen["after"], seen["next"])
    assert mx.array_equal(seen["after"], seen["norm"])


def test_positional_and_keyword_arguments_are_visible(llama_model: InterpretableModel) -> None:
    """Llama's blocks get the stream and the mask by position and the cache by name."""
    seen: list[Any] = []

    def look(inputs: Any, output: Any, wrapper: Any) -> None:
        seen.append((inputs, wrapper.args, wrapper.kwargs, wrapper.path, wrapper.index))

    llama_model.run_with_hooks(IDS, [("layers.0", look), ("layers.1", look)])
    (inputs, args, kwargs, path, index), (sliding, *_) = seen
    assert len(inputs) == len(args) == 2
    assert inputs[0].shape == (1, 4, 16) and inputs[1] == "causal"
    assert sliding[1].dtype == mx.bool_  # the window's mask is an array
    assert kwargs == {"cache": None} and path == "model.layers.0" and index == 0


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


# Hooks that call the model


def test_a_hook_may_call_the_model(any_model: InterpretableModel) -> None:
    """The bare one, and the instrumented one, without counting in the run outside."""
    other = [9, 8, 7, 6]
    fired: list[int] = []

    def swap(x: mx.array) -> mx.array:
        fired.append(1)
        bare = any_model.model(mx.array([other]))
        watched, cache = any_model.run_with_cache(other, ["layers.0"])
        assert mx.array_equal(bare, watched)
        nested = any_model.run_with_hooks(other, [("layers.0", lambda a: 0 * a)])
        assert not mx.array_equal(nested, bare)
        return cache["layers.0"]

    donor = forward(any_model.model, other)[1]["resid_post", 0]
    expected = forward(any_model.model, IDS, {("resid_post", 0): lambda _: donor})[0]
    logits, cache = any_model.run_with_cache(
        IDS, ["layers.0", ("pattern", 1)], interventions={"layers.0": swap}
    )
    close(logits, expected)
    assert len(fired) == 1
    close(cache["layers.0"], donor)
    assert cache["pattern", 1].shape[0] == 1


def test_a_hook_inside_attention_may_call_the_model(any_model: InterpretableModel) -> None:
    """While the seams are open: the inner runs' softmax must not reach the outer frame."""
    other = [9, 8, 7, 6]

    def borrowed(_: mx.array) -> mx.array:
        any_model.model(mx.array([other]))
        return any_model.get_attention_patterns(other, [0])[0]

    donor = forward(any_model.model, other)[1]["pattern", 0]
    expected = forward(any_model.model, IDS, {("pattern", 0): lambda _: donor})[0]
    close(any_model.run_with_hooks(IDS, [(("pattern", 0), borrowed)]), expected)


def test_a_hook_may_call_its_own_module(llama_model: InterpretableModel) -> None:
    def twice(inputs: Any, output: mx.array, wrapper: Any) -> mx.array:
        return wrapper.module(output)

    got = llama_model.run_with_hooks(IDS, [("layers.0.input_layernorm", twice)])
    norm = llama_model.model.model.layers[0].input_layernorm
    expected = llama_model.run_with_hooks(IDS, [("layers.0.input_layernorm", norm)])
    assert mx.allclose(got, expected)


# The cache


def test_the_cache_answers_to_every_spelling(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(IDS, ["model.layers.0.mlp", ("pattern", -1)])
    assert list(cache) == ["layers.0.mlp", "layers.2.pattern"] == list(cache.keys())
    assert len(cache) == 2 and set(cache.activations) == set(cache)
    for spelling in ("layers.0.mlp", "model.layers.0.mlp", "model.model.layers.0.mlp.output"):
        assert mx.array_equal(cache[spelling], cache["layers.0.mlp"]) and spelling in cache
    assert ("pattern", 2) in cache and ("pattern", 1) not in cache
    assert cache.get("layers.1.mlp") is None and cache.get("layers.1.mlp", 5) == 5
    assert "nonsense" not in cache and 3 not in cache and None not in cache
    with pytest.raises(AddressError, match=r"did not keep 'layers\.1\.mlp'.*layers\.0\.mlp"):
        cache["layers.1.mlp"]
    with pytest.raises(AddressError, match="nothing at"):
        cache["layers.1.mpl"]
    with pytest.raises(LookupError):
        cache["layers.7"]


def test_the_cache_tells_tokens_and_edits(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(
        [[1, 2], [3, 4, 5]], ["layers.0"], interventions={"layers.1": iv.scale(2.0)}
    )
    assert cache.metadata is not None
    assert cache.metadata["tokens"] == [[1, 2], [3, 4, 5]]
    (report,) = cache.metadata["edits"]
    assert (report.address, report.fired, report.changed) == ("layers.1", 1, 2 * 3 * 16)
    assert cache["layers.0"].shape == (2, 3, 16)


def test_activations_compute_no_logits(make: Any) -> None:
    model = InterpretableModel(make.llama(vocab_size=100_000))
    ids = list(range(64))
    logits = 4 * 64 * 100_000

    def peak(run: Callable[[], Any]) -> int:
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        run()
        return mx.get_peak_memory() - before

    assert peak(lambda: model.run_with_cache(ids, ["layers.0"])) >= logits
    assert peak(lambda: model.activations(ids, ["layers.0"])) < logits / 10


def test_no_hooks_and_no_addresses(llama_model: InterpretableModel) -> None:
    bare = llama_model.model(mx.array([IDS]))
    assert mx.array_equal(llama_model.run_with_hooks(IDS), bare)
    logits, cache = llama_model.run_with_cache(IDS, [])
    assert mx.array_equal(logits, bare) and len(cache) == 0
    assert dict(cache) == {}


def test_addresses_are_checked_before_anything_runs(llama_model: InterpretableModel) -> None:
    ran: list[int] = []

    def hook(a: mx.array) -> mx.array:
        ran.append(1)
        return 2 * a

    for bad in ("layers.0.atn_out", "layers.3", ("mlp_out", 3), ("nothing", 0), "", 5, None):
        with pytest.raises(AddressError):
            llama_model.run_with_hooks(IDS, [("layers.0", hook), (bad, hook)])  # type: ignore[list-item]
        with pytest.raises(AddressError):
            llama_model.run_with_cache(IDS, [bad])  # type: ignore[list-item]
    assert not ran
