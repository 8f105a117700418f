"""Probes of arrays and of models: found where the label is, and nowhere else."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel, TableResult
from mlxray.analyses.activations import ActivationStore, harvest
from mlxray.analyses.probes import LinearProbe, ProbeResult, train_probes
from mlxray.analyses.steering import contrast_probe, only_while, steering_vector
from mlxray.errors import (
    AddressError,
    AnalysisError,
    EditError,
    InputError,
    LoadError,
    MlxrayError,
)
from mlxray.interventions import zero_out

HERE = "layers.0.resid_post"


@pytest.fixture(scope="module")
def pocket():
    return InterpretableModel("pocket")


def prompts(count=80, length=6, seed=0, vocabulary=61):
    """Random tokens; the label is whether the third one is even."""
    ids = np.random.default_rng(seed).integers(vocabulary, size=(count, length))
    return ids.tolist(), [bool(row[2] % 2) for row in ids]


@pytest.mark.parametrize("kind", ["logistic", "least_squares", "mass_mean", "mass_mean_iid"])
def test_a_planted_label_is_read_with_high_selectivity(rows, kind):
    values, codes = rows
    result = train_probes({HERE: values}, codes, kind=kind)
    cell = result.cell()
    assert cell.score > 0.95 and cell.low <= cell.score <= cell.high
    assert cell.selectivity > 0.3
    assert result.baseline == 0.5 and (result.train, result.test) == (150, 50)
    probe = result.probe()
    right = np.array(probe.predict(values)) == codes
    assert cell.score == pytest.approx(right[held_out(200, codes)].mean())
    # The two features that tell it.
    direction = np.array(probe.direction())
    assert np.linalg.norm(direction[:2]) > 0.8 and direction[0] > 0


def held_out(count, codes, seed=0):
    from mlxray.analyses.probes.examples.split import split

    return split(count, 0.25, seed, codes=codes).test


@pytest.mark.parametrize("kind", ["logistic", "mass_mean"])
def test_random_labels_have_no_selectivity(rows, rng, kind):
    values, _ = rows
    found = []
    for seed in range(5):
        labels = rng.permutation(np.arange(200) % 2)
        cell = train_probes({HERE: values}, labels, kind=kind, seed=seed).cell()
        found.append(cell.selectivity)
        assert cell.low < 0.5 < cell.high or abs(cell.score - 0.5) < 0.2
    assert abs(np.mean(found)) < 0.06


def test_a_probe_that_knows_types_by_heart_is_not_selective(rng):
    """Activations that are nothing but a word's own: any labels of words can be learnt."""
    words = rng.integers(20, size=400)
    values = rng.normal(size=(20, 40))[words] + 0.01 * rng.normal(size=(400, 40))
    labels = words % 2
    by_word = train_probes({HERE: values.astype(np.float32)}, labels, types=words).cell()
    assert by_word.score == 1.0 and by_word.control > 0.95 and by_word.control_types == "given"
    # Where words are held out as groups, it fails.
    groups = train_probes(
        {HERE: values.astype(np.float32)}, labels, types=words, groups=words
    ).cell()
    assert groups.score < 0.9 and groups.control < 0.8


@pytest.mark.parametrize("frequent", [0, 1])
def test_imbalanced_classes_are_measured_against_the_majority(rng, frequent):
    labels = np.array([frequent] * 180 + [1 - frequent] * 20)
    values = rng.normal(size=(200, 5)).astype(np.float32)
    result = train_probes({HERE: values}, labels)
    assert result.baseline == pytest.approx(0.9)
    assert result.cell().score <= 0.92 and abs(result.cell().selectivity) < 0.1


def test_several_classes(rng):
    codes = np.arange(240) % 4
    values = (rng.normal(size=(4, 9)) * 4)[codes] + rng.normal(size=(240, 9))
    names = np.array(["a", "b", "c", "d"])[codes].tolist()
    result = train_probes({HERE: values.astype(np.float32)}, names, kind="mass_mean")
    assert result.classes == ("a", "b", "c", "d") and result.cell().score > 0.95
    probe = result.probe()
    assert probe.predict(mx.array(values.astype(np.float32)))[:4] == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="choose a label"):
        probe.direction()
    with pytest.raises(InputError, match="no label 'e'"):
        probe.direction("e")
    with pytest.raises(InputError, match="two classes; this one tells 4"):
        probe.condition("a")
    along = np.array(values @ np.array(probe.direction("c")))
    assert along[codes == 2].mean() > max(along[codes == k].mean() for k in (0, 1, 3))


