"""Distributed alignment search: a subspace known by construction is found, and controls are not."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.datasets.pairs import PairSet, PromptPair
from mlxray.analyses.probes import AlignmentResult, Interchange, Subspace
from mlxray.analyses.probes.alignment.interchange import Encoded, encoded, interchanges
from mlxray.analyses.probes.alignment.learning import Settings, learn
from mlxray.analyses.probes.alignment.orthonormal import (
    free_gradient,
    orthonormal,
    random_basis,
)
from mlxray.analyses.probes.alignment.runs import Interchanges, places
from mlxray.analyses.probes.alignment.subspace import swap
from mlxray.checks.finite import NotANumberWarning
from mlxray.errors import AddressError, AnalysisError, EditError, InputError, LoadError
from mlxray.generation import Where

#: Not the first one, which has a mark of its own.
FIRST, LETTERS = 1, 3


def planted_examples(count=60, seed=0):
    """Prompts of different letters, the last one of three: the model repeats the last one."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        base, source = (
            [*random.choice(np.arange(4, 12), 2, replace=False).tolist(), int(last)]
            for last in random.choice(np.arange(FIRST, FIRST + LETTERS), 2, replace=False)
        )
        found.append(Interchange(base, source, source[-1]))
    return found


def known_subspace():
    """The letters' differences: where the planted model holds which of the three it is."""
    block = np.zeros((32, LETTERS))
    block[1 + FIRST : 1 + FIRST + LETTERS] = np.eye(LETTERS) - 1 / LETTERS
    return np.linalg.svd(block)[0][:, : LETTERS - 1]


@pytest.fixture(scope="module")
def found(planted):
    return planted.distributed_alignment_search(
        planted_examples(),
        layers=[0],
        rank=2,
        steps=120,
        batch_size=45,
        learning_rate=0.05,
        draws=3,
    )


def test_the_planted_subspace_is_found_and_controls_are_not(planted, found):
    cell = found.cell()
    assert cell.accuracy == 1.0 and cell.full_swap == 1.0 and found.no_op == 0.0
    assert max(cell.placebo, cell.placebo_true) < 0.7 and cell.random < 0.3
    assert cell.selectivity > 0.3
    basis = np.array(found.subspace().basis)
    # All cosines of the angles between both subspaces are nearly 1.
    cosines = np.linalg.svd(known_subspace().T @ basis)[1]
    assert cosines.min() > 0.9
    assert found.losses[0][-1] < found.losses[0][0] / 3 and len(found.losses[0]) == 120


@pytest.mark.floats
def test_what_is_known_by_construction_scores_full_marks(planted):
    """The measure itself, on the subspace that nobody has learnt."""
    data = encoded(planted, planted_examples(20))
    place = places(planted, data, ["layers.0.resid_post"], -1)["layers.0.resid_post"]
    runs = Interchanges(planted, data, place)
    columns = mx.array(known_subspace().astype(np.float32))
    assert runs.hits(columns, range(20)).mean() == 1.0
    rest = np.linalg.svd(known_subspace())[0][:, 2:]
    assert runs.hits(mx.array(rest.astype(np.float32)), range(20)).mean() == 0.0


def test_interchange_is_a_swap_of_coordinates_by_hand(make, rng):
    model = make("llama")
    base, source = [5, 17, 3, 9], [8, 2, 44, 21, 6]
    basis = random_basis(32, 3, 0)
    here = "layers.1.resid_post"
    subspace = Subspace(here, -2, mx.array(basis.astype(np.float32)))
    own, other = (np.array(model.activations(row, [here])[here][0, -2]) for row in (base, source))
    _, cache = model.run_with_cache(base, [here], interventions=subspace.interchange(model, source))
    expected = own + basis @ (basis.T @ (other - own))
    np.testing.assert_allclose(cache[here][0, -2], expected, rtol=1e-4, atol=1e-3)
    plain = model.activations(base, [here])[here]
    assert mx.array_equal(cache[here][0, -1], plain[0, -1])
    coordinates = subspace.coordinates(cache[here][:, -2])
    np.testing.assert_allclose(coordinates[0], basis.T @ other, rtol=1e-4, atol=1e-3)


