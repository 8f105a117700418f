import json
import pickle
import struct

import mlx.core as mx
import pytest

from mlxray import __version__
from mlxray.analyses.steering import SteeringVector, steering_vector
from mlxray.errors import EditError, InputError, LoadError

LAST = "layers.1.resid_post"


@pytest.fixture
def saved(make, tmp_path):
    made = steering_vector(make("llama"), [[5, 17, 3]], [[9, 2]], point="z")
    return made, made.save(tmp_path / "a.safetensors")


def write(path, arrays, about):
    mx.save_safetensors(str(path), arrays, metadata=about)
    return path


def metadata(path):
    return dict(mx.load(str(path), return_metadata=True)[1])


def test_it_comes_back_as_it_was(saved, make, pocket):
    made, path = saved
    again = SteeringVector.load(path, make("llama"))
    assert set(again.vectors) == set(made.vectors) == {"layers.0.z", "layers.1.z"}
    for address, vector in made.vectors.items():
        assert mx.array_equal(again.vectors[address], vector)
    for field in ("norms", "method", "position", "model", "n_layers", "positive", "negative"):
        assert getattr(again, field) == getattr(made, field), field
    assert again.version == __version__ and again.positive == ("[5, 17, 3]",)
    with pytest.raises(EditError, match="another model"):
        SteeringVector.load(path, pocket)


def test_texts_are_kept_whatever_they_hold(pocket, tmp_path):
    hostile = ['The "capital"\n\x00 <b>$x$</b> 😀 é', "is"]
    made = steering_vector(pocket, hostile, ["The capital"], layers=2, position="mean")
    path = made.save(tmp_path / "a.safetensors")
    assert SteeringVector.load(path).positive == tuple(hostile)


def test_another_ending_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match=r"\.safetensors"):
        saved[0].save(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "mlx"}, "is no steering vector"),
        ({"version": "2"}, "version '2'"),
        ({"vector": "{"}, "metadata"),
        ({"vector": "[" * 100_000}, "metadata"),
        ({"vector": "[]"}, "metadata"),
        ({"vector": "{}"}, "norms"),
        ({"norms": {"layers.0.z": "1"}}, "norms"),
        ({"norms": {"layers.0.z": 1.0}}, "one norm for each"),
        ({"norms": {"layers.0.z": 1.0, "layers.1.z": 1e400}}, "norms"),
        ({"norms": {"layers.0.z": 1.0, "layers.1.z": 10**400}}, "metadata"),
        ({"norms": {"layers.0.z": 1.0, "layers.1.z": -1.0}}, "norm at"),
        ({"n_layers": 1}, "for 1 layers"),
        ({"n_layers": True}, "n_layers"),
        ({"positive": "text"}, "positive"),
        ({"positive": [1]}, "positive"),
        ({"method": None}, "method"),
        ({"position": 1.5}, "position"),
    ],
)
def test_metadata_that_cannot_be_is_refused(saved, tmp_path, change, match):
    made, path = saved
    about = metadata(path)
    inner = {k: v for k, v in change.items() if k not in ("format", "version", "vector")}
    if inner:
        change = {"vector": json.dumps({**json.loads(about["vector"]), **inner})}
    broken = write(tmp_path / "b.safetensors", dict(made.vectors), {**about, **change})
    with pytest.raises(LoadError, match=match):
        SteeringVector.load(broken)


@pytest.mark.parametrize(
    "array",
    [
        mx.array([1.0, mx.nan]),
        mx.array([1.0, mx.inf]),
        mx.zeros(4),
        mx.array([1, 2]),
        mx.ones((2,), dtype=mx.float16),
        mx.array(1.0),
        mx.ones((1, 1, 1, 2)),
    ],
)
def test_numbers_that_cannot_be_are_refused(saved, tmp_path, array):
    made, path = saved
    arrays = {**made.vectors, "layers.1.z": array}
    with pytest.raises(LoadError):
        SteeringVector.load(write(tmp_path / "b.safetensors", arrays, metadata(path)))


def test_files_that_are_something_else_are_refused(saved, tmp_path):
    whole = saved[1].read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    cases = {
        "empty": b"",
        "pickle": pickle.dumps({"a": 1}),
        "cut": whole[:-7],
        "header": struct.pack("<Q", 1 << 60) + whole[8:],
        "no metadata": struct.pack("<Q", 2) + b"{}",
        "overlap": whole[: 8 + length].replace(b"data_offsets", b"data_offsetz")
        + whole[8 + length :],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(LoadError):
            SteeringVector.load(path)
    with pytest.raises(LoadError, match="no file"):
        SteeringVector.load(tmp_path / "missing.safetensors")
    with pytest.raises(LoadError, match="it is a folder"):
        SteeringVector.load(tmp_path)