def test_numbers_are_scored_by_what_is_explained(rng):
    values = rng.normal(size=(200, 8)).astype(np.float32)
    truth = values @ np.arange(8.0) + 3
    noise = rng.normal(size=200) * truth.std() / 2
    result = train_probes({HERE: values}, truth + noise, kind="ridge")
    cell = result.cell()
    assert (result.score_name, result.classes, result.baseline) == ("R²", None, 0.0)
    assert cell.low <= cell.score <= cell.high and cell.score == pytest.approx(0.8, abs=0.12)
    assert cell.control < 0.1
    held = [v for i, v in enumerate(truth + noise) if i in set(held_out(200, None))]
    learnt = [v for i, v in enumerate(truth + noise) if i not in set(held_out(200, None))]
    guess = np.array(result.probe().predict(mx.array(values)))[held_out(200, None)]
    by_hand = 1 - np.sum((held - guess) ** 2) / np.sum((held - np.mean(learnt)) ** 2)
    assert cell.score == pytest.approx(by_hand, abs=1e-4)


def test_the_right_layer_is_found(make):
    """Layer 1's MLP is told to write the label; before it, nothing can be read."""
    model = make("llama")
    mark = mx.random.normal((32,), key=mx.random.key(5)) * 200
    texts, _ = prompts(60)
    labels = np.random.default_rng(1).integers(2, size=60)
    plain = {a: [] for a in ("layers.0.resid_post", "layers.1.resid_post")}
    for row, label in zip(texts, labels, strict=True):
        edits = {"layers.1.mlp_out": lambda x, label=label: x + (2 * int(label) - 1) * mark}
        _, cache = model.run_with_cache(row, list(plain), interventions=edits)
        for address, found in plain.items():
            found.append(cache[address][0, -1])
    result = train_probes({a: mx.stack(v) for a, v in plain.items()}, labels, kind="mass_mean")
    assert result.cell(layer=0).score < 0.75
    assert result.cell(layer=1).score > 0.95
    assert result.best.layer == 1


@pytest.mark.floats
def test_a_model_is_read_as_its_cache_says(make):
    model = make("llama")
    texts, labels = prompts(40)
    options = {"layers": [0, 2], "points": ["resid_post", "z"], "positions": [2, "mean"]}
    result = model.linear_probe(texts, labels, kind="least_squares", **options)
    assert [(c.point, c.layer, c.position) for c in result.cells] == [
        (point, layer, position)
        for position in (2, "mean")
        for point in ("resid_post", "z")
        for layer in (0, 2)
    ]
    values = mx.stack([model.watch(row, "z", [2])[2][0, :, 2] for row in texts])
    types = [row[2] for row in texts]
    again = train_probes({"layers.2.z": values}, labels, types=types, kind="least_squares")
    one, other = result.cell(2, "z", 2), again.cell()
    assert (one.score, one.control, one.low) == (other.score, other.control, other.low)
    assert one.control_types == "token" and result.cell(2, "z", "mean").control_types == "text"
    assert result.probe(2, "z", 2).weights.shape == (2, 4, 8)


@pytest.mark.floats
def test_it_shares_the_difference_of_means_with_steering(make):
    """The mass-mean probe of two classes is `contrast_probe`, and its direction steers."""
    model = make("llama")
    texts, labels = prompts(40)
    result = model.linear_probe(texts, labels, layers=1, kind="mass_mean", test_size=0.1)
    train = [i for i in range(40) if i not in set(held_out_of(labels, 0.1))]
    sides = [[texts[i] for i in train if labels[i] is side] for side in (True, False)]
    theirs = contrast_probe(model, *sides, layer=1)
    ours = result.probe().condition()
    np.testing.assert_allclose(ours.direction, theirs.direction, atol=1e-5)
    assert ours.threshold == pytest.approx(theirs.threshold, abs=1e-4)
    opposite = result.probe().condition(False)
    np.testing.assert_allclose(opposite.direction, -theirs.direction, atol=1e-5)
    vector = steering_vector(model, *sides, layers=1)
    np.testing.assert_allclose(vector.direction(1), result.probe().direction(), atol=1e-5)


def held_out_of(labels, test_size):
    from mlxray.analyses.probes.examples.split import split

    return split(len(labels), test_size, 0, codes=np.array(labels, dtype=np.int64)).test


