"""Addresses: every spelling finds the one place, and what finds nothing says so."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import Adapter, InterpretableModel
from mlxray.errors import AddressError, MlxrayError, PointAbsent
from mlxray.points.sites import ModuleSite
from mlxray.points.vocabulary import ALIASES, POINTS, Address, normalize_layer_key, parse

from .conftest import MAKERS
from .reference import PER_LAYER, WHOLE

MODELS = {family: InterpretableModel(maker()) for family, maker in MAKERS.items()}
families = st.sampled_from(list(MODELS))


@given(families, st.data())
def test_every_spelling_of_a_module_is_one_place(family: str, data: st.DataObject) -> None:
    layout = MODELS[family].layout
    path = data.draw(st.sampled_from([p for p in layout.modules if p]))
    edge = data.draw(st.sampled_from(["", ".output", ".input"]))
    call = data.draw(st.sampled_from(["", "#0", "#3"]))
    canonical = layout.site(path + edge + call)
    assert isinstance(canonical, ModuleSite) and canonical.path == path
    assert canonical.edge == (edge or ".output")[1:]
    assert canonical.call == (int(call[1:]) if call else None)
    assert layout.site(canonical.key) == canonical
    short = layout.short(path)
    prefixes = ["", "model.", "model.model.", "transformer."] if short != path else [""]
    prefix = data.draw(st.sampled_from(prefixes))
    name = (
        data.draw(st.sampled_from([short, short.replace("layers.", "h.", 1)])) if prefix else short
    )
    assert layout.site(prefix + name + edge + call) == canonical
    # The proxy of the same module says the same.
    proxy = MODELS[family].module(prefix + name)
    assert proxy.module is layout.modules[path]


@given(families, st.sampled_from([*WHOLE, *PER_LAYER]), st.data())
def test_every_spelling_of_a_point_is_one_place(
    family: str, point: str, data: st.DataObject
) -> None:
    layout = MODELS[family].layout
    if point in WHOLE:
        site = layout.site(point)
        assert site.key == point
        assert layout.site(point + ".output") == site
        for wrong in ((point, 0), f"layers.0.{point}"):
            with pytest.raises(AddressError, match="whole model"):
                layout.site(wrong)
        return
    layer = data.draw(st.integers(0, layout.n_layers - 1))
    site = layout.site((point, layer))
    assert site.key == f"layers.{layer}.{point}"
    for spelling in (
        site.key,
        f"model.layers.{layer}.{point}",
        f"model.model.h.{layer}.{point}.output",
        f"blocks.{layer}.{point}",
        (point, layer - layout.n_layers),
    ):
        assert layout.site(spelling) == site
    with pytest.raises(AddressError, match="needs a layer"):
        layout.site(point)
    for wrong in (f"{site.key}.input", f"{site.key}#0"):
        with pytest.raises(AddressError, match="no input and no calls"):
            layout.site(wrong)


@given(
    families,
    st.text(max_size=30) | st.from_regex(r"(model\.)?(layers\.\d{1,3}\.)?[a-z_#.]{0,12}\d?"),
)
def test_any_text_is_a_place_or_a_typed_error(family: str, text: str) -> None:
    layout = MODELS[family].layout
    try:
        site = layout.site(text)
    except AddressError as error:
        assert str(error)  # noqa: PT017
    else:
        assert layout.site(site.key).key == site.key


@given(
    families,
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.tuples(),
        st.tuples(st.text(max_size=5)),
        st.tuples(st.sampled_from(PER_LAYER), st.none() | st.text(max_size=3) | st.just([0])),
        st.tuples(st.integers(), st.integers()),
        st.tuples(st.sampled_from(PER_LAYER), st.integers(3, 10**30)),
        st.tuples(st.sampled_from(PER_LAYER), st.integers(-(10**30), -4)),
        st.lists(st.text(max_size=5), max_size=3),
    ),
)
def test_anything_else_is_a_typed_error(family: str, address: Any) -> None:
    with pytest.raises(AddressError):
        MODELS[family].layout.site(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("layers.5.attn_out", Address("attn_out", 5)),
        ("model.model.layers.5", Address("", 5)),
        ("transformer.h.5.attn.input", Address("attn", 5, "input")),
        ("layers.5.self_attn.rope#1", Address("self_attn.rope", 5, None, 1)),
        ("layers.5.mlp.input#2", Address("mlp", 5, "input", 2)),
        (("z", -1), Address("z", -1)),
        ("logits", Address("logits")),
        ("output", Address("", None, "output")),
        ("model.norm", Address("norm")),
        ("layers.x.mlp", Address("layers.x.mlp")),
        ("layers5.mlp", Address("layers5.mlp")),
        ("mylayers.5.mlp", Address("mylayers.5.mlp")),
        ("layers." + "9" * 5000, Address("layers." + "9" * 5000)),
    ],
)
def test_parse(address: Any, expected: Address) -> None:
    assert parse(address) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.model.layers.0", "layers.0"),
        ("model.layers.5.self_attn", "layers.5.self_attn"),
        ("transformer.h.3.attn", "layers.3.attn"),
        ("blocks.3.mlp", "layers.3.mlp"),
        ("layers.12", "layers.12"),
        ("model.embed_tokens", "embed_tokens"),
        ("model.model.norm", "norm"),
        ("lm_head", "lm_head"),
        ("layers", "layers"),
        ("model.layersx.5.mlp", "layersx.5.mlp"),
    ],
)
def test_normalize_layer_key(key: str, expected: str) -> None:
    assert normalize_layer_key(key) == expected
    assert normalize_layer_key(expected) == expected


@pytest.mark.parametrize(
    ("address", "suggestion"),
    [
        ("layers.0.atn_out", "layers.0.attn_out"),
        ("layers.1.self_atn", "layers.1.self_attn"),
        ("model.layers.2.mlp.gate_prj", "layers.2.mlp.gate_proj"),
        ("logit", "logits"),
        ("embd", "embed"),
        ("layers.3.mlp", "3 (0 to 2)"),
        (("mlp_out", 3), "3 (0 to 2)"),
        (("mlp_out", -4), "3 (0 to 2)"),
        ("encoder.layers.0.mlp", "layers.0.mlp"),
        ("vision.model.layers.0.mlp", "layers.0.mlp"),
        ("layers.0.mlp.layers.1", "layers.0.mlp"),
    ],
)
def test_errors_name_the_nearest_right_thing(address: Any, suggestion: str) -> None:
    with pytest.raises(AddressError) as error:
        MODELS["llama"].layout.site(address)
    assert suggestion in str(error.value)


def test_aliases_mean_the_point_where_no_module_has_the_name() -> None:
    llama, gpt2 = MODELS["llama"].layout, MODELS["gpt2"].layout
    for alias, point in ALIASES.items():
        assert point in POINTS
        for layout in (llama, gpt2):
            if not POINTS[point].per_layer:
                if not (alias == "hook_embed" and layout is gpt2):  # there the token's alone
                    assert layout.site(alias) == layout.site(point)
                continue
            site = layout.site((alias, 0))
            path = f"{layout.block(0)}.{alias}"
            if path in layout.modules:
                assert isinstance(site, ModuleSite) and site.path == path
            else:
                assert site == layout.site((point, 0))


def test_the_whole_model_is_addressable() -> None:
    model = MODELS["llama"]
    ids = [3, 5]
    bare = model.model(mx.array([ids]))
    for address in ("logits", "output", "lm_head", "lm_head.output"):
        assert mx.array_equal(model.activations(ids, [address])[address], bare), address
    entering = model.activations(ids, ["input", "model.input"])
    assert entering["input"].tolist() == [ids]
    got = model.run_with_hooks(ids, [("input", lambda x: x + 1)])
    assert mx.array_equal(got, model.model(mx.array([[4, 6]])))


def test_status_lists_each_point_with_its_place_or_reason() -> None:
    model = MODELS["llama"]
    rows = model.points()
    names = [(row.point, row.layer) for row in rows]
    per_layer = [name for name, point in POINTS.items() if point.per_layer]
    whole = [name for name, point in POINTS.items() if not point.per_layer]
    assert sorted(names, key=str) == sorted(
        [*((n, None) for n in whole), *((n, i) for n in per_layer for i in range(3))], key=str
    )
    for row in rows:
        assert row.detail
        assert row.available == (row.point in (*WHOLE, *PER_LAYER))
        if row.available:
            assert model.layout.site(row.address).key
        else:
            with pytest.raises(PointAbsent, match=row.detail[:20]):
                model.layout.site(row.address)


class Tower(nn.Module):
    """Two lists of layers, and blocks with parts called `input` and `output`."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.output = nn.Linear(4, 4), nn.Linear(4, 4)

        def __call__(self, x: mx.array) -> mx.array:
            return x + self.output(self.input(x))

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.vision = {"layers": [Tower.Block()]}
        self.text = {"layers": [Tower.Block(), Tower.Block()]}
        self.output = nn.Linear(4, 9)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed(tokens)
        for block in (*self.vision["layers"], *self.text["layers"]):
            x = block(x)
        return self.output(x)


