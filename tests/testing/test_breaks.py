"""Things broken on purpose: the kit must see each of them."""

from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import Adapter, FusedAttention, InterpretableModel, OwnSoftmax, registry
from mlxray.points import sites
from mlxray.points.experts import ExpertsSite
from mlxray.run import gradients, tail
from mlxray.run.run import Run
from mlxray.seams import attention
from mlxray.seams.edits import Edit
from mlxray.testing import check_adapter
from mlxray.testing.zoo import CONFIGS
from mlxray.testing.zoo.build import build

#: As few as each family can have.
LAYERS = {"llama": 1, "gemma2": 1, "gemma3_text": 2}


def llama() -> nn.Module:
    return build({**CONFIGS["llama"], "num_hidden_layers": 1}, "llama")


def failing(model: nn.Module, adapter: Adapter | None = None) -> set[tuple[str, str]]:
    return {(row.check, row.point) for row in check_adapter(model, adapter).failures}


def declared(name: str) -> Adapter:
    found = registry.get("adapter", name)
    assert isinstance(found, Adapter)
    return found


WRONG_ADAPTERS = {
    "the MLP's path leads to attention": (
        "llama",
        {"mlp": "self_attn", "down_proj": "o_proj"},
        {("sum", "resid_post"), ("post", "mlp_add")},
    ),
    "the norms are swapped": (
        "llama",
        {"attn_norm": "post_attention_layernorm", "mlp_norm": "input_layernorm"},
        {("attn_norm", "resid_pre"), ("mid", "resid_mid"), ("mlp_norm feeds", "mlp_out")},
    ),
    "the norm after attention is forgotten": (
        "gemma3",
        {"post_attn_norm": None},
        {("sum", "resid_post"), ("mid", "resid_mid")},
    ),
    "the norm after the MLP is the one before it": (
        "gemma3",
        {"post_mlp_norm": "pre_feedforward_layernorm"},
        {("sum", "resid_post"), ("post_mlp_norm", "mlp_out")},
    ),
    "heads are counted by the key/value heads": (
        "llama",
        {"heads": "n_kv_heads"},
        {("out_proj", "z"), ("head_share", "head_out")},
    ),
    "heads are counted by nothing": ("llama", {"heads": "n_haeds"}, {("presence", "head_out")}),
    "key/value heads are the heads": ("gemma2", {"kv_heads": "n_heads"}, {("mix", "z")}),
    "keys are taken for queries": (
        "gemma2",
        {"attention": OwnSoftmax(q="rope#1", k="rope#0")},
        {("scores", "scores")},
    ),
    "values are taken for keys": (
        "gemma2",
        {"attention": OwnSoftmax(v="k_proj")},
        {("mix", "z"), ("edit", "v")},
    ),
    "the fused kernel is not called": (
        "gemma2",
        {"attention": FusedAttention()},
        {("presence", "q"), ("presence", "z")},
    ),
    "the output projection is another": ("llama", {"out_proj": "q_proj"}, {("out_proj", "z")}),
    "the down projection is another": (
        "llama",
        {"down_proj": "up_proj"},
        {("down_proj", "mlp_act")},
    ),
    "the final norm is a block's": (
        "llama",
        {"final_norm": "model.layers.0.input_layernorm"},
        {("final_norm", "final_norm")},
    ),
    "a point is declared absent and a departure is made up": (
        "llama",
        {"departures": {"mix": "not really"}},
        {("mix", "model")},
    ),
}


@pytest.mark.parametrize("name", WRONG_ADAPTERS)
def test_wrong_adapter(name: str):
    family, changes, expected = WRONG_ADAPTERS[name]
    file = "gemma3_text" if family == "gemma3" else family
    model = build({**CONFIGS[file], "num_hidden_layers": LAYERS[file]}, file)
    assert expected <= failing(model, replace(declared(family), **changes))


def test_pattern_scaled_by_one_percent(monkeypatch):
    explicit = attention.explicit_pattern
    monkeypatch.setattr(attention, "explicit_pattern", lambda s, k: explicit(s, k) * 1.01)
    assert {("softmax", "pattern"), ("mix", "z")} <= failing(llama())


def test_pattern_that_looks_ahead(monkeypatch):
    explicit = attention.explicit_scores
    monkeypatch.setattr(
        attention, "explicit_scores", lambda q, k, scale, mask: explicit(q, k, scale, None)
    )
    assert ("mask", "pattern") in failing(llama())


