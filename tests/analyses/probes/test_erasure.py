"""LEACE: nothing linear is left, nothing less would do, and it is an edit."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.probes import Eraser, ErasureResult, fit_eraser, oracle_erased, train_probes
from mlxray.analyses.probes.erasure.leace import leace
from mlxray.analyses.probes.examples.covariance import principal
from mlxray.analyses.probes.examples.split import split
from mlxray.errors import AddressError, AnalysisError, EditError, InputError, LoadError
from mlxray.generation import Where

HERE = "layers.1.resid_post"


def crosscovariance(rows, targets):
    x, z = (np.asarray(v, dtype=np.float64) for v in (rows, targets))
    return (x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / len(x)


def correlated(random, count=300, width=10, classes=3):
    codes = np.arange(count) % classes
    mixing = random.normal(size=(width, width))
    rows = random.normal(size=(count, width)) @ mixing + random.normal(size=(classes, width))[codes]
    return rows, codes, np.eye(classes)[codes]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_crosscovariance_is_zero(rng, classes):
    rows, codes, targets = correlated(rng, classes=classes)
    values = mx.array(rows.astype(np.float32))
    eraser = fit_eraser(values, codes, address=HERE)
    assert eraser.rank == classes - 1
    erased = np.array(eraser.apply(values))
    before = np.abs(crosscovariance(rows, targets)).max()
    assert np.abs(crosscovariance(erased, targets)).max() < 1e-5 * before
    np.testing.assert_allclose(erased.mean(axis=0), rows.mean(axis=0), atol=1e-4)
    means = [erased[codes == k].mean(axis=0) for k in range(classes)]
    np.testing.assert_allclose(means, [means[0]] * classes, atol=2e-5 * np.abs(rows).max())


def test_it_is_the_papers_closed_form(rng):
    """r(x) = x − W⁺ P W (x − E x), W = (Σ_xx^½)⁺ by `scipy`'s matrix root, P by a least-squares."""
    from scipy.linalg import sqrtm

    rows, _, targets = correlated(rng)
    x = rows - rows.mean(axis=0)
    root = sqrtm(x.T @ x / len(x)).real
    white = np.linalg.pinv(root)
    inner = white @ crosscovariance(rows, targets)
    projection = inner @ np.linalg.pinv(inner)
    expected = rows - x @ (np.linalg.pinv(white) @ projection @ white).T
    mean, left, right = leace(rows, targets, HERE)
    np.testing.assert_allclose(rows - (rows - mean) @ right.T @ left.T, expected, atol=1e-8)


def test_no_other_projection_that_erases_changes_less(rng):
    """Any P = I − Σ_xz (V Σ_xz)⁻¹ V makes the cross-covariance zero; LEACE's moves x least."""
    rows, codes, _ = correlated(rng, classes=2)
    z = codes[:, None].astype(float)
    mean, left, right = leace(rows, z, HERE)
    x = rows - mean
    ours = np.mean(np.sum((x @ right.T @ left.T) ** 2, axis=1))
    cross = crosscovariance(rows, z)
    changes = []
    for _ in range(300):
        v = rng.normal(size=(1, 10))
        taken = x @ v.T @ np.linalg.inv(v @ cross).T @ cross.T
        np.testing.assert_allclose(crosscovariance(rows - taken, z), 0, atol=1e-8)
        changes.append(np.mean(np.sum(taken**2, axis=1)))
    assert ours <= min(changes) * (1 + 1e-9)
    orthogonal = x @ cross @ cross.T / np.sum(cross**2)  # projecting the difference of means out
    assert ours < np.mean(np.sum(orthogonal**2, axis=1))


@pytest.mark.parametrize("kind", ["logistic", "least_squares"])
def test_a_probe_of_erased_activations_knows_nothing(rows, kind):
    values, codes = rows
    eraser = fit_eraser(values, codes, address=HERE)
    assert train_probes({HERE: values}, codes, kind=kind).cell().score > 0.95
    left = train_probes({HERE: eraser.apply(values)}, codes, kind=kind).cell()
    assert left.score < 0.7 and left.low < 0.5
    # On all that the eraser was fitted to, the best probe is a constant.
    from sklearn.linear_model import LogisticRegression

    erased = np.array(eraser.apply(values), dtype=np.float64)
    model = LogisticRegression(C=1e3).fit(erased, codes)
    np.testing.assert_allclose(model.coef_, 0, atol=1e-3)
    assert np.abs(LogisticRegression(C=1e3).fit(np.array(values), codes).coef_).max() > 0.5


