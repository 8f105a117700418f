"""mlxray's own layout: every kind and form comes back the same; what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import (
    Activation,
    Crosscoder,
    Dictionary,
    Normalization,
    TopK,
    load_dictionary,
    save_dictionary,
)
from mlxray.analyses.dictionaries.formats.mlxterp import TopKOfBatch
from mlxray.errors import InputError, LoadError

from .layouts import F, inputs
from .test_saving import ACTIVATIONS, NORMALIZATIONS, W, dictionary


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: n.kind)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: a.kind)
def test_dictionaries(tmp_path: Path, activation: Activation, normalization: Normalization) -> None:
    made = dictionary(activation, normalization)
    if not normalization.per_token:
        made = replace(made, writes="layers.1.mlp_add", skip=W["W_skip"])
    save_dictionary(made, tmp_path, "mlxray")
    found = load_dictionary(tmp_path)
    assert isinstance(found, Dictionary)
    x = mx.array(inputs())
    assert mx.array_equal(found.encode(x), made.encode(x)) and mx.array_equal(found(x), made(x))
    assert (found.reads, found.writes, found.kind) == (made.reads, made.writes, made.kind)
    assert found.metadata == {**made.metadata, "format": "mlxray"}


def crosscoder(points: tuple[str, ...] | None = ("layers.0.mlp_out", "layers.1.mlp_out")) -> Any:
    rng = np.random.default_rng(0)
    shapes = {
        "encoder": (2, 5, 7),
        "encoder_bias": (7,),
        "decoder": (7, 2, 5),
        "decoder_bias": (2, 5),
    }
    arrays = {n: mx.array(rng.normal(size=s).astype(np.float32)) for n, s in shapes.items()}
    return Crosscoder(**arrays, activation=TopK(3), points=points)


@pytest.mark.parametrize("points", [("layers.0.mlp_out", "layers.1.mlp_out"), None])
def test_crosscoders(tmp_path: Path, points: tuple[str, ...] | None) -> None:
    made = crosscoder(points)
    save_dictionary(made, tmp_path, "mlxray")
    found = load_dictionary(tmp_path)
    assert isinstance(found, Crosscoder) and found.points == points
    x = [mx.random.normal((4, 5)) for _ in range(2)]
    assert mx.array_equal(found.encode(x), made.encode(x))
    for mine, theirs in zip(
        found.decode(found.encode(x)), made.decode(made.encode(x)), strict=True
    ):
        assert mx.array_equal(mine, theirs)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no activation 'topk_of_batch'"):
        save_dictionary(dictionary(TopKOfBatch(3)), tmp_path, "mlxray")
    with pytest.raises(InputError, match="not for JSON"):
        save_dictionary(replace(dictionary(TopK(2)), metadata={"x": {1}}), tmp_path, "mlxray")
    with pytest.raises(InputError, match=r"Crosscoders.*format='mlxray'"):
        save_dictionary(crosscoder(), tmp_path)
    assert not list(tmp_path.iterdir())


def settings(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "dictionary.json"
        found = json.loads(path.read_text())
        edit(found)
        path.write_text(json.dumps(found))

    return change


def tensors(edit: Callable[[dict[str, mx.array]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = str(folder / "dictionary.safetensors")
        found: Any = mx.load(path)
        mx.eval(found)
        edit(found)
        mx.save_safetensors(path, found)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            settings(lambda s: s.update(format="mlxray-dictionary 9")),
            "'mlxray-dictionary 1' is need",
        ),
        (settings(lambda s: s.update(form="probe")), "one of dictionary, crosscoder"),
        (settings(lambda s: s["activation"].update(kind="softmax")), "one of relu"),
        (settings(lambda s: s["activation"].update(k=0)), "k = 0"),
        (settings(lambda s: s["activation"].update(k=10**6)), "k=1000000, but the dictionary has"),
        (settings(lambda s: s["activation"].pop("k")), "lacks"),
        (settings(lambda s: s["activation"].update(k="3")), "k = '3'"),
        (settings(lambda s: s.update(points="layers.0")), "a list of addresses"),
        (settings(lambda s: s.update(points=["layers.0"])), "points has 1 addresses"),
        (settings(lambda s: s.update(mlxray_save="0")), "different saves"),
        (tensors(lambda t: t.pop("decoder")), "no tensor 'decoder'"),
        (tensors(lambda t: t.update(more=mx.zeros(2))), "also holds 'more'"),
        (tensors(lambda t: t.update(encoder_bias=mx.zeros(F + 1))), "encoder_bias has shape"),
        (tensors(lambda t: t.update(encoder=t["encoder"] * float("nan"))), "NaN or infinity"),
        (settings(lambda s: s["shapes"].pop("decoder")), "'decoder' with 3 axes"),
        (settings(lambda s: s["shapes"].update(decoder=[7, "2", 5])), "lists of whole numbers"),
        (settings(lambda s: s["shapes"].update(decoder=[7, 2, 6])), r"expected \(7, 2, 6\)"),
    ],
)
def test_damaged_files(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    save_dictionary(crosscoder(), tmp_path, "mlxray")
    change(tmp_path)
    with pytest.raises(LoadError, match=said):
        load_dictionary(tmp_path)