@pytest.mark.floats
def test_several_bases_take_several_sources_or_one(make):
    model = make("llama")
    bases, sources = [[5, 17, 3], [9, 8, 2, 44]], [[1, 2, 3], [4, 5, 6, 7, 8]]
    here = "layers.1.z"
    shaped = mx.array(random_basis(32, 2, 0).astype(np.float32)).reshape(4, 8, 2)
    subspace = Subspace(here, 1, shaped)
    together = model.run_with_hooks(bases, subspace.interchange(model, sources))
    for i, (base, source) in enumerate(zip(bases, sources, strict=True)):
        alone = model.run_with_hooks(base, subspace.interchange(model, source))
        np.testing.assert_allclose(
            together[i, : len(base)], alone[0], atol=1e-3 * float(mx.abs(alone).max())
        )
    one = subspace.interchange(model, sources[0])
    assert model.run_with_hooks(bases, one).shape == (2, 4, 61)
    with pytest.raises(EditError, match="2 sources for a run of 3 prompts"):
        model.run_with_hooks([*bases, [3, 3]], subspace.interchange(model, sources))


def test_ablation_puts_the_means_coordinates(make, rng):
    model = make("llama")
    here, basis = "layers.1.resid_post", random_basis(32, 2, 1)
    subspace = Subspace(here, -1, mx.array(basis.astype(np.float32)))
    mean = mx.array(rng.normal(size=32).astype(np.float32))
    for edits, target in (
        (subspace.ablate(), np.zeros(2)),
        (subspace.ablate(mean, where=Where()), basis.T @ np.array(mean)),
    ):
        _, cache = model.run_with_cache([1, 2, 3], [here], interventions=edits)
        np.testing.assert_allclose(subspace.coordinates(cache[here][:, -1])[0], target, atol=1e-3)


