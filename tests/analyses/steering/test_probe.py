import threading

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.steering import Probe, contrast_probe, only_while, steering_vector
from mlxray.errors import AnalysisError, EditError, InputError
from mlxray.generation import Where
from mlxray.interventions import add_vector, zero_out

PROMPT = [5, 17, 3, 9, 44, 21]
EARLY, LATE = "layers.0.resid_post", "layers.1.mlp_out"


@pytest.fixture
def model(make):
    return make("llama")


@pytest.fixture
def probe(model, direction):
    """Fires on half of the prompt's tokens."""
    random = direction(model)
    scores = np.array(model.activations(PROMPT, [EARLY])[EARLY][0] @ random)
    return Probe(EARLY, random, float(np.median(scores)))


def fired(model, probe, ids):
    """Which tokens the probe fires on, from the activations of a run by itself."""
    values = np.array(model.activations(ids, [EARLY])[EARLY][0])
    return values @ np.array(probe.direction) > probe.threshold


def test_it_acts_at_the_tokens_where_the_probe_fires_and_nowhere_else(model, probe, direction):
    shift = direction(model, 1)
    where = fired(model, probe, PROMPT)
    assert where.sum() == 3
    plain = model.activations(PROMPT, [LATE])[LATE][0]
    seen = []
    pairs = only_while(probe, {LATE: add_vector(shift)})
    logits = model.run_with_hooks(PROMPT, [*pairs, (LATE, lambda x: (seen.append(x), x)[1])])
    expected = np.array(plain) + where[:, None] * np.array(shift)
    np.testing.assert_allclose(seen[0][0], expected, atol=1e-5)
    mask = mx.array(where)[None, :, None]
    by_hand = model.run_with_hooks(PROMPT, [(LATE, lambda x: x + mask * shift)])
    np.testing.assert_allclose(logits, by_hand, atol=1e-5)


def test_heads_have_their_tokens_on_another_axis(model, probe):
    where = fired(model, probe, PROMPT)
    seen = []
    pairs = only_while(probe, {"layers.1.z": zero_out})
    model.run_with_hooks(PROMPT, [*pairs, ("layers.1.z", lambda x: (seen.append(x), x)[1])])
    zero = np.all(np.array(seen[0][0]) == 0, axis=(0, 2))
    np.testing.assert_array_equal(zero, where)


@pytest.mark.parametrize("where", [None, Where(prompt=False), Where(positions=[-1, 7, 8])])
def test_a_cache_changes_nothing(model, probe, direction, where):
    """Each step's probe must see that step's token: without a cache all are computed again."""
    edit = {LATE: add_vector(3.0 * direction(model, 1))}
    runs = [
        model.generate(
            PROMPT,
            12,
            interventions=only_while(probe, edit, where=where),
            use_cache=cached,
            watch=[EARLY],
            keep_logits=True,
        )
        for cached in (True, False)
    ]
    assert runs[0].tokens == runs[1].tokens
    np.testing.assert_allclose(runs[0].token_logits, runs[1].token_logits, atol=1e-4)
    plain = model.generate(PROMPT, 12).tokens
    assert runs[0].tokens != plain
    steps = [runs[0].activation(EARLY, n)[0, -1] @ probe.direction for n in range(1, 12)]
    on = [score.item() > probe.threshold for score in steps]
    assert any(on) and not all(on)  # the test sees both


def test_a_probe_that_never_fires_leaves_all_as_it_is(model, direction):
    never = Probe(EARLY, direction(model), float("inf"))
    pairs = only_while(never, {LATE: zero_out})
    assert mx.array_equal(model.run_with_hooks(PROMPT, pairs), model.run_with_hooks(PROMPT))
    with model.trace(PROMPT, interventions=pairs) as trace:
        pass
    assert trace.reports[1].changed == 0 and trace.reports[1].fired == 1
    always = Probe(EARLY, direction(model), -float("inf"))
    np.testing.assert_allclose(
        model.run_with_hooks(PROMPT, only_while(always, {LATE: zero_out})),
        model.run_with_hooks(PROMPT, {LATE: zero_out}),
        atol=1e-6,
    )


