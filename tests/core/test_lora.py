"""An adapter is whole, fits the model and changes it; or a LoadError says what is wrong."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.errors import LoadError

PARAMETERS = {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
CONFIG = {"num_layers": 2, "lora_parameters": PARAMETERS}
MODULES = [f"model.layers.{i}.self_attn.q_proj" for i in (3, 4)]


def arrays(kind: str = "lora") -> dict[str, mx.array]:
    mx.random.seed(1)
    shapes = {"lora_a": (128, 4), "lora_b": (4, 128)} | ({"m": (128,)} if kind == "dora" else {})
    return {f"{m}.{part}": mx.random.normal(s) for m in MODULES for part, s in shapes.items()}


def adapter(folder: Path, weights: dict[str, mx.array], config: Any = None) -> str:
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG if config is None else config))
    return str(folder)


def fails(lora_path: str, match: str) -> str:
    with pytest.raises(LoadError, match=match) as error:
        InterpretableModel("pocket", lora_path=lora_path)
    text = str(error.value)
    assert len(text) < 1000 and "Namespace" not in text
    return text


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_whole_adapter_changes_the_model(tmp_path: Path, kind: str) -> None:
    config = {**CONFIG, "fine_tune_type": kind}
    path = adapter(tmp_path, arrays(kind), config)
    changed = InterpretableModel("pocket", lora_path=path).run_with_hooks("Hello")
    assert not mx.allclose(changed, InterpretableModel("pocket").run_with_hooks("Hello"))


def test_full_weights(tmp_path: Path) -> None:
    config = {"fine_tune_type": "full"}
    path = adapter(tmp_path, {"model.norm.weight": mx.zeros((128,))}, config)
    logits = InterpretableModel("pocket", lora_path=path).run_with_hooks("Hello")
    assert not mx.any(logits).item()
    fails(adapter(tmp_path, {"model.nrm.weight": mx.zeros((128,))}, config), "cannot put")
    fails(adapter(tmp_path, {}, config), "holds no arrays")


@pytest.mark.parametrize("part", ["lora_a", "lora_b", "m"])
def test_half_an_adapter(tmp_path: Path, part: str) -> None:
    for keep in (MODULES, MODULES[1:]):  # every such array is missing, or one
        half = {k: v for k, v in arrays("dora").items() if not k.endswith(f".{part}") or k in keep}
        half.pop(f"{MODULES[0]}.{part}", None)
        path = adapter(tmp_path, half, {**CONFIG, "fine_tune_type": "dora"})
        assert MODULES[0] in fails(path, f"has no '{part}'")


def test_an_adapter_without_arrays_or_for_nothing(tmp_path: Path) -> None:
    fails(adapter(tmp_path, {}), "holds no arrays")
    fails(adapter(tmp_path, {"model.norm.weight": mx.zeros(128)}), "not part of a lora adapter")
    weights = {k.replace("layers.4", "layers.44"): v for k, v in arrays().items()}
    assert "layers.44" in fails(adapter(tmp_path, weights), "cannot put")
    one = {k: v for k, v in arrays().items() if "layers.4" in k}
    fails(adapter(tmp_path, one), r"changes 'model\.layers\.3\.self_attn\.q_proj', and")
    wide = {k: mx.zeros((4, 4)) for k in arrays()}
    fails(adapter(tmp_path, wide), "does not match")


def test_an_adapter_of_zeros_is_warned_of(tmp_path: Path) -> None:
    zeros = {k: v * (not k.endswith("lora_b")) for k, v in arrays().items()}
    with pytest.warns(UserWarning, match="the adapter changes nothing"):
        InterpretableModel("pocket", lora_path=adapter(tmp_path, zeros))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InterpretableModel("pocket", lora_path=adapter(tmp_path, arrays()))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "no JSON object"),
        ({"peft_type": "LORA", "r": 4}, "a PEFT adapter"),
        ({**CONFIG, "fine_tune_type": "lore"}, "fine_tune_type 'lore'. Did you mean 'lora'"),
        ({**CONFIG, "fine_tune_type": ["lora"]}, "fine_tune_type"),
        ({"lora_layers": 2, "lora_parameters": PARAMETERS}, "rename 'lora_layers' to 'num_layers'"),
        ({"lora_parameters": PARAMETERS}, "has no num_layers"),
        ({**CONFIG, "num_layers": "2"}, "has no num_layers"),
        ({"num_layers": 2}, "has no lora_parameters"),
        ({"num_layers": 2, "lora_parameters": 5}, "has no lora_parameters"),
        ({"num_layers": 2, "lora_parameters": {"rank": 4, "alpha": 8}}, "'alpha'.* wants 'scale'"),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "rank": 10**12}}, "the rank is"),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "rank": 0}}, "the rank is"),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "scale": 10**400}}, "scale is a"),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "dropout": None}}, "dropout is a"),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "keys": "q_proj"}}, "keys is a list"),
        (
            {"num_layers": 2, "lora_parameters": {**PARAMETERS, "keys": ["self_attn.qproj"]}},
            "no module is called 'self_attn.qproj'. Did you mean 'self_attn.q_proj'",
        ),
        ({"num_layers": 2, "lora_parameters": {**PARAMETERS, "keys": []}}, "no module"),
    ],
)
def test_settings_that_are_old_missing_or_wrong(tmp_path: Path, config: Any, said: str) -> None:
    fails(adapter(tmp_path, arrays(), config), said)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapters.safetensors"])
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "adapter"
    path = folder / name
    adapter(folder, arrays())
    path.unlink()
    fails(str(folder), f"has no {name}")
    os.mkfifo(path)
    fails(str(folder), "it is a pipe")
    path.unlink()
    path.symlink_to(path)
    fails(str(folder), "leads back to itself")
    path.unlink()
    path.write_bytes(b"{")
    fails(str(folder), "cannot be read|not a whole safetensors file")
