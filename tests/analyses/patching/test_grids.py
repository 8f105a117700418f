"""Ways to split a layer, other sources, many pairs, and the plan told before a sweep."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses import activation_patching
from mlxray.analyses.patching.intervals import mean_and_interval
from mlxray.analyses.patching.patches import Patch
from mlxray.analyses.patching.sweep import Sweep
from mlxray.errors import InputError

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

pytestmark = pytest.mark.floats


def recovered(model, logits, clean=CLEAN, corrupted=CORRUPTED):
    ends = [np.array(model.model(mx.array([ids]))[0, -1]) for ids in (clean, corrupted)]
    patched = np.array(logits[0, -1])
    return 1 - np.linalg.norm(patched - ends[0]) / np.linalg.norm(ends[1] - ends[0])


def run(model, layer, point, index, value):
    def put(x):
        new = mx.array(x)
        new[index] = value[index]
        return new

    return model.run_with_hooks(CORRUPTED, [((point, layer), put)], allow_unchanged=True)


@pytest.mark.parametrize("make", [small_llama, small_gpt2])
def test_each_way_to_split_a_layer(make):
    model = make()
    everywhere = slice(None)
    ways = {
        ("mlp_out", "position"): lambda p: (everywhere, p),
        ("z", "head"): lambda h: (everywhere, h),
        ("mlp_act", "neuron"): lambda u: (everywhere, everywhere, u),
    }
    for (point, by), index in ways.items():
        result = activation_patching(model, CLEAN, CORRUPTED, point, by=by, layers=[1, 2])
        clean = model.watch(CLEAN, point)
        size = {"position": 10, "head": 4, "neuron": clean[1].shape[-1]}[by]
        assert result.effect_matrix.shape == (2, size)
        for row, layer in enumerate([1, 2]):
            for at in (0, size // 2, size - 1):
                logits = run(model, layer, point, index(at), clean[layer])
                effect = result.effect_matrix[row, at].item()
                assert effect == pytest.approx(recovered(model, logits), abs=2e-5)
    both = activation_patching(model, CLEAN, CORRUPTED, "z", by="head_position", layers=[1])
    assert both.effect_matrix.shape == (1, 4, 10)
    logits = run(model, 1, "z", (everywhere, 2, 7), model.watch(CLEAN, "z", [1])[1])
    assert both.effect_matrix[0, 2, 7].item() == pytest.approx(recovered(model, logits), abs=2e-5)
    (place, effect), *_ = both.top_components(1)
    assert (
        effect
        == both.effect_matrix.max().item()
        == both.effect_matrix[place[0] - 1, place[1], place[2]].item()
    )


def test_zero_mean_and_resample():
    model = small_llama()
    others = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]
    zero = activation_patching(model, CLEAN, CORRUPTED, "attn_out", source="zero")
    logits = model.run_with_hooks(CORRUPTED, [(("attn_out", 2), lambda x: x * 0)])
    assert zero.effect_matrix[2].item() == pytest.approx(recovered(model, logits), abs=2e-5)
    mean = activation_patching(model, CLEAN, CORRUPTED, "attn_out", source="mean", reference=others)
    tokens = np.concatenate([np.array(model.watch(o, "attn_out", [2])[2][0]) for o in others])
    average = mx.array(tokens.mean(axis=0))
    logits = model.run_with_hooks(
        CORRUPTED, [(("attn_out", 2), lambda x: mx.broadcast_to(average, x.shape))]
    )
    assert mean.effect_matrix[2].item() == pytest.approx(recovered(model, logits), abs=2e-5)
    drawn = activation_patching(
        model, CLEAN, CORRUPTED, "attn_out", source="resample", reference=others
    )
    other = model.watch(others[1], "attn_out", [2])[2]
    logits = model.run_with_hooks(CORRUPTED, [(("attn_out", 2), lambda x: other)])
    assert drawn.effect_matrix[2].item() == pytest.approx(recovered(model, logits), abs=2e-5)
    with pytest.raises(InputError, match="needs reference"):
        activation_patching(model, CLEAN, CORRUPTED, source="mean")
    with pytest.raises(InputError, match="reference is for"):
        activation_patching(model, CLEAN, CORRUPTED, reference=others)
    with pytest.raises(InputError, match="no prompt of the reference"):
        activation_patching(model, CLEAN, CORRUPTED, source="resample", reference=others[:1])
    with pytest.raises(InputError, match="source is one of"):
        activation_patching(model, CLEAN, CORRUPTED, source="noise")


def test_many_pairs_give_means_and_intervals():
    model = small_llama()
    clean = [CLEAN, [3, 2, 1, 4, 5, 6, 7, 8, 9, 10], [7, 7, 1, 2, 3, 4, 9, 9, 2, 1]]
    corrupted = [CORRUPTED, [3, 9, 1, 4, 5, 6, 17, 8, 9, 10], [7, 7, 1, 12, 3, 4, 9, 19, 2, 1]]
    together = activation_patching(model, clean, corrupted, "mlp")
    alone = [
        activation_patching(model, a, b, "mlp").effect_matrix
        for a, b in zip(clean, corrupted, strict=True)
    ]
    assert together.pairs == 3
    gaps = []
    for both in zip(clean, corrupted, strict=True):
        ends = [model.run_with_hooks(ids)[0, -1] for ids in both]
        gaps.append(mx.linalg.norm(ends[0] - ends[1], stream=mx.cpu).item())
    expected = sum(gap * effect for gap, effect in zip(gaps, alone, strict=True)) / sum(gaps)
    assert mx.allclose(together.effect_matrix, expected, atol=1e-5)
    apart = activation_patching(model, clean, corrupted, "mlp", normalize="pair")
    assert mx.allclose(apart.effect_matrix, mx.mean(mx.stack(alone), axis=0), atol=1e-5)
    low, high = together.interval
    assert mx.all(low <= together.effect_matrix + 1e-6).item()
    assert mx.all(high >= together.effect_matrix - 1e-6).item()
    assert mx.any(high - low > 1e-3).item()
    assert "mean of 3 pairs" in together.summary()
    with pytest.raises(InputError, match="differ in length"):
        activation_patching(model, [CLEAN, CLEAN[:5]], [CORRUPTED, CORRUPTED[:5]], by="position")


def test_the_interval_covers_the_mean_of_its_source():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        sample = [mx.array([x]) for x in rng.normal(3.0, 1.0, size=30)]
        _, (low, high) = mean_and_interval(sample, trial)
        covered += int(low[0].item() <= 3.0 <= high[0].item())
    assert 0.88 <= covered / 200 <= 0.99


def test_the_plan_counts_what_a_sweep_does():
    model = small_llama()
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    plan = sweep.plan([(Patch("mlp_out", layer),) for layer in range(4)])
    assert (plan.cells, plan.passes, plan.layer_passes) == (4, 1, 0 + 1 + 2 + 3)
    plan = sweep.plan([(Patch("mlp_act", layer),) for layer in range(4)])
    assert (plan.cells, plan.passes, plan.layer_passes) == (4, 1, 1 + 2 + 3 + 4)
    assert "4 patched runs in 1 passes" in str(plan)
    tight = Sweep(model, model.tokens.batch(CORRUPTED), budget=sweep.row_bytes() * 3)
    assert tight.plan([(Patch("mlp_out", layer),) for layer in range(4)]).passes == 2


def test_peak_memory_stays_within_the_budget():
    model = small_llama()
    cells = [(Patch("resid_pre", layer, p),) for layer in range(4) for p in range(10)] * 8
    clean = model.tokens.batch(CLEAN)
    rows = []
    addresses = [f"layers.{layer}.resid_pre" for layer in range(4)]
    # A GPU rounds allocations up, and keeps the temporaries of a graph until it ends.
    slack = 12_000_000 if mx.default_device().type == mx.DeviceType.gpu else 0
    for budget in (400_000, 1_600_000):
        sweep = Sweep(model, model.tokens.batch(CORRUPTED), budget=budget)
        values = sweep.sources(clean, addresses)
        sweep.effects(cells[:4], values, lambda x: x[:, 0])
        mx.clear_cache()
        start = mx.get_active_memory()
        mx.reset_peak_memory()
        sweep.effects(cells, values, lambda x: x[:, 0])
        assert mx.get_peak_memory() - start <= budget + slack
        rows.append(sweep.rows_per_pass())
        assert sweep.plan(cells).peak_bytes <= budget
    assert 1 < rows[0] < rows[1]


class Rotated:
    """A dictionary of twice as many directions as the stream has, with an error left over."""

    def __init__(self, width):
        mx.random.seed(7)
        self.directions = mx.random.normal((width, 2 * width)) / width**0.5

    def encode(self, x):
        return mx.maximum(x @ self.directions, 0)

    def decode(self, f):
        return f @ self.directions.T


@pytest.mark.parametrize("exact", ["batched", "naive"])
def test_features_of_a_dictionary_one_at_a_time(exact):
    model = small_llama()
    dictionary = Rotated(32)
    features = [0, 9, 40]
    result = activation_patching(
        model,
        CLEAN,
        CORRUPTED,
        "mlp_out",
        by="feature",
        layers=[1, 2],
        dictionary=dictionary,
        features=features,
        exact=exact,
    )
    assert result.effect_matrix.shape == (2, 3)
    for row, layer in enumerate([1, 2]):
        clean = dictionary.encode(model.watch(CLEAN, "mlp_out", [layer])[layer])
        for column, feature in enumerate(features):

            def put(x, feature=feature, clean=clean):
                change = clean[..., feature] - dictionary.encode(x)[..., feature]
                return x + change[..., None] * dictionary.directions[:, feature]

            logits = model.run_with_hooks(CORRUPTED, [(("mlp_out", layer), put)])
            effect = result.effect_matrix[row, column].item()
            assert effect == pytest.approx(recovered(model, logits), abs=2e-5)
    with pytest.raises(InputError, match="belong together"):
        activation_patching(model, CLEAN, CORRUPTED, by="feature")
    with pytest.raises(InputError, match="features are those of a dictionary"):
        activation_patching(model, CLEAN, CORRUPTED, features=[1, 2])


def test_tokens_of_a_metric_may_be_text():
    from mlxray import InterpretableModel

    model = InterpretableModel("pocket")
    prompts = "The capital of France is", "The capital of Italy is"

    def patch(right, wrong):
        tokens = {"correct_token": right, "incorrect_token": wrong}
        return activation_patching(
            model, *prompts, "resid_post", metric="logit_diff", metric_kwargs=tokens
        )

    ids = [model.tokens.continuation(text) for text in (" Paris", " Rome")]
    assert patch(" Paris", " Rome").effect_matrix.tolist() == pytest.approx(
        patch(ids[0][0], ids[1][0]).effect_matrix.tolist()
    )
    with pytest.raises(InputError, match="tokens here"):
        patch(" Constantinople", " Rome")