def test_a_condition_gates_an_edit(make):
    model = make("llama")
    texts, labels = prompts(40)
    result = model.linear_probe(texts, labels, layers=0, positions=2, kind="least_squares")
    probe = result.probe()
    row = texts[0]
    scores = probe.scores(model.watch(row, "resid_post", [0])[0])
    fires = np.array(scores[0, :, 1] > scores[0, :, 0])
    assert fires.any() and not fires.all()
    _, cache = model.run_with_cache(
        row, ["layers.1.mlp_out"], interventions=only_while(
            probe.condition(), {"layers.1.mlp_out": zero_out}
        )
    )  # fmt: skip
    zero = np.all(np.array(cache["layers.1.mlp_out"][0]) == 0, axis=-1)
    np.testing.assert_array_equal(zero, fires)


def test_a_store_gives_tokens_and_documents(pocket, tmp_path):
    texts = [f"The capital of {name} is big." for name in ("France", "Italy", "Spain", "Peru")] * 6
    harvest(pocket, texts, [("resid_post", 1)], tmp_path / "store", verbose=False)
    store = ActivationStore(tmp_path / "store")
    rows = store.rows(slice(0, store.tokens))
    labels = (rows.tokens % 2).tolist()
    result = train_probes(rows, labels, kind="least_squares")
    cell = result.cell()
    assert result.grouped and cell.point == "resid_post" and cell.layer == 1
    assert cell.score > 0.9
    assert cell.control_types in ("token", "text")


def test_a_file_of_texts(pocket, tmp_path):
    path = tmp_path / "texts.jsonl"
    names = {"Mary": "w", "Alice": "w", "John": "m", "Bob": "m"}
    items = [
        {"text": f"{name} went to the {place}", "label": sex, "name": name}
        for name, sex in names.items()
        for place in ("park", "station", "house", "garden")
    ]
    path.write_text("\n".join(map(json.dumps, items)))
    by_file = pocket.linear_probe(
        str(path), layers=[1], kind="mass_mean", group_field="name", type_field="name"
    )
    by_list = pocket.linear_probe(
        [item["text"] for item in items],
        [item["label"] for item in items],
        layers=[1],
        kind="mass_mean",
        groups=[item["name"] for item in items],
        types=[item["name"] for item in items],
    )
    assert by_file.cells == by_list.cells and by_file.grouped


def test_texts_in_both_parts_are_told(make):
    model = make("llama")
    texts, labels = prompts(20)
    clean = model.linear_probe(texts, labels, layers=0, kind="least_squares")
    twice = model.linear_probe(texts * 2, labels * 2, layers=0, kind="least_squares")
    assert not clean.warnings
    assert "texts held out are also learnt from" in twice.warnings[0]
    groups = [str(row) for row in texts] * 2
    options = {"layers": 0, "kind": "least_squares", "groups": groups}
    assert not model.linear_probe(texts * 2, labels * 2, **options).warnings


def test_on_the_command_line(tmp_path, capsys):
    from mlxray.cli import main

    texts, swaps = tmp_path / "texts.csv", tmp_path / "swaps.jsonl"
    rows = [
        f"The {noun}{end} is here,{end or 'one'}" for noun in ("key", "door") for end in ("s", "")
    ]
    texts.write_text("\n".join(["text,label", *rows, *rows]))
    pairs = [("France", "Italy", " Rome"), ("Italy", "France", " Paris")] * 3
    items = [
        {"base": f"The capital of {b} is", "source": f"The capital of {s} is", "answer": answer}
        for b, s, answer in pairs
    ]
    swaps.write_text("\n".join(map(json.dumps, items)))
    runs = (
        ("linear_probe", texts, ("--kind", "mass_mean")),
        ("concept_erasure", texts, ()),
        ("distributed_alignment_search", swaps, ("--steps", "1", "--positions", "-2,-1")),
    )
    for name, path, options in runs:
        assert main(["run", name, str(path), "--layers", "1", "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["result_type"] == name and found["data"]["cells"][0]["layer"] == 1
    assert main(["run", "linear_probe", "The capital of France is"]) != 0
    assert "there are no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": [1, 0]}, InputError, "2 labels for 8"),
        ({"labels": [1] * 8}, AnalysisError, "have the label 1"),
        ({"labels": [1] * 7 + [0]}, InputError, "the class 0 has 1 example"),
        ({"kind": "linear"}, InputError, "no kind 'linear'"),
        ({"test_size": 1.5}, InputError, "test_size=1.5"),
        ({"l2": 0.0}, InputError, "l2=0.0"),
        ({"controls": 0}, InputError, "controls is an integer, at least 1"),
        ({"groups": [1] * 8}, InputError, "one group"),
        ({"groups": [1]}, InputError, "groups has 1 values"),
        ({"types": [1] * 8}, AnalysisError, "of one type"),
        ({"positions": []}, InputError, "positions is empty"),
        ({"positions": 99}, InputError, "no position 99"),
        ({"positions": "first"}, InputError, 'position is "last", "mean" or an integer'),
        ({"points": []}, InputError, "points is empty"),
        ({"points": "resid_pots"}, AddressError, "resid_pots"),
        ({"points": "pattern"}, InputError, "two axes of tokens"),
        ({"layers": 7}, AddressError, "7"),
        ({"labels": [0.5, 1.5] * 4}, InputError, "classes here"),
        ({"labels": ["a", "b"] * 4, "kind": "ridge"}, InputError, "label 0 is no number"),
    ],
)
def test_bad_input(make, options, error, message):
    model = make("llama")
    texts, _ = prompts(8)
    arguments = {"labels": [1, 0] * 4, "kind": "least_squares", **options}
    with pytest.raises(error, match=message):
        model.linear_probe(texts, **arguments)