def test_gradient_through_the_orthonormal_basis_by_central_differences(rng):
    """In float64, of a number that depends on the span alone."""
    free, weight = rng.normal(size=(7, 3)), rng.normal(size=(7, 7))

    def value(free):
        basis = orthonormal(free)
        return np.sum(weight * (basis @ basis.T) ** 2)

    basis = orthonormal(free)
    outer = 2 * weight * (basis @ basis.T)
    slope = free_gradient(free, basis, (outer + outer.T) @ basis)
    step = 1e-6
    for i, j in np.ndindex(7, 3):
        nudge = np.zeros((7, 3))
        nudge[i, j] = step
        measured = (value(free + nudge) - value(free - nudge)) / (2 * step)
        assert slope[i, j] == pytest.approx(measured, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("point", ["resid_post", "z"])
def test_gradient_of_the_loss_by_central_differences(make, family, point):
    """Through the model itself, prompts of unequal length, from the free parameters."""
    model = make(family, scale=0.2)
    bases, sources = [[5, 17, 3], [9, 8, 2, 44]], [[1, 2, 3], [4, 5, 6, 7, 8]]
    data = Encoded(bases, sources, [7, 8])
    here = f"layers.1.{point}"
    place = places(model, data, [here], -1)[here]
    runs = Interchanges(model, data, place)
    free = random_basis(32, 2, 0) * 1.3

    def value(free):
        return float(runs.loss(mx.array(orthonormal(free).astype(np.float32)), [0, 1]))

    basis = orthonormal(free)
    columns = mx.array(basis.astype(np.float32))
    gradient = mx.grad(lambda c: runs.loss(c, [0, 1]))(columns)
    slope = free_gradient(free, basis, np.array(gradient, dtype=np.float64))
    assert np.abs(slope).max() > 1e-6
    step = 3e-2 * slope / np.linalg.norm(slope)
    measured = value(free + step) - value(free - step)
    assert measured == pytest.approx(2 * np.sum(step * slope), rel=0.03, abs=3e-5)


def test_it_learns_through_half_precision_and_quantised_weights(make, quantized):
    """Any answer will do that a swap of everything gives: the loss has to fall."""
    models = make("llama", dtype=mx.bfloat16, scale=0.3), quantized("llama", scale=0.2)
    for model in models:
        examples = []
        for first in range(1, 7):
            source = [first, 9, 8, first + 20]
            answer = int(mx.argmax(model.run_with_hooks(source)[0, -1]))
            examples.append(Interchange([first + 30, 5, 17, first + 40], source, answer))
        if len({each.answer for each in examples}) == 1:
            examples[0] = Interchange(examples[0].base, examples[0].source, 3)
        result = model.distributed_alignment_search(
            examples, layers=[1], rank=8, steps=12, learning_rate=0.1, draws=1
        )
        assert result.losses[0][-1] < result.losses[0][0]
        assert result.subspace().basis.dtype == mx.float32


def test_bases_stay_orthonormal(planted):
    basis = random_basis(40, 5, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
    data = encoded(planted, planted_examples(12))
    place = places(planted, data, ["layers.0.resid_post"], -1)["layers.0.resid_post"]
    runs, ticks = Interchanges(planted, data, place), []
    settings = Settings(rank=3, steps=7, batch_size=4, learning_rate=0.3, seed=0)
    basis, losses = learn(runs, 32, range(12), settings, "here", lambda: ticks.append(1))
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    assert len(losses) == len(ticks) == 7
    again, _ = learn(runs, 32, range(12), settings, "here", lambda: None)
    np.testing.assert_allclose(basis, again, atol=1e-5)


@pytest.mark.floats
def test_loss_is_the_cross_entropy_of_the_counterfactual_answer(planted):
    data = encoded(planted, planted_examples(5))
    here = "layers.0.resid_post"
    runs = Interchanges(planted, data, places(planted, data, [here], -1)[here])
    columns = mx.array(random_basis(32, 2, 0).astype(np.float32))
    losses = []
    for base, source, answer in zip(data.bases, data.sources, data.answers, strict=True):
        other = planted.activations(source, [here])[here][:, -1]
        edit = swap(here, columns, (32,), other @ columns)
        logits = planted.run_with_hooks(base, {here: Where(positions=[-1]).edit(edit)})[0, -1]
        losses.append(float(mx.logsumexp(logits) - logits[answer]))
    assert float(runs.loss(columns, range(5))) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.slow
def test_capitals_follow_the_country_in_the_embedded_model():
    """After the swap at the country's token the answer is the source's capital."""
    from mlxray.pocket.tasks.words import CAPITALS

    model, random = InterpretableModel("pocket"), np.random.default_rng(0)
    prompt, examples = "The capital of {} is", []
    for _ in range(160):
        base, source = random.choice(list(CAPITALS), 2, replace=False)
        answer = f" {CAPITALS[source]}"
        examples.append(Interchange(prompt.format(base), prompt.format(source), answer))
    result = model.distributed_alignment_search(
        examples, layers=[1], positions=[-2, -1], rank=16, steps=60
    )
    country, verb = result.cell(position=-2), result.cell(position=-1)
    assert country.accuracy > 0.8 and country.selectivity > 0.3
    assert country.placebo < 0.2 and country.random < 0.1
    assert country.full_swap == 1.0
    assert verb.accuracy < 0.1 and verb.full_swap == 0.0
    edits = result.subspace(position=-2).interchange(model, prompt.format("Italy"))
    answer = model.generate(prompt.format("France"), max_tokens=1, interventions=edits)
    assert answer.text == " Rome"


def test_saved_and_loaded(found, planted, tmp_path):
    path = found.save(tmp_path / "found.safetensors")
    again = AlignmentResult.load(path)
    assert again.data == found.data
    assert mx.array_equal(again.subspace(0).basis, found.subspace(0).basis)
    one = Subspace.load(found.subspace().save(tmp_path / "one.safetensors"))
    assert (one.address, one.position, one.rank) == ("layers.0.resid_post", -1, 2)
    with pytest.raises(LoadError, match="not mlxray-subspace"):
        Subspace.load(path)
    with pytest.raises(AddressError, match="no place of this search"):
        again.cell(layer=1)
    assert "placebo" in found.summary() and "placebo" in found.to_markdown()
    assert "placebo" in found.save(tmp_path / "found.json").read_text()


EXAMPLES = planted_examples(12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, InputError, "steps is an integer, at least 1; got 0"),
        ({"rank": 0}, InputError, "rank is an integer, at least 1"),
        ({"rank": 33}, InputError, "rank=33: the activation at .* has 32 features"),
        ({"batch_size": 0}, InputError, "batch_size is an integer"),
        ({"learning_rate": 0.0}, InputError, "learning_rate=0.0"),
        ({"draws": 0}, InputError, "draws is an integer"),
        (
            {"positions": 5},
            InputError,
            "the base of example 0 has 3 tokens: there is no position 5",
        ),
        ({"positions": []}, InputError, "positions got an empty list"),
        ({"layers": 9}, AddressError, "9"),
        ({"point": "scores"}, InputError, "two axes of tokens"),
        ({"groups": [1] * 12}, InputError, "one group"),
        ({"test_size": 0.0}, InputError, "test_size=0.0"),
        ({"examples": EXAMPLES[:3]}, InputError, "3 counterfactuals are too few"),
        ({"examples": []}, InputError, "holds no counterfactuals"),
        ({"examples": [1]}, InputError, "example 0 is int"),
        ({"examples": 7}, InputError, "a list of Interchange"),
        ({"examples": [{"base": [1]}]}, InputError, "example 0 has no field 'source'"),
        (
            {"examples": [Interchange([1], [2], 3)] * 6},
            AnalysisError,
            "all counterfactual answers are the same",
        ),
        ({"examples": [Interchange([1], [2], 99)] * 6}, InputError, "example 0: token id 99"),
        ({"examples": [Interchange([[1], [2]], [2], 1)] * 6}, InputError, "one prompt each; got 2"),
    ],
)
def test_bad_input(planted, options, error, message):
    arguments = {"examples": EXAMPLES, "layers": [0], **options}
    with pytest.raises(error, match=message):
        planted.distributed_alignment_search(**arguments)