def test_names_that_collide() -> None:
    root = Tower()
    mx.eval(root.parameters())
    adapter = Adapter("tower", embed="embed", layers="text.layers", head="output")
    model = InterpretableModel(root, adapter=adapter)
    _, cache = model.run_with_cache([3, 5])
    for path, module in root.named_modules():
        site = model.layout.site(path or "logits")
        assert model.layout.site(site.key).key == site.key
        if path:
            assert isinstance(site, ModuleSite)
            assert site.path == path and site.edge == "output"
        if path and path + ".input" not in model.layout.modules:
            entering = model.activations([3, 5], [path + ".input"])[path + ".input"]
            assert mx.allclose(module(entering), cache[path], atol=1e-6), path
    assert mx.array_equal(cache["layers.0"], cache["text.layers.0"])
    assert not mx.array_equal(cache["vision.layers.0"], cache["text.layers.0"])
    entering = model.activations([3, 5], ["layers.0.input"])["layers.0.input"]
    assert mx.array_equal(entering, cache["vision.layers.0"])  # the block's input, not its part
    cut = model.run_with_hooks([3, 5], [("text.layers.0.input", lambda x: 0 * x)])
    block = root.text["layers"][0]
    x = cache["vision.layers.0"]
    by_hand = root.text["layers"][1](x + block.output(mx.zeros_like(x)))
    assert mx.allclose(cut, root.output(by_hand), atol=1e-6)
    with pytest.raises(AddressError):
        model.layout.site("visual.layers.0.mlp")


def test_errors_are_what_the_reference_promises() -> None:
    with pytest.raises(LookupError):
        MODELS["llama"].layout.site("nothing")
    assert issubclass(PointAbsent, AddressError) and issubclass(AddressError, MlxrayError)
