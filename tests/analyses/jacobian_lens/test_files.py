"""Torch files of a lens: written, read by torch itself, and what a hostile one meets."""

import pickle
import zipfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.lenses.jacobian.jacobian_lens_result import JacobianLens
from mlxray.errors import InputError, LoadError
from mlxray.storage.torch_writing import write_torch


def a_lens(width=4, layers=(0, 2), prompts=7):
    numbers = np.random.default_rng(0).normal(size=(len(layers), width, width)).astype(np.float32)
    return JacobianLens(
        {n: mx.array(j) for n, j in zip(layers, numbers, strict=True)}, prompts, width
    )


def content(**changes):
    lens = a_lens()
    whole = {
        "J": dict(lens.jacobians),
        "n_prompts": 7,
        "source_layers": [0, 2],
        "d_model": 4,
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_it_comes_back(tmp_path):
    lens = a_lens()
    path = lens.save(tmp_path / "lens.pt")
    found = JacobianLens.load(path)
    assert (found.source_layers, found.n_prompts, found.d_model) == ([0, 2], 7, 4)
    for layer, jacobian in found.jacobians.items():
        stored = np.array(lens.jacobians[layer]).astype(np.float16).astype(np.float32)
        assert np.array_equal(np.array(jacobian), stored)
    lens.save(path, dtype="float32")
    assert mx.array_equal(JacobianLens.load(str(path)).jacobians[2], lens.jacobians[2]).item()
    assert not found.warnings


def test_torch_reads_it_with_weights_only_and_we_read_torch(tmp_path):
    torch = pytest.importorskip("torch")
    lens = a_lens()
    found = torch.load(lens.save(tmp_path / "ours.pt"), weights_only=True)
    assert list(found) == ["J", "n_prompts", "source_layers", "d_model"]
    assert list(found["J"]) == [0, 2] == found["source_layers"]
    assert found["J"][2].dtype == torch.float16
    assert np.array_equal(found["J"][2].numpy(), np.array(lens.jacobians[2]).astype(np.float16))
    theirs = tmp_path / "theirs.pt"
    torch.save(
        {
            "J": {n: torch.tensor(np.array(j)).half() for n, j in lens.jacobians.items()},
            "n_prompts": 7,
            "source_layers": [0, 2],
            "d_model": 4,
        },
        theirs,
    )
    ours = JacobianLens.load(theirs)
    assert np.array_equal(np.array(ours.jacobians[0]), found["J"][0].float().numpy())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"J": None}, "lacks .'J'."),
        ({"d_model": None}, "lacks .'d_model'."),
        ({"d_model": 5}, r"says d_model = 5, and J of layer 0 has shape \(4, 4\)"),
        ({"d_model": True}, "d_model is True"),
        ({"n_prompts": 0}, "n_prompts is 0"),
        ({"n_prompts": "many"}, "n_prompts is 'many'"),
        ({"source_layers": [0, 1]}, r"says layers \[0, 1\], and J has \[0, 2\]"),
        ({"source_layers": 3}, "says layers 3"),
        ({"J": {}}, "no dictionary of layers"),
        ({"J": [1]}, "no dictionary of layers"),
        ({"J": {"a": mx.zeros((4, 4))}}, "'a' is no layer"),
        ({"J": {-1: mx.zeros((4, 4))}}, "-1 is no layer"),
        ({"J": {0: 3}}, "no tensor of real numbers"),
        ({"J": {0: mx.zeros((4, 4), dtype=mx.int32)}}, "no tensor of real numbers"),
        ({"J": {0: mx.zeros((4, 3))}}, r"shape \(4, 3\)"),
        ({"J": {0: mx.full((4, 4), float("nan"))}}, "NaN or infinity"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path, changes, said):
    path = tmp_path / "lens.pt"
    write_torch(path, content(**changes))
    with pytest.raises(LoadError, match=said):
        JacobianLens.load(path)