@pytest.mark.parametrize("count", [30, 9])
def test_axes_and_deviations_are_those_of_the_covariance(rng, count):
    x = rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) * np.r_[np.ones(11), 0]
    x -= x.mean(axis=0)
    deviations, axes = principal(x)
    assert len(deviations) == min(11, count - 1)
    np.testing.assert_allclose((axes * deviations**2) @ axes.T, x.T @ x / count, atol=1e-10)
    inverse = (axes / deviations**2) @ axes.T
    np.testing.assert_allclose(inverse, np.linalg.pinv(x.T @ x / count, rcond=1e-10), rtol=1e-5,
                               atol=1e-8)  # fmt: skip


def test_fewer_examples_than_features(rng):
    rows, codes = rng.normal(size=(20, 50)), np.arange(20) % 2
    values = mx.array(rows.astype(np.float32))
    eraser = fit_eraser(values, codes, address=HERE)
    cross = crosscovariance(np.array(eraser.apply(values)), np.eye(2)[codes])
    assert np.abs(cross).max() < 1e-5


def test_numbers_and_several_numbers_are_erased(rng):
    rows = rng.normal(size=(200, 6))
    one = rows @ rng.normal(size=6)
    several = rows @ rng.normal(size=(6, 2)) + rng.normal(size=(200, 2))
    values = mx.array(rows.astype(np.float32))
    for labels, rank in ((one, 1), (mx.array(several.astype(np.float32)), 2)):
        eraser = fit_eraser(values, labels, address=HERE)
        assert eraser.rank == rank
        left = crosscovariance(eraser.apply(values), np.array(labels).reshape(200, -1))
        np.testing.assert_allclose(left, 0, atol=1e-5)


def test_the_oracle_changes_still_less(rng):
    rows, codes, targets = correlated(rng)
    values = mx.array(rows.astype(np.float32))
    oracle = np.array(oracle_erased(values, codes))
    np.testing.assert_allclose(crosscovariance(oracle, targets), 0, atol=1e-5)
    # Of classes it puts every class's mean where the whole mean is.
    by_hand = rows.copy()
    for k in range(3):
        by_hand[codes == k] += rows.mean(axis=0) - rows[codes == k].mean(axis=0)
    np.testing.assert_allclose(oracle, by_hand, atol=1e-4)
    ours = np.array(fit_eraser(values, codes, address=HERE).apply(values))
    assert np.sum((oracle - rows) ** 2) < np.sum((ours - rows) ** 2)


def test_nothing_to_erase_and_what_cannot_be(rng):
    values = mx.array(rng.normal(size=(8, 3)).astype(np.float32))
    with pytest.raises(AnalysisError, match="nothing to erase"):
        fit_eraser(mx.ones((8, 3)), [0, 1] * 4, address=HERE)
    with pytest.raises(AnalysisError, match="have the label 1"):
        fit_eraser(values, [1] * 8, address=HERE)
    with pytest.raises(AnalysisError, match="same labels"):
        fit_eraser(values, np.ones((8, 2)), address=HERE)
    with pytest.raises(InputError, match="7 labels for 8"):
        fit_eraser(values, [0, 1, 0, 1, 0, 1, 0], address=HERE)
    with pytest.raises(InputError, match=r"finite floats \(8, k\)"):
        fit_eraser(values, np.ones((7, 2)), address=HERE)
    with pytest.raises(AnalysisError, match="not finite"):
        fit_eraser(values * math.nan, [0, 1] * 4, address=HERE)
    with pytest.raises(InputError, match="array of floats"):
        fit_eraser([[1, 2]], [0], address=HERE)


@pytest.mark.floats
@pytest.mark.parametrize("address", [HERE, "layers.1.z"])
def test_as_an_edit_it_is_applied_at_each_token(make, rng, address):
    model = make("llama")
    point = address.rpartition(".")[2]
    ids = rng.integers(61, size=(40, 5)).tolist()
    axis = 2 if point == "z" else 1
    values = mx.moveaxis(model.watch(ids, point, [1])[1], axis, 1)[:, -1]
    eraser = fit_eraser(values, [row[-1] % 2 for row in ids], address=address)
    row = ids[0]
    plain = model.activations(row, [address])[address]
    _, cache = model.run_with_cache(row, [address], interventions=eraser.edit())
    tokens = mx.moveaxis(plain, axis, 1)[0]
    expected = eraser.apply(tokens)
    found = mx.moveaxis(cache[address], axis, 1)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    _, cache = model.run_with_cache(
        row, [address], interventions=eraser.edit(where=Where(positions=[-1]))
    )
    found = mx.moveaxis(cache[address], axis, 1)[0]
    np.testing.assert_allclose(found[-1], expected[-1], atol=1e-4)
    assert mx.array_equal(found[:-1], tokens[:-1])