def test_contrast_probe_lies_half_way(model):
    positive, negative = [[5, 17], [9, 44, 21]], [[3, 2, 8], [30]]
    probe = contrast_probe(model, positive, negative, layer=0)
    means = [
        np.mean([np.array(model.activations(ids, [EARLY])[EARLY][0, -1]) for ids in side], axis=0)
        for side in (positive, negative)
    ]
    unit = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1])
    np.testing.assert_allclose(probe.direction, unit, atol=1e-5)
    assert probe.threshold == pytest.approx((means[0] + means[1]) @ unit / 2, rel=1e-4)
    with pytest.raises(AnalysisError, match="same activations"):
        contrast_probe(model, positive, positive, layer=0)


def test_pocket_is_steered_only_where_a_country_was_named(pocket):
    """One set of interventions for both prompts: the probe tells them apart."""
    vector = steering_vector(
        pocket,
        "The capital of Italy is",
        "The capital of France is",
        layers=0,
        point="resid_mid",
        position=-2,
    )
    probe = contrast_probe(
        pocket,
        "The capital of France",
        ["The capital of Germany", "The capital of Spain", "The capital of Japan"],
        layer=0,
        point="resid_pre",
    )
    steered = only_while(probe, vector.at(0.5))
    assert pocket.generate("The capital of France is", 2, interventions=steered).text == " Rome."
    for country, capital in (("Germany", "Berlin"), ("Spain", "Madrid")):
        prompt = f"The capital of {country} is"
        result = pocket.generate(prompt, 2, interventions=steered)
        assert result.text == f" {capital}."
        assert result.edits[1].changed == 0


def test_a_probe_behind_what_it_gates_is_named(model, direction):
    behind = Probe("layers.1.resid_post", direction(model), 0.0)
    pairs = only_while(behind, {"layers.0.mlp_out": zero_out})
    with pytest.raises(EditError, match="is reached before the probe"):
        model.run_with_hooks(PROMPT, pairs)
    with pytest.raises(EditError, match="is reached before the probe"):
        model.generate(PROMPT, 4, interventions=pairs)


def test_an_answer_of_an_earlier_run_is_not_taken(model, probe):
    looks, gated = only_while(probe, {LATE: zero_out})
    model.run_with_hooks(PROMPT, [looks, gated])
    with pytest.raises(EditError, match="is reached before the probe"):
        model.run_with_hooks(PROMPT, [gated])


def test_threads_do_not_see_each_others_probes(model, probe, direction):
    """While one run stands between probe and edit, another thread makes a whole run."""
    looks, gated = only_while(probe, {LATE: add_vector(direction(model, 1))})
    others = [[1, 2, 3], [60, 50, 40, 30, 20, 10]]
    alone = [model.run_with_hooks(ids, [looks, gated]) for ids in (PROMPT, *others)]
    between = []

    def work(ids):
        logits = model.run_with_hooks(ids, [looks, gated])
        between.append(np.array(logits))

    def pause(activation):
        for ids in others:
            thread = threading.Thread(target=work, args=(ids,))
            thread.start()
            thread.join()
        return activation

    found = model.run_with_hooks(PROMPT, [looks, ("layers.1.resid_pre", pause), gated])
    for logits, expected in zip([found, *between], alone, strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_an_edit_that_returns_the_wrong_thing_is_named(model, probe):
    for wrong in (lambda x: None, lambda x: x[:, :1], lambda x: 3.0):
        with pytest.raises(EditError, match=r"the edit at 'layers.1.mlp_out' returned"):
            model.run_with_hooks(PROMPT, only_while(probe, {LATE: wrong}))


def test_what_cannot_be_is_refused(model, probe, direction):
    with pytest.raises(InputError, match="no interventions"):
        only_while(probe, {})
    with pytest.raises(EditError, match="limited by Where already"):
        only_while(probe, {LATE: Where(prompt=False).edit(zero_out)})
    with pytest.raises(InputError, match="zero or not finite"):
        Probe(EARLY, mx.zeros(4), 0.0)
    for threshold in (float("nan"), "1", None, True):
        with pytest.raises(InputError, match="NaN"):
            Probe(EARLY, mx.ones(4), threshold)
    with pytest.raises(InputError, match="layer is an integer; got"):
        contrast_probe(model, [[4, 5]], [[6, 7]], layer=None)
    with pytest.raises(EditError, match=r"probe at 'layers[.]0[.]resid_post' has shape"):
        model.run_with_hooks(PROMPT, only_while(Probe(EARLY, mx.ones(4), 0.0), {LATE: zero_out}))