def test_a_loss_that_is_not_finite_stops(make):
    model = make("llama")
    model.model.model.norm.weight = mx.full((32,), math.nan)
    mx.eval(model.model.parameters())
    data = Encoded([[1, 2]] * 4, [[3, 4]] * 4, [1, 2, 3, 4])
    runs = Interchanges(model, data, places(model, data, ["layers.1.resid_post"], -1).popitem()[1])
    settings = Settings(rank=1, steps=5, batch_size=4, learning_rate=0.1, seed=0)
    with pytest.raises(AnalysisError, match="the loss at here is nan at step 0"):
        learn(runs, 32, range(4), settings, "here", lambda: None)
    with pytest.raises(AnalysisError, match="logits are not finite"):
        runs.hits(None, range(4))


def test_sources_that_are_not_finite(make):
    model = make("llama")
    model.model.model.layers[0].mlp.down_proj.weight = mx.full((32, 48), math.inf)
    mx.eval(model.model.parameters())
    data = Encoded([[1, 2]] * 4, [[3, 4]] * 4, [1, 2, 3, 4])
    with pytest.warns(NotANumberWarning), pytest.raises(AnalysisError, match="not finite"):
        places(model, data, ["layers.1.resid_post"], -1)


def test_bases_that_are_none():
    with pytest.raises(InputError, match="not orthonormal"):
        Subspace("layers.0.resid_post", 0, mx.ones((4, 2)))
    with pytest.raises(InputError, match="k ≤ features"):
        Subspace("layers.0.resid_post", 0, mx.ones((4,)))
    with pytest.raises(InputError, match="not orthonormal"):
        Subspace("layers.0.resid_post", 0, mx.full((4, 2), math.nan))
    subspace = Subspace("layers.0.resid_post", 0, mx.eye(4)[:, :2])
    with pytest.raises(InputError, match="for each example"):
        subspace.coordinates(mx.ones((2, 5)))


def test_pairs_and_files_are_counterfactuals(tmp_path):
    pairs = PairSet([PromptPair("a b", "a c", " x", " y")])
    expected = Interchange("a c", "a b", " x")
    assert interchanges(pairs) == [expected]
    assert interchanges([{"base": "a c", "source": "a b", "answer": " x"}]) == [expected]
    path = tmp_path / "examples.jsonl"
    path.write_text('{"base": "a c", "source": "a b", "answer": " x", "more": 1}\n')
    assert interchanges(path) == interchanges(str(path)) == [expected]
    path.write_text('{"base": "", "source": "a b", "answer": " x"}\n')
    with pytest.raises(InputError, match="line 1: base, source or answer is empty"):
        interchanges(path)
    with pytest.raises(InputError, match="is no file of counterfactuals"):
        interchanges("The capital of France is")
    with pytest.raises(InputError, match="pair 0 has 2 correct answers"):
        interchanges(PairSet([PromptPair("a b", "a c", (" x", " z"), " y")]))
