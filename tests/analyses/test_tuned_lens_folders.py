"""Folders of the package tuned-lens: its own formula, its own torch file, and broken ones."""

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.lenses.tuned_lens import TunedLens
from mlxray.analyses.lenses.tuned_lens_files import read_folder, write_folder
from mlxray.errors import InputError, LoadError, SaveError
from mlxray.storage.torch_writing import write_torch

CONFIG = {
    "base_model_name_or_path": "tiny",
    "d_model": 4,
    "num_hidden_layers": 3,
    "bias": True,
    "base_model_revision": None,
    "unembed_hash": "abc",
    "lens_type": "linear_tuned_lens",
}


def numbers(layers=3, width=4):
    generator = np.random.default_rng(0)
    shapes = {"weight": (width, width), "bias": (width,)}
    return {
        f"{layer}.{name}": generator.normal(size=shape).astype(np.float32)
        for layer in range(layers)
        for name, shape in shapes.items()
    }


def folder(path, state=None, **changes):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    state = numbers() if state is None else state
    write_torch(path / "params.pt", {name: mx.array(value) for name, value in state.items()})
    return path


def test_a_translator_adds_to_the_input_of_the_next_block(tmp_path):
    state = numbers()
    lens = read_folder(folder(tmp_path, state))
    stream = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    for layer in (0, 1):
        weight, bias = state[f"{layer + 1}.weight"], state[f"{layer + 1}.bias"]
        theirs = stream + stream @ weight.T + bias
        assert np.allclose(np.array(lens(mx.array(stream), layer)), theirs, atol=1e-5)
    assert mx.array_equal(lens(mx.array(stream), 2), mx.array(stream)).item()
    assert (lens.num_layers, lens.hidden_dim, lens.losses) == (3, 4, [])


def test_without_bias_and_in_half_precision(tmp_path):
    state = {k: v.astype(np.float16) for k, v in numbers().items() if "weight" in k}
    lens = read_folder(folder(tmp_path, state, bias=False))
    assert not mx.any(lens.translators[0].bias).item()
    assert lens.translators[0].weight.dtype == mx.float32


def test_it_comes_back(tmp_path):
    lens = read_folder(folder(tmp_path / "a"))
    found = read_folder(write_folder(lens, tmp_path / "b" / "c", "tiny"))
    for one, other in zip(lens.translators, found.translators, strict=True):
        assert mx.allclose(one.weight, other.weight, atol=1e-6).item()
        assert mx.array_equal(one.bias, other.bias).item()
    written = json.loads((tmp_path / "b" / "c" / "config.json").read_text())
    assert written.keys() == CONFIG.keys() and written["base_model_name_or_path"] == "tiny"


def test_torch_reads_what_is_written_and_we_what_torch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    lens = read_folder(folder(tmp_path / "a"))
    theirs = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])
    write_folder(lens, tmp_path / "b", "tiny")
    theirs.load_state_dict(torch.load(tmp_path / "b" / "params.pt", weights_only=True))
    assert not theirs[0].weight.any()
    added = np.array(lens.translators[1].weight) - np.eye(4, dtype=np.float32)
    assert np.array_equal(theirs[2].weight.detach().numpy(), added)
    torch.save(theirs.state_dict(), tmp_path / "b" / "params.pt")
    assert mx.array_equal(
        read_folder(tmp_path / "b").translators[1].bias, lens.translators[1].bias
    ).item()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": 5}, r"0.weight has shape \(4, 4\); its settings say \(5, 5\)"),
        ({"d_model": "4"}, "d_model = '4'"),
        ({"num_hidden_layers": 4}, "lacks '3.bias'; its settings say 4 translators"),
        ({"num_hidden_layers": 2}, "has '2.bias'"),
        ({"num_hidden_layers": None}, "num_hidden_layers = None"),
        ({"bias": False}, "has '0.bias'"),
        ({"lens_type": "other"}, "type 'other'"),
    ],
)
def test_settings_that_lie(tmp_path, changes, said):
    with pytest.raises(LoadError, match=said):
        read_folder(folder(tmp_path, **changes))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.full((4,), np.nan, np.float32), "1.bias holds NaN"),
        (np.zeros((4,), np.int32), "1.bias is no tensor of real numbers"),
        (np.zeros((3,), np.float32), r"1.bias has shape \(3,\)"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, value, said):
    with pytest.raises(LoadError, match=said):
        read_folder(folder(tmp_path, {**numbers(), "1.bias": value}))


def test_files_that_are_none(tmp_path):
    path = folder(tmp_path)
    (path / "config.json").write_text("[1]")
    with pytest.raises(LoadError, match="no settings"):
        read_folder(path)
    folder(tmp_path)
    write_torch(path / "params.pt", [1])
    with pytest.raises(LoadError, match="no tensors by name"):
        read_folder(path)
    (path / "params.pt").write_bytes(b"\x80\x02}.")
    with pytest.raises(LoadError, match=r"before torch 1\.6"):
        read_folder(path)


def test_loading_for_a_model(make, tmp_path):
    model = make("llama")
    lens = TunedLens(3, 32)
    lens.translators[0].bias = mx.ones(32)
    write_folder(lens, tmp_path / "lens", "llama")
    found = model.load_tuned_lens(tmp_path / "lens")
    text = "abcabd"
    assert model.tuned_lens(text, found)[0] == model.tuned_lens(text, lens)[0]
    with pytest.raises(InputError, match="3 layers of width 4"):
        model.load_tuned_lens(folder(tmp_path / "other"))


def test_what_has_no_place_there(tmp_path):
    lens = TunedLens(3, 4)
    lens.translators[-1].bias = mx.ones(4)
    with pytest.raises(InputError, match="last layer is not the identity"):
        write_folder(lens, tmp_path / "lens", "tiny")
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="cannot make the folder"):
        write_folder(TunedLens(3, 4), tmp_path / "file" / "lens", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