def test_a_checkpoint_of_the_original_fit_is_named(tmp_path):
    write_torch(tmp_path / "fit.pt", {"jacobian_sum": {0: mx.zeros((2, 2))}, "n_done": 3})
    with pytest.raises(LoadError, match="checkpoint of a fit"):
        JacobianLens.load(tmp_path / "fit.pt")


def test_what_is_not_known_is_told(tmp_path):
    write_torch(tmp_path / "lens.pt", content(target_layer=30))
    assert "target_layer" in JacobianLens.load(tmp_path / "lens.pt").warnings[0]


def test_code_in_a_file_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path(tmp_path / "sprung").touch, ()

    path = tmp_path / "lens.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"J": Trap()}, protocol=2))
    with pytest.raises(LoadError, match="nothing of the file is executed"):
        JacobianLens.load(path)
    assert not (tmp_path / "sprung").exists()


def test_shapes_that_the_file_cannot_hold(tmp_path):
    """The pickle says 4 times 4 numbers, the archive has fewer."""
    whole = a_lens().save(tmp_path / "lens.pt")
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            kept = old.read(name)
            new.writestr(name, kept[:-8] if name.endswith("data/1") else kept)
    with pytest.raises(LoadError, match="should have 16 numbers"):
        JacobianLens.load(short)
    short.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(LoadError, match="broken"):
        JacobianLens.load(short)


def test_numbers_that_half_precision_cannot_hold(tmp_path):
    lens = JacobianLens({0: mx.full((2, 2), 1e5)}, 1, 2)
    with pytest.raises(InputError, match="float16 cannot"):
        lens.save(tmp_path / "lens.pt")
    assert not (tmp_path / "lens.pt").exists()
    lens.save(tmp_path / "lens.pt", dtype="bfloat16")
    with pytest.raises(InputError, match="one of float16"):
        lens.save(tmp_path / "lens.pt", dtype="int8")


def test_loading_for_a_model(make, tmp_path):
    model = make("llama")
    a_lens(width=32, layers=(0, 1)).save(tmp_path / "lens.pt")
    assert model.load_jacobian_lens(tmp_path).source_layers == [0, 1]
    assert model.load_jacobian_lens(tmp_path, file="lens.pt").n_prompts == 7
    a_lens().save(tmp_path / "other.pt")
    with pytest.raises(LoadError, match=r"2 files \.pt"):
        model.load_jacobian_lens(tmp_path)
    with pytest.raises(InputError, match=r"4 wide; .* 32 dimensions. .*another model"):
        model.load_jacobian_lens(tmp_path / "other.pt")
    a_lens(width=32, layers=(0, 7)).save(tmp_path / "deep.pt")
    with pytest.raises(InputError, match="layer 7; the model has 3 layers"):
        model.load_jacobian_lens(tmp_path / "deep.pt")
    with pytest.raises(LoadError, match="no folder"):
        model.load_jacobian_lens(tmp_path / "none.pt")
    with pytest.raises(LoadError, match="name one with file"):
        model.load_jacobian_lens("owner/name")
    with pytest.raises(LoadError, match="inside of"):
        model.load_jacobian_lens(tmp_path, file="../lens.pt")


def test_fetching_from_the_hub(make, tmp_path, monkeypatch):
    """Only the named file is asked for."""
    asked = []
    (tmp_path / "tiny").mkdir()
    a_lens(width=32, layers=(0, 1)).save(tmp_path / "tiny" / "lens.pt")

    def fetch(source, patterns):
        asked.append((source, list(patterns)))
        return tmp_path

    monkeypatch.setattr("mlxray.analyses.lenses.jacobian.files.fetch", fetch)
    lens = make("llama").load_jacobian_lens("neuronpedia/jacobian-lens", file="tiny/lens.pt")
    assert asked == [("neuronpedia/jacobian-lens", ["tiny/lens.pt"])] and lens.n_prompts == 7