def test_grouped_heads_in_the_wrong_order(monkeypatch):
    def tiled(pattern, v):
        return pattern @ mx.tile(v.astype(mx.float32), (1, pattern.shape[1] // v.shape[1], 1, 1))

    monkeypatch.setattr(attention, "mix", tiled)
    found = failing(llama())
    assert {("edit", "pattern"), ("edited pattern @ v", "z")} <= found


@pytest.mark.parametrize("point", ["q", "k", "v", "z"])
def test_dropped_edit_inside_attention(monkeypatch, point: str):
    passed = attention.Frame._pass

    def dropping(self, name, value):
        return value if name == point and self._edits.get(name) else passed(self, name, value)

    monkeypatch.setattr(attention.Frame, "_pass", dropping)
    assert ("edit", point) in failing(llama())


def test_edit_that_fires_and_is_dropped(monkeypatch):
    """The counts say that something changed, and the model never sees it."""

    def dropping(self, value, call, edit):
        edit.apply(sites._first_array(value), call)
        return value

    monkeypatch.setattr(sites.ModuleSite, "_edited", dropping)
    found = failing(llama())
    assert {("edit", "resid_post"), ("edit", "mlp_act"), ("edit", "attn_out")} <= found


def test_edit_at_half_strength(monkeypatch):
    apply = Edit.apply
    monkeypatch.setattr(
        Edit, "apply", lambda self, value, call: value + (apply(self, value, call) - value) / 2
    )
    assert {("edit", p) for p in ("embed", "resid_mid", "head_out")} <= failing(llama())


def test_gradients_off_by_one_percent(monkeypatch):
    exact = gradients.gradients

    def scaled(*args, **kwargs):
        value, found = exact(*args, **kwargs)
        return value, {key: gradient * 1.01 for key, gradient in found.items()}

    monkeypatch.setattr(gradients, "gradients", scaled)
    found = failing(llama())
    assert {("gradient", "resid_post"), ("gradient", "pattern")} <= found


def test_lens_that_is_almost_right(monkeypatch):
    model = InterpretableModel(llama())
    finish = tail.finish_from
    monkeypatch.setattr("mlxray.model.finish_from", lambda *a, **k: finish(*a, **k) * (1 + 1e-5))
    assert [row.check for row in check_adapter(model).failures] == ["lens"]


def test_watching_that_rounds(monkeypatch):
    watched = Run.on_call

    def rounding(self, module, original, args, kwargs):
        output = watched(self, module, original, args, kwargs)
        return output * (1 + 2**-20) if isinstance(output, mx.array) else output

    monkeypatch.setattr(Run, "on_call", rounding)
    found = failing(llama())
    assert ("unedited, float32", "model") in found


def test_class_left_behind(monkeypatch):
    model = llama()
    execute = Run.execute

    def leaking(self, *args, **kwargs):
        try:
            return execute(self, *args, **kwargs)
        except BaseException:
            cls = type(model.model.norm)
            model.model.norm.__class__ = type(cls.__name__, (cls,), {})
            raise

    monkeypatch.setattr(Run, "execute", leaking)
    assert ("leaks", "model") in failing(model)


def test_function_left_behind(monkeypatch):
    execute, softmax = Run.execute, mx.softmax

    def leaking(self, *args, **kwargs):
        try:
            return execute(self, *args, **kwargs)
        except BaseException:
            mx.softmax = partial(softmax)
            raise

    monkeypatch.setattr(Run, "execute", leaking)
    try:
        assert failing(llama()) == {("leaks", "model")}
    finally:
        mx.softmax = softmax


class Blurred(nn.Module):
    """A model whose logits see the whole prompt, and the other rows."""

    def __init__(self, inner: nn.Module, axis: int) -> None:
        super().__init__()
        self.inner = inner
        self.axis = axis

    def __call__(self, tokens):
        logits = self.inner(tokens)
        return logits + logits.mean(axis=self.axis, keepdims=True)


@pytest.mark.parametrize(("axis", "check"), [(0, "batch"), (1, "right padding")])
def test_prompts_that_see_each_other(axis: int, check: str):
    known = declared("llama")
    paths = {n: f"inner.{getattr(known, n)}" for n in ("embed", "layers", "final_norm", "head")}
    model = Blurred(llama(), axis)
    assert (check, "model") in failing(model, replace(known, **paths))


def test_cache_that_forgets(monkeypatch):
    from mlx_lm.models import cache

    update = cache.KVCache.update_and_fetch

    def forgetting(self, keys, values):
        return update(self, keys, values * 0.5)

    monkeypatch.setattr(cache.KVCache, "update_and_fetch", forgetting)
    assert ("cache", "model") in failing(llama())


def test_router_scaled_by_one_percent(monkeypatch):
    exact = ExpertsSite._scores

    def scaled(self, run, call):
        scores, choice, count = exact(self, run, call)
        return scores * 1.01, choice, count

    monkeypatch.setattr(ExpertsSite, "_scores", scaled)
    model = build({**CONFIGS["mixtral"], "num_hidden_layers": 1}, "mixtral")
    assert ("mixture", "router") in failing(model)


def test_a_dead_sublayer_proves_nothing():
    model = llama()
    for layer in model.layers:
        layer.mlp.down_proj.weight = mx.zeros_like(layer.mlp.down_proj.weight)
    report = check_adapter(model)
    assert report.ok, report.table()
    rows = [row for row in report.checks if row.point in ("mlp_out", "mlp_act")]
    assert {row.status for row in rows if row.check in ("edit", "gradient", "down_proj")} == {
        "skipped"
    }


def test_constant_attention_proves_nothing():
    model = llama()
    for layer in model.layers:
        layer.self_attn.q_proj.weight = mx.zeros_like(layer.self_attn.q_proj.weight)
    assert ("softmax", "pattern") in failing(model)


def test_a_model_that_cannot_run_fails_once():
    model = llama()
    model.model.norm.weight = mx.full(model.model.norm.weight.shape, mx.nan)
    (row,) = check_adapter(model).failures
    assert (row.check, row.point) == ("runs", "model")