def test_it_belongs_to_one_width(make):
    eraser = Eraser(HERE, "last", mx.zeros((7,)), mx.ones((7, 1)), mx.ones((1, 7)))
    with pytest.raises(EditError, match=r"the eraser at .* has shape \(7,\)"):
        make("llama").run_with_hooks([1, 2], eraser.edit())
    with pytest.raises(InputError, match="acts on"):
        eraser.apply(mx.ones((2, 8)))
    with pytest.raises(InputError, match=r"left \(7, k\)"):
        Eraser(HERE, "last", mx.zeros((7,)), mx.ones((6, 1)), mx.ones((1, 6)))
    with pytest.raises(InputError, match=r"right \(k, F\)"):
        Eraser(HERE, "last", mx.zeros((7,)), mx.ones((7, 1)), mx.ones((2, 7)))
    with pytest.raises(InputError, match="mean is not finite"):
        Eraser(HERE, "last", mx.zeros((7,)) + math.inf, mx.ones((7, 1)), mx.ones((1, 7)))


def test_saved_and_loaded(rng, tmp_path):
    rows, codes, _ = correlated(rng)
    values = mx.array(rows.astype(np.float32))
    eraser = fit_eraser(values, codes, address=HERE)
    again = Eraser.load(eraser.save(tmp_path / "eraser.safetensors"))
    assert mx.array_equal(again.apply(values), eraser.apply(values))
    assert (again.address, again.position) == (HERE, "last")
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        eraser.save(tmp_path / "eraser.npz")
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"a": mx.ones(2)})
    with pytest.raises(LoadError, match="not mlxray-eraser"):
        Eraser.load(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def agreement():
    """Sentences of the embedded model's corpus, and the number of their subject."""
    from mlxray.pocket.tasks import TASKS

    found = TASKS["agreement"].examples(160, seed=1)
    labels = ["singular" if e.answer.strip() in ("is", "was") else "plural" for e in found]
    return InterpretableModel("pocket"), [e.prompt for e in found], labels


@pytest.mark.floats
def test_the_number_of_the_subject_is_erased(agreement, tmp_path):
    """Before, a probe reads it at every layer; after, it is as good as always saying the same."""
    model, texts, labels = agreement
    result = model.concept_erasure(texts, labels, layers=[1, 3])
    for cell in result.cells:
        assert cell.before > 0.9 and cell.rank == 1 and 0 < cell.removed < 0.3
        assert cell.after_low <= result.baseline <= cell.after_high
        assert cell.after == pytest.approx(result.baseline, abs=0.12)
    assert result.warnings and "rough on others" in result.warnings[0]
    # Eraser and probe have seen the examples learnt from, and no others.
    parts = split(160, 0.25, 0, codes=np.array([label == "singular" for label in labels], int))
    stream = model.watch(texts, "resid_post", [1])[1]
    ends = mx.array([len(model.encode(text)) - 1 for text in texts])
    values = stream[mx.arange(160), ends]
    train = mx.array(parts.train)
    chosen = [labels[i] for i in parts.train]
    again = fit_eraser(values[train], chosen, address="layers.1.resid_post")
    np.testing.assert_allclose(
        result.eraser(1).apply(values), again.apply(values), atol=1e-3 * np.abs(values).max()
    )
    most = max(chosen.count(label) for label in set(labels)) / len(chosen)
    assert result.cells[0].train_after == pytest.approx(most)
    assert "LEACE at layers.1.resid_post" in result.summary()
    path = result.save(tmp_path / "erasure.safetensors")
    again = ErasureResult.load(path)
    assert again.data == result.data
    values = mx.ones((2, 128))
    assert mx.array_equal(again.eraser(3).apply(values), result.eraser(3).apply(values))
    with pytest.raises(AddressError, match="name 2 of these erasers"):
        again.eraser()


def test_in_generation_the_verb_no_longer_agrees(agreement):
    model, texts, labels = agreement
    result = model.concept_erasure(texts, labels)
    edits = [pair for layer in range(5) for pair in result.eraser(layer).edit()]
    verbs = [model.encode(f" {word}")[-1] for word in ("is", "are")]
    right = {"plain": 0, "erased": 0}
    for text, label in list(zip(texts, labels, strict=True))[:40]:
        for name, hooks in (("plain", []), ("erased", edits)):
            logits = model.run_with_hooks(text, hooks)[0, -1]
            plural = bool(logits[verbs[1]] > logits[verbs[0]])
            right[name] += plural == (label == "plural")
    assert right["plain"] >= 38
    assert 8 <= right["erased"] <= 32
    steps = list(model.stream_generate(texts[0], max_tokens=3, interventions=edits))
    assert len(steps) == 3


def test_wrong_kinds(agreement):
    model, texts, labels = agreement
    with pytest.raises(InputError, match="no kind 'mass_mean'"):
        model.concept_erasure(texts, labels, kind="mass_mean")
    with pytest.raises(InputError, match="points is empty"):
        model.concept_erasure(texts, labels, points=[])
