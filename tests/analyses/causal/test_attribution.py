"""Attribution against finite differences, integrals, exact patching and hand-made rules."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxray import Metric
from mlxray.analyses import attribution_map, attribution_patching
from mlxray.analyses.causal.attribution import estimates
from mlxray.analyses.causal.attribution.certificate import sign_agreement
from mlxray.analyses.causal.attribution.relevance import relevance_edits
from mlxray.errors import AddressError, InputError, PluginError

from ..models import CLEAN, CORRUPTED, small_gpt2, small_llama

pytestmark = pytest.mark.floats


def answers(model):
    """The two tokens whose logit difference the prompts move most, or float32 is too coarse."""
    clean, corrupted = (model.model(mx.array([ids]))[0, -1] for ids in (CLEAN, CORRUPTED))
    moved = clean - corrupted
    return int(mx.argmax(moved).item()), int(mx.argmin(moved).item())


@pytest.fixture(params=[small_llama, small_gpt2], ids=["llama", "gpt2"])
def model(request):
    return request.param()


def keywords(model):
    right, wrong = answers(model)
    return {
        "metric": "logit_diff",
        "metric_kwargs": {"correct_token": right, "incorrect_token": wrong},
    }


def estimate(model, component="resid_post", **options):
    return attribution_patching(model, CLEAN, CORRUPTED, component, **keywords(model), **options)


def share(model, logits):
    """The metric by hand: where the logit difference is between corrupted and clean."""

    right, wrong = answers(model)

    def difference(x):
        return (x[0, -1, right] - x[0, -1, wrong]).item()

    low = difference(model.model(mx.array([CORRUPTED])))
    high = difference(model.model(mx.array([CLEAN])))
    return (difference(logits) - low) / (high - low)


def test_one_pass_of_both_prompts_gives_what_two_passes_do(model, monkeypatch):
    """A GPU runs the prompts as rows of one pass."""
    points = ("resid_post", "attn_out", "mlp_out", "z", "pattern")
    given = model, mx.array([CLEAN]), mx.array([CORRUPTED]), points
    for options in (
        keywords(model),
        {"metric": "l2_distance"},
        {"metric": lambda p, c, x: p.sum()},
    ):
        apart = attribution_map(*given, **options)
        with monkeypatch.context() as patch:
            patch.setattr(estimates, "on_gpu", lambda: True)
            together = attribution_map(*given, **options)
        for point in points:
            one, other = (np.array(each.maps[point].by_position) for each in (apart, together))
            assert np.abs(one).max() > 0
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("component", ["resid_pre", "attn_out", "mlp_out", "mlp_act", "z", "v"])
def test_gradient_agrees_with_a_small_step_of_the_patch(model, component):
    cells = np.array(estimate(model, component).by_position)
    assert np.abs(cells).max() > 1e-3
    clean = model.watch(CLEAN, component)
    rng = np.random.default_rng(0)
    flat = (
        np.argsort(-np.abs(cells), axis=None)[:3].tolist()
        + rng.integers(cells.size, size=2).tolist()
    )
    for index in (np.unravel_index(i, cells.shape) for i in flat):
        layer, position = int(index[0]), int(index[-1])

        def moved(step, index=index, layer=layer, position=position):
            def put(x):
                where = (0, int(index[1]), position) if x.ndim == 4 else (0, position)
                new = mx.array(x)
                new[where] = x[where] + step * (clean[layer][where] - x[where])
                return new

            return model.run_with_hooks(
                CORRUPTED, [((component, layer), put)], allow_unchanged=True
            )

        slope = (share(model, moved(1e-2)) - share(model, moved(-1e-2))) / 2e-2
        assert cells[index] == pytest.approx(slope, rel=3e-2, abs=3e-4)


@pytest.mark.parametrize("component", ["resid_pre", "mlp_out", "z", "k"])
def test_finite_differences_agree_with_the_gradient(model, component):
    gradient = np.array(estimate(model, component).by_position)
    found = estimate(model, component, method="finite_diff", eps=1e-2, n_projections=2)
    assert np.allclose(found.by_position, gradient, rtol=3e-2, atol=5e-4)
    assert found.attribution_scores.shape == gradient.shape[:-1]


def test_integrated_gradients_add_up_to_the_whole_effect(model):
    found = estimate(model, "resid_post", method="integrated_gradients", steps=64)
    last = model.layout.n_layers - 1
    for layer in range(last):
        clean = model.watch(CLEAN, "resid_post", [layer])[layer]
        logits = model.run_with_hooks(CORRUPTED, [(("resid_post", layer), lambda _, c=clean: c)])
        assert found.attribution_scores[layer].item() == pytest.approx(
            share(model, logits), abs=2e-3
        )


@pytest.mark.parametrize("point", ["q", "k"])
def test_query_key_takes_the_softmax_exactly(point):
    """On the last layer with a linear tail, what follows the pattern is linear: no estimate."""
    model = small_llama()
    last = model.layout.n_layers - 1
    block = model.model.model.layers[last]
    block.mlp.down_proj.weight = mx.zeros_like(block.mlp.down_proj.weight)

    def linear(patched_logits, clean_logits, corrupted_logits, *, per_example=False):
        # Undo the final norm's scale, which depends on the patch, by a ratio of two logits' sums.
        rows = patched_logits[:, -1, 3] - patched_logits[:, -1, 4]
        return rows if per_example else rows.item()

    # Large queries and keys saturate the softmax, where the plain gradient fails.
    attention = block.self_attn
    attention.q_proj.weight = attention.q_proj.weight * 4
    options = {"layers": [last], "verify_top": 12, "position": -1}
    exact = attribution_patching(
        model, CLEAN, CORRUPTED, point, Metric("linear", linear), method="query_key", **options
    )
    plain = attribution_patching(
        model, CLEAN, CORRUPTED, point, Metric("linear", linear), **options
    )
    right = np.array(exact.certificate.exact)
    wrong = np.abs(np.array(plain.certificate.estimated) - np.array(plain.certificate.exact))
    error = np.abs(np.array(exact.certificate.estimated) - right)
    assert np.abs(right).max() > 1e-3
    assert error.sum() < 0.5 * wrong.sum()
    assert exact.certificate.correlation > 0.97


def test_relevance_rules_leave_the_forward_pass_alone(model):
    edits = relevance_edits(model.layout)
    logits = model.run_with_hooks(CLEAN, list(edits.items()), allow_unchanged=True)
    assert mx.allclose(logits, model.model(mx.array([CLEAN])), rtol=1e-5, atol=1e-5)


def test_relevance_is_conserved_where_attention_is_left_out():
    """With the rules a bias-free stack is linear: x · gradient is the same at every layer."""
    model = small_llama()
    for block in model.model.model.layers:
        block.self_attn.o_proj.weight = mx.zeros_like(block.self_attn.o_proj.weight)
    addresses = [f"layers.{layer}.resid_post" for layer in range(model.layout.n_layers)]

    def metric(logits):
        return logits[0, -1, 3]

    edits = relevance_edits(model.layout)
    value, with_rules = model.gradients(CLEAN, metric, addresses, interventions=edits)
    _, plain = model.gradients(CLEAN, metric, addresses)
    streams = model.watch(CLEAN, "resid_post")
    sums = [mx.sum(streams[i] * with_rules[a]).item() for i, a in enumerate(addresses)]
    others = [mx.sum(streams[i] * plain[a]).item() for i, a in enumerate(addresses)]
    assert sums == pytest.approx([value.item()] * len(sums), rel=1e-3)
    assert not np.allclose(others, sums, rtol=1e-2)


def test_certificate_holds_exact_effects(model):
    found = estimate(model, "z", verify_top=5, verify_random=6, seed=1)
    certificate = found.certificate
    assert len(certificate.cells) == len(certificate.exact) == 11
    assert certificate.top == 5
    scores = np.abs(np.array(found.by_position))
    for (layer, head, position), guess in zip(
        certificate.cells[:5], certificate.estimated, strict=False
    ):
        assert abs(guess) >= np.sort(scores, axis=None)[-5]
        assert guess == pytest.approx(found.by_position[layer, head, position].item())
    clean = model.watch(CLEAN, "z")
    for (layer, head, position), effect in zip(certificate.cells, certificate.exact, strict=True):

        def put(x, layer=layer, head=head, position=position):
            new = mx.array(x)
            new[:, head, position] = clean[layer][:, head, position]
            return new

        logits = model.run_with_hooks(CORRUPTED, [(("z", layer), put)], allow_unchanged=True)
        assert effect == pytest.approx(share(model, logits), abs=2e-5)
    assert certificate.largest_missed == max(map(abs, certificate.exact[5:]))
    expected = np.corrcoef(certificate.estimated, certificate.exact)[0, 1]
    assert certificate.correlation == pytest.approx(expected)


def test_certificate_counts_equal_signs_of_what_is_not_rounding():
    assert sign_agreement([1.0, -2.0, 3.0, -4.0], [1.0, 2.0, 3.0, -4.0]) == 0.75
    assert sign_agreement([1.0, -1.0, 1.0], [1.0, 1e-7, -1e-7]) == 1.0
    assert sign_agreement([1.0, 0.0], [0.0, 0.0]) is None


def test_finite_differences_take_whole_steps():
    """Steps of half and of all the way, by hand: far from the gradient where the model bends."""
    model = small_llama()
    clean, corrupted = (model.watch(ids, "resid_post")[1] for ids in (CLEAN, CORRUPTED))
    found = estimate(
        model, "resid_post", layers=[1], method="finite_diff", eps=0.5, n_projections=2
    )
    gradient = estimate(model, "resid_post", layers=[1])
    expected = []
    for position in range(len(CLEAN)):
        slopes = []
        for step in (0.5, 1.0):
            ends = []
            for sign in (1, -1):

                def put(x, position=position, shift=sign * step):
                    new = mx.array(x)
                    new[:, position] += shift * (clean - corrupted)[:, position]
                    return new

                logits = model.run_with_hooks(
                    CORRUPTED, [(("resid_post", 1), put)], allow_unchanged=True
                )
                ends.append(share(model, logits))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        expected.append(sum(slopes) / 2)
    assert np.array(found.by_position)[0] == pytest.approx(expected, abs=1e-4)
    assert not np.allclose(np.array(gradient.by_position)[0], expected, atol=0.02)


def test_map_is_the_single_estimates_in_one_pass(model):
    points = ("resid_post", "attn_out", "z")
    found = attribution_map(model, CLEAN, CORRUPTED, points, layers=[0, 2], **keywords(model))
    assert list(found) == list(points)
    for point in points:
        alone = estimate(model, point, layers=[0, 2])
        assert np.allclose(found[point].by_position, alone.by_position, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_asked():
    model = small_llama()
    with pytest.raises(InputError, match="same prompt"):
        attribution_patching(model, CLEAN, CLEAN)
    with pytest.raises(InputError, match="equal length"):
        attribution_patching(model, CLEAN, CORRUPTED[:-1])
    with pytest.raises(InputError, match="method is one of"):
        estimate(model, method="guess")
    with pytest.raises(InputError, match="'q' or 'k'"):
        estimate(model, method="query_key")
    with pytest.raises(PluginError, match="no metric"):
        attribution_patching(model, CLEAN, CORRUPTED, metric="logit_dif")
    with pytest.raises(InputError, match="correct_token"):
        attribution_patching(model, CLEAN, CORRUPTED, metric="logit_diff")
    with pytest.raises(InputError, match="plain numbers"):
        attribution_patching(model, CLEAN, CORRUPTED, metric=lambda p, c, k: 1.0)
    with pytest.raises(AddressError, match="nothing at"):
        attribution_patching(small_gpt2(), CLEAN, CORRUPTED, "rotor")


@pytest.mark.parametrize("together", [False, True])
def test_the_runs_that_a_map_of_gradients_takes(monkeypatch, together):
    """The clean run, and the corrupted one with its gradient, which a GPU computes as two rows of
    one run; numbers as from runs of their own.
    """
    monkeypatch.setattr(estimates, "on_gpu", lambda: together)
    model = small_llama()
    points = ("resid_post", "attn_out", "mlp_out", "z")
    layers = range(model.layout.n_layers)
    addresses = [f"layers.{layer}.{point}" for point in points for layer in layers]
    clean, corrupted = (model.run_with_cache(ids, addresses)[1] for ids in (CLEAN, CORRUPTED))

    def difference(patched, clean, corrupted, *, per_example=False):
        rows = patched[:, -1, 3] - patched[:, -1, 4]
        return rows if per_example else rows.mean().item()

    _, slopes = model.gradients(
        CORRUPTED, lambda x: mx.sum(difference(x, None, None, per_example=True)), addresses
    )
    runs, plain = [], type(model.model).__call__

    def counted(self, *args, **kwargs):
        runs.append(1)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "__call__", counted)
    found = model.attribution_map(CLEAN, CORRUPTED, points, difference)
    assert len(runs) == (1 if together else 2)
    for point in points:
        rows = []
        for layer in layers:
            address = f"layers.{layer}.{point}"
            product = (clean[address] - corrupted[address]) * slopes[address]
            rows.append(mx.sum(product, axis=-1)[0])
        assert mx.allclose(found[point].by_position, mx.stack(rows), rtol=1e-4, atol=1e-6), point