def test_nan_activations(rows):
    values, codes = rows
    broken = mx.where(mx.arange(200)[:, None] == 7, mx.array(math.nan), values)
    with pytest.raises(AnalysisError, match="1 of 200 examples, the first being 7"):
        train_probes({HERE: broken}, codes)
    with pytest.raises(InputError, match="address → array"):
        train_probes([broken], codes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"200 activations at 'layers\.1\.mlp_out' for 4"):
        train_probes({HERE: values[:4], "layers.1.mlp_out": values}, [1, 0, 1, 0], kind="ridge")


def test_probes_that_cannot_be():
    weights, bias = mx.ones((2, 4)), mx.zeros((2,))
    with pytest.raises(InputError, match="not finite"):
        LinearProbe(HERE, "last", "x", weights * math.nan, bias, ("a", "b"))
    with pytest.raises(InputError, match="a probe of 3 outputs"):
        LinearProbe(HERE, "last", "x", weights, bias, ("a", "b", "c"))
    probe = LinearProbe(HERE, "last", "x", weights, bias, ("a", "b"))
    with pytest.raises(InputError, match="depends on no direction"):
        probe.direction()
    with pytest.raises(InputError, match="reads"):
        probe.predict(mx.ones((3, 5)))
    with pytest.raises(EditError, match="another model or point"):
        probe.scores(mx.ones((1, 2, 5)))


def test_saved_and_loaded(rows, tmp_path):
    values, codes = rows
    names = np.array(["no", "yes"])[codes].tolist()
    result = train_probes({HERE: values, "embed": values * 0.1}, names)
    path = result.save(tmp_path / "probes.safetensors")
    again = ProbeResult.load(path)
    assert again.cells == result.cells and again.data == result.data
    assert again.probe(point="embed").predict(values) == result.probe(point="embed").predict(values)
    assert again.cell(layer=0).address == HERE
    with pytest.raises(AddressError, match="several places"):
        again.cell()
    with pytest.raises(AddressError, match="no place"):
        again.cell(layer=3)
    text = json.loads(result.save(tmp_path / "probes.json").read_text())
    assert text["data"]["cells"][0]["control_types"] == "text"
    assert "selectivity" in result.to_markdown()


def test_files_that_are_something_else(rows, tmp_path):
    values, codes = rows
    result = train_probes({HERE: values}, codes, kind="mass_mean")
    whole = result.save(tmp_path / "probes.safetensors").read_bytes()
    other = tmp_path / "other.safetensors"
    changes = [
        (b'"kind\\": \\"mass_mean', b'"kynd\\": \\"mass_mean'),
        (b'\\"train\\": 150', b'\\"train\\": "15"'),
        (b"mlxray-probes", b"mlxray-porbes"),
        (b'"0.bias"', b'"1.bias"'),
    ]
    for old, new in changes:
        assert old in whole, old
        other.write_bytes(whole.replace(old, new))
        with pytest.raises(LoadError):
            ProbeResult.load(other)
    other.write_bytes(whole[:-8])
    with pytest.raises(LoadError, match="not a whole"):
        ProbeResult.load(other)
    with pytest.raises(LoadError, match="no file"):
        ProbeResult.load(tmp_path / "none.safetensors")


def test_every_error_is_one_of_ours(make):
    with pytest.raises(MlxrayError):
        make("llama").linear_probe(TableResult({}), [1])
