"""Modules are replaced after wrapping: every answer is as if the model was wrapped again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlxray import InterpretableModel, ModuleResolver
from mlxray import interventions as iv
from mlxray.errors import AdapterError, AddressError, AnalysisError, InputError, TraceError
from mlxray.points.tree import ModuleTree

IDS, OTHER = [3, 5, 7, 2], [3, 5, 8, 2]


def lora(net: Any) -> None:
    linear_to_lora_layers(net, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0})
    for path, module in net.named_modules():
        if path.endswith("o_proj") and hasattr(module, "lora_b"):
            module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(0))


def lora_fused(net: Any) -> None:
    lora(net)
    for block in net.layers:
        for name, module in block.self_attn.items():
            if hasattr(module, "fuse"):
                block.self_attn[name] = module.fuse()


def norm(net: Any) -> None:
    net.model.norm = nn.LayerNorm(64)


def block(net: Any) -> None:
    net.model.layers[1] = llama.TransformerBlock(net.args, use_sliding=False)


def fewer_layers(net: Any) -> None:
    net.model.layers = net.model.layers[:2]


def popped_layer(net: Any) -> None:
    net.model.layers.pop()


def more_layers(net: Any) -> None:
    net.model.layers.append(llama.TransformerBlock(net.args, use_sliding=False))


def quantised(net: Any) -> None:
    nn.quantize(net, group_size=32, bits=8)


def vocabulary(net: Any) -> None:
    net.model.embed_tokens = nn.Embedding(4 * 31, 64)
    net.lm_head = nn.Linear(64, 4 * 31, bias=False)


def larger_table(net: Any) -> None:
    """The same modules with more rows."""
    net.model.embed_tokens.weight = mx.random.normal((50, 64))
    net.lm_head.weight = mx.random.normal((50, 64))


def one_head(net: Any) -> None:
    for each in net.layers:
        each.self_attn.n_heads = each.self_attn.n_kv_heads = 2
        each.self_attn.q_proj = nn.Linear(64, 32, bias=False)
        each.self_attn.o_proj = nn.Linear(32, 64, bias=False)


def swapped_layers(net: Any) -> None:
    net.layers[0], net.layers[2] = net.layers[2], net.layers[0]


CHANGES: dict[str, Callable[[Any], None]] = {
    change.__name__: change
    for change in (
        lora,
        lora_fused,
        norm,
        block,
        fewer_layers,
        popped_layer,
        more_layers,
        quantised,
        vocabulary,
        larger_table,
        one_head,
        swapped_layers,
    )
}


def network(make: Any) -> Any:
    return make.llama(hidden_size=64, intermediate_size=64, layer_types=None, sliding_window=None)


def answers(model: InterpretableModel) -> dict[str, Any]:
    """What the parts of mlxray say of a model, by name."""
    found: dict[str, Any] = {}
    last = model.layout.n_layers - 1
    logits, cache = model.run_with_cache(IDS)
    found["everything"] = {"logits": logits, **cache.activations}
    heads = model.activations(IDS, [("head_out", 0), ("attn_out", 0), ("resid_mid", last)])
    found["heads"] = heads.activations
    found["edited"] = model.run_with_hooks(IDS, [(("head_out", 0), iv.scale(2.0))])
    found["gradient"] = model.gradients(IDS, lambda x: x.sum(), [("z", last)])[1]
    with model.trace(IDS) as trace:
        found["saved"] = model.layers[last].output.save()
    found["read later"] = trace.activations[f"layers.{last}.pattern"]
    found["tail"] = model.finish_from(mx.ones((1, 2, 64)))
    found["lens"] = model.logit_lens(IDS).to_json()
    found["lens"] = found["lens"].partition('"metadata"')[0]
    found["patched"] = model.activation_patching(IDS, OTHER, "resid_pre").effect_matrix
    found["points"] = model.points()
    found["modules"] = [(p, id(m)) for p, m in model.named_modules()]
    found["layers"] = [id(layer.module) for layer in model.layers]
    found["vocabulary"] = model.tokens.vocabulary
    found["written"] = model.generate(IDS, max_tokens=3, stop_tokens=[]).tokens
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, mx.array):
        return one.shape == other.shape and bool(mx.array_equal(one, other, equal_nan=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


@pytest.mark.parametrize("change", CHANGES)
def test_as_if_wrapped_again(make: Any, change: str) -> None:
    net = network(make)
    model = InterpretableModel(net, tokenizer=make.tokenizer())
    answers(model)  # so that whatever is kept is there
    CHANGES[change](net)
    found = answers(model)
    for name, expected in answers(InterpretableModel(net, tokenizer=make.tokenizer())).items():
        assert same(found[name], expected), name


@pytest.mark.parametrize(
    "name", ["logit_lens", "activation_patching", "layers", "points", "tokens"]
)
@pytest.mark.parametrize("change", ["fewer_layers", "larger_table"])
def test_the_first_question_after_it(make: Any, change: str, name: str) -> None:
    """Each on its own finds out, whatever is asked first."""
    questions: dict[str, Callable[[InterpretableModel], Any]] = {
        "logit_lens": lambda m: m.logit_lens([IDS[0]]).predictions,
        "activation_patching": lambda m: (
            m.activation_patching(IDS, OTHER, "resid_post").effect_matrix
        ),
        "layers": lambda m: [layer.module for layer in m.layers],
        "points": lambda m: m.points(),
        "tokens": lambda m: m.tokens.vocabulary,
    }
    net = network(make)
    model = InterpretableModel(net, tokenizer=make.tokenizer())
    questions[name](model)
    CHANGES[change](net)
    expected = questions[name](InterpretableModel(net, tokenizer=make.tokenizer()))
    assert same(questions[name](model), expected)


def test_a_structure_that_was_found_by_looking(make: Any) -> None:
    class Own(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def __call__(self, ids: mx.array) -> Any:
            return self.inner(ids)

    net = Own(network(make))
    model = InterpretableModel(net)
    assert model.adapter.final_norm == "inner.model.norm"
    net.inner = make.gpt2()
    assert model.adapter.final_norm == InterpretableModel(net).adapter.final_norm
    assert model.logit_lens([3, 4]).predictions.keys() == {0, 1}
    net.inner = nn.Linear(3, 3)
    for _ in range(2):  # it stays refused
        with pytest.raises(AdapterError):
            model.run_with_hooks(IDS)
    net.inner = network(make)
    assert mx.array_equal(model.run_with_hooks(IDS), net(mx.array([IDS])))


def test_no_layers_left(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    net.model.layers = []
    for ask in (lambda: model.run_with_hooks(IDS), lambda: model.layout, lambda: model.layers[0]):
        with pytest.raises(AdapterError, match="layers"):
            ask()


def test_a_proxy_of_what_is_no_longer_there(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    last = model.layers[2]
    net.model.layers.pop()
    with pytest.raises(AddressError, match=r"layers\.2"):
        _ = last.module
    with pytest.raises(AddressError, match="no layer 2"):
        model.layers[2]
    lora(net)
    assert model.layers[0].self_attn.q_proj.linear.module is net.layers[0].self_attn.q_proj.linear


def test_a_trace_that_is_read_after_the_change_is_refused(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    with model.trace(IDS) as trace:
        pass
    block(net)
    with pytest.raises(TraceError, match="changed"):
        trace.activations["layers.2"]


def test_new_parameters_run_in_other_threads(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    lora(net)  # lazy: its parameters belong to this thread until they are evaluated
    logits = model.run_with_hooks(IDS)
    found: list[mx.array] = []

    def work() -> None:
        found.append(model.run_with_cache(IDS)[0])
        mx.clear_streams()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert mx.array_equal(found[0], logits)


def test_what_a_model_allows_is_tried_again(make: Any) -> None:
    """Patches of one position are computed from there on, unless blocks look ahead."""

    class Backwards(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __call__(self, x: mx.array, *rest: Any, **more: Any) -> mx.array:
            return self.inner(x, *rest, **more) + 0.5 * x[:, ::-1]

    net = network(make)
    model = InterpretableModel(net)
    model.activation_patching(IDS, OTHER, "resid_pre", by="position")
    net.model.layers[1].mlp = Backwards(net.model.layers[1].mlp)
    options: dict[str, Any] = {"component": "resid_pre", "by": "position"}
    fast = model.activation_patching(IDS, OTHER, **options)
    slow = model.activation_patching(IDS, OTHER, **options, exact="naive")
    assert mx.allclose(fast.effect_matrix, slow.effect_matrix, atol=1e-4)


def test_the_resolver(make: Any) -> None:
    net = network(make)
    resolver = ModuleResolver(net)
    assert resolver.get_final_norm() is net.model.norm
    norm(net)
    assert resolver.get_final_norm() is net.model.norm


def test_an_unchanged_model_is_looked_at_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = InterpretableModel(network(make))
    version, looks = model.layout.version, 0
    real = ModuleTree.__init__

    def counted(self: ModuleTree, root: nn.Module) -> None:
        nonlocal looks
        looks += 1
        real(self, root)

    monkeypatch.setattr(ModuleTree, "__init__", counted)
    model.run_with_cache(IDS)
    model.model.update(dict(model.model.parameters()))  # the same modules, new arrays
    model.model.freeze()
    model.model.model.norm.extra = mx.ones(3)  # a parameter more
    model.run_with_cache(IDS)
    assert looks == 0
    assert model.layout.version == version


def test_a_call_compares_the_modules_once_or_twice(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = InterpretableModel(network(make))
    compared, real = 0, ModuleTree.intact

    def counted(self: ModuleTree) -> bool:
        nonlocal compared
        compared += 1
        return real(self)

    monkeypatch.setattr(ModuleTree, "intact", counted)

    def trace() -> None:
        with model.trace(IDS):
            for layer in model.layers:
                layer.output.save()

    acts: dict[str, Callable[[], Any]] = {
        "hooks": lambda: model.run_with_hooks(IDS, [("layers.0", iv.scale(2.0))]),
        "cache": lambda: model.run_with_cache(IDS),
        "activations": lambda: model.activations(IDS, [("z", layer) for layer in range(3)]),
        "trace": trace,
    }
    for name, act in acts.items():
        act()
        compared = 0
        act()
        assert compared <= 3, name


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.Dropout3d])
def test_dropout_in_training_mode_is_refused_where_runs_are_compared(make: Any, kind: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    linear_to_lora_layers(net, 2, {"rank": 4, "scale": 2.0, "dropout": 0.0})
    model.logit_lens(IDS)  # nothing is dropped
    net.model.layers[0].mlp.dropout = kind(0.5)
    with pytest.raises(AnalysisError, match=r"layers\.0\.mlp\.dropout.*eval\(\)"):
        model.activation_patching(IDS, OTHER)
    assert model.run_with_hooks(IDS).shape == (1, 4, 31)  # one run alone may have it
    net.eval()
    model.activation_patching(IDS, OTHER)
    net.train()
    with pytest.raises(AnalysisError, match="dropout"):
        model.logit_lens(IDS)


def test_every_analysis_and_what_compares_prompts_refuses_dropout(make: Any) -> None:
    from mlxray.analyses import steering

    net = network(make)
    net.model.layers[0].mlp.dropout = nn.Dropout(0.5)
    net.train()
    model = InterpretableModel(net, tokenizer=make.tokenizer())
    for ask in (
        lambda: steering.steering_vector(model, IDS, OTHER),
        lambda: steering.contrast_probe(model, IDS, OTHER, layer=1),
        lambda: model.head_scores("abc"),
        lambda: model.attribution_patching(IDS, OTHER),
    ):
        with pytest.raises(AnalysisError, match="dropout"):
            ask()


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = nn.Dropout(0.5)

    def __call__(self, x: mx.array) -> mx.array:
        return self.dropout(self.inner(x))


def test_a_later_read_of_an_unedited_trace_draws_the_same_numbers(make: Any) -> None:
    net = network(make)
    net.model.layers[0].mlp = Noisy(net.model.layers[0].mlp)
    net.train()
    model = InterpretableModel(net)
    with model.trace(IDS) as trace:
        dropped = model.layers[0].mlp.output.save()
    mx.random.normal((3,))
    assert mx.array_equal(trace.activations["layers.0.mlp.dropout"], dropped)
    before = mx.random.state[0].tolist()
    _ = trace.activations["layers.1"]
    assert mx.random.state[0].tolist() == before


def test_a_number_that_was_read_off_a_module(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    before, site = model.layout.version, model.layout.site(("head_out", 1))
    assert site.heads == 4
    for _ in range(3):
        model.layout.heads(1)
    assert model.layout.version == before
    net.layers[1].self_attn.n_heads = 2
    assert model.layout.site(("head_out", 1)).heads == 2


def test_an_id_past_the_new_table_is_refused(make: Any) -> None:
    net = network(make)
    model = InterpretableModel(net)
    model.run_with_hooks([30])
    net.model.embed_tokens.weight = net.model.embed_tokens.weight[:20]
    with pytest.raises(InputError, match="vocabulary"):
        model.run_with_hooks([30])


def test_parameters_are_flat_as_before(make: Any) -> None:
    net = network(make)
    before = [name for name, _ in tree_flatten(net.parameters())]
    InterpretableModel(net).run_with_cache(IDS)
    assert [name for name, _ in tree_flatten(net.parameters())] == before


@pytest.mark.parametrize(
    "options", [{"interventions": {"layers.1": iv.scale(2.0)}}, {"watch": ("z", 1)}], ids=list
)
def test_during_a_generation_it_is_refused(make: Any, options: Any) -> None:
    net = network(make)
    model = InterpretableModel(net, tokenizer=make.tokenizer())
    stream = model.stream_generate(IDS, 9, stop_tokens=[], **options)
    next(stream)
    block(net)
    with pytest.raises(TraceError, match="replaced during this generation"):
        list(stream)
    assert len(list(model.stream_generate(IDS, 3, stop_tokens=[], **options))) == 3
