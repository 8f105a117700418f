"""Files that lie, lack something or hold code are refused, and the error names what and where."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import DictionaryFormat, registry
from mlxray.analyses.dictionaries import load_dictionary, save_dictionary
from mlxray.errors import InputError, LoadError, PluginError

from ...core.torch_archive import Archive
from . import layouts
from .layouts import F, weights


def native(folder: Path) -> None:
    layouts.saelens(folder / "first", "jumprelu", weights())
    made = load_dictionary(folder / "first")
    shutil.rmtree(folder / "first")
    save_dictionary(made, folder, "mlxray")


WRITERS: dict[str, Callable[[Path], Any]] = {
    "saelens": lambda folder: layouts.saelens(folder, "jumprelu", weights()),
    "gemma-scope": lambda folder: layouts.gemma_scope(folder, weights()),
    "gemma-scope-2": lambda folder: layouts.gemma_scope_2(folder, weights(), model_name="pocket"),
    "llama-scope": lambda folder: layouts.llama_scope(folder, weights()),
    "sparsify": lambda folder: layouts.sparsify(folder, weights()),
    "dictionary_learning": lambda f: layouts.dictionary_learning(f, "AutoEncoder", weights()),
    "qwen-scope": lambda folder: layouts.qwen_scope(folder / "SAE-Res-Qwen3-W1K-L0_3", weights()),
    "mlxterp": lambda folder: layouts.mlxterp(folder, weights()),
    "mlxray": native,
    "circuit-tracer": layouts.circuit_tracer,
    "circuit-tracer-set": lambda folder: layouts.circuit_tracer_set(folder, weights()),
}


def weight_files(folder: Path) -> list[Path]:
    endings = (".safetensors", ".npz", ".pt")
    return sorted(path for path in folder.rglob("*") if path.suffix in endings)


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the tensors of a file of any kind."""
    if path.suffix == ".safetensors":
        arrays: Any = mx.load(str(path))
        arrays = dict(arrays)
        mx.eval(arrays)
        edit(arrays)
        mx.save_safetensors(str(path), arrays)
    elif path.suffix == ".npz":
        found = dict(np.load(path))
        edit(found)
        np.savez(path, **found)
    else:
        from mlxray.storage.torch_file import read_torch

        state = {name: np.array(array) for name, array in read_torch(path).items()}
        edit(state)
        layouts.write_torch(path, {k: np.array(v, order="C") for k, v in state.items()})


@pytest.fixture(params=WRITERS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    WRITERS[request.param](tmp_path)
    assert load_dictionary(tmp_path, format=request.param) is not None
    return request.param, tmp_path


def test_every_registered_format_is_here() -> None:
    assert sorted(WRITERS) == registry.names("dictionary_format")


def test_missing_tensors_are_named(layout: tuple[str, Path]) -> None:
    _, folder = layout
    path = weight_files(folder)[0]
    gone: list[str] = []
    change(path, lambda arrays: gone.append(min(arrays)) or arrays.pop(gone[0]))
    with pytest.raises(LoadError, match=f"{path.name}.*{gone[0]}"):
        load_dictionary(folder)


def test_wrong_shapes_are_named(layout: tuple[str, Path]) -> None:
    """A tensor with a row less than the others and the settings say."""
    _, folder = layout
    path = weight_files(folder)[-1]

    def cut(arrays: dict[str, Any]) -> None:
        name = next(n for n in sorted(arrays) if arrays[n].ndim == 1 and arrays[n].size == F)
        arrays[name] = arrays[name][:-1]

    change(path, cut)
    with pytest.raises(LoadError, match=rf"{path.name}.*shape \({F - 1},\); expected \({F},\)"):
        load_dictionary(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(layout: tuple[str, Path], value: float) -> None:
    _, folder = layout
    path = weight_files(folder)[-1]

    def spoil(arrays: dict[str, Any]) -> None:
        name = next(n for n in sorted(arrays) if arrays[n].ndim >= 2)
        arrays[name] = arrays[name] * value

    change(path, spoil)
    with pytest.raises(LoadError, match=rf"{path.name}.*NaN or infinity"):
        load_dictionary(folder)


def test_unknown_tensors_are_named(layout: tuple[str, Path]) -> None:
    """Such as the threshold of a JumpReLU whose settings say ReLU."""
    _, folder = layout
    path = weight_files(folder)[0]
    change(path, lambda arrays: arrays.update(surprise=next(iter(arrays.values()))))
    with pytest.raises(LoadError, match=rf"{path.name}.*'surprise'"):
        load_dictionary(folder)


@pytest.mark.parametrize("cut", [0, 1, 200])
def test_cut_files_are_refused(layout: tuple[str, Path], cut: int) -> None:
    _, folder = layout
    path = weight_files(folder)[0]
    path.write_bytes(path.read_bytes()[: -cut or None] if cut else b"")
    with pytest.raises(LoadError, match=path.name):
        load_dictionary(folder)


def test_links_pipes_and_folders_are_refused(layout: tuple[str, Path]) -> None:
    _, folder = layout
    path = weight_files(folder)[0]
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(LoadError, match=r"link|no dictionary"):
        load_dictionary(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LoadError, match=r"pipe|no dictionary"):
        load_dictionary(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(LoadError, match=r"folder|no dictionary"):
        load_dictionary(folder)


SETTINGS = {
    "saelens": "cfg.json",
    "gemma-scope-2": "config.json",
    "llama-scope": "hyperparams.json",
    "sparsify": "cfg.json",
    "dictionary_learning": "config.json",
    "mlxterp": "config.json",
    "circuit-tracer": "config.yaml",
    "circuit-tracer-set": "config.yaml",
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("content", [b"{", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_settings_that_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / SETTINGS[name]).write_bytes(content)
    with pytest.raises(LoadError, match=SETTINGS[name]):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("name", [n for n in SETTINGS if SETTINGS[n] != "config.yaml"])
@pytest.mark.parametrize("value", ["many", -3, 0, 1e300, True, [1], {"a": 1}, 10**12])
def test_no_setting_of_another_kind_gets_through(tmp_path: Path, name: str, value: Any) -> None:
    """Each setting in turn is replaced: the dictionary is as before, or refused with its file."""
    WRITERS[name](tmp_path)
    before = load_dictionary(tmp_path)
    path = tmp_path / SETTINGS[name]
    whole = json.loads(path.read_text())
    inner = whole.get("trainer", whole)
    for key in list(inner):
        kept, inner[key] = inner[key], value
        path.write_text(json.dumps(whole))
        inner[key] = kept
        try:
            found, said = load_dictionary(tmp_path), ""
        except LoadError as error:
            found, said = None, str(error)
        same = found is not None and mx.array_equal(found.encoder, before.encoder)
        assert same or tmp_path.name in said, key


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"d_in": 7}, r"W_enc has shape \(6, 10\); expected \(7, 10\).*d_in = 7"),
        ({"d_sae": 10**9}, r"threshold has shape \(10,\); expected \(1000000000,\)"),
        ({"architecture": "hypersae"}, "architecture = 'hypersae'; one of standard"),
        ({"architecture": "matching_pursuit"}, "also holds 'W_enc'.*'matching_pursuit'"),
        ({"architecture": "standard"}, "also holds 'threshold'.*'standard'"),
        ({"architecture": "topk", "k": 0}, "k = 0"),
        ({"architecture": "topk", "k": 11}, "k = 11; at most d_sae = 10"),
        ({"architecture": "topk"}, "does not say 'k'"),
        ({"normalize_activations": "cube"}, "normalize_activations = 'cube'"),
        ({"dtype": "int8"}, "dtype = 'int8'"),
        ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input = 'no'; true or false"),
        ({"metadata": 3}, "metadata"),
    ],
)
def test_saelens_settings_that_lie(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = layouts.saelens(tmp_path, "jumprelu", weights()) / "cfg.json"
    layouts.settings(path, json.loads(path.read_text()) | changed)
    with pytest.raises(LoadError, match=said):
        load_dictionary(tmp_path)


def test_saelens_settings_that_change_the_output_are_refused(tmp_path: Path) -> None:
    w = weights()
    folder = layouts.saelens(tmp_path, "transcoder", w, normalize_activations="layer_norm")
    with pytest.raises(LoadError, match="normalize_activations"):
        load_dictionary(folder)
    layouts.saelens(folder, "transcoder", w, apply_b_dec_to_input=True)
    with pytest.raises(LoadError, match="apply_b_dec_to_input"):
        load_dictionary(folder)
    layouts.saelens(folder, "standard", w)
    layouts.settings(folder / "cfg.json", {"d_in": 6, "d_sae": F, "activation_fn_str": "tanh-relu"})
    with pytest.raises(LoadError, match="tanh-relu"):
        load_dictionary(folder)
    layouts.settings(folder / "cfg.json", {"d_in": 6, "d_sae": F})
    file = folder / "sae_weights.safetensors"
    change(file, lambda arrays: arrays.update(scaling_factor=mx.full((F,), 2.0)))
    with pytest.raises(LoadError, match="scaling_factor"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda f: layouts.sparsify(f, weights(), k=0), "k = 0"),
        (lambda f: layouts.sparsify(f, weights(), k=11), "at most 10"),
        (lambda f: layouts.sparsify(f, weights(), activation="groupmax"), "groupmax"),
        (lambda f: layouts.sparsify(f, weights(), d_in=7), "d_in = 7; its tensors say 6"),
        (lambda f: layouts.llama_scope(f, weights(), act_fn="tanh"), "act_fn"),
        (lambda f: layouts.llama_scope(f, weights(), norm_activation="token-wise"), "token-wise"),
        (
            lambda f: layouts.llama_scope(f, weights(), dataset_average_activation_norm={"in": 0}),
            "in = 0",
        ),
        (lambda f: layouts.llama_scope(f, weights(), d_sae=11), "d_sae = 11"),
        (lambda f: layouts.mlxterp(f, weights(), k=0), "k = 0"),
        (lambda f: layouts.mlxterp(f, weights(), "Crosscoder"), "Crosscoder"),
        (lambda f: layouts.mlxterp(f, weights(), d_model=7), "d_model = 7"),
        (lambda f: layouts.gemma_scope_2(f, weights(), width=16), "width = 16"),
        (lambda f: layouts.dictionary_learning(f, "IdentityDict", weights()), "IdentityDict"),
        (lambda f: layouts.dictionary_learning(f, "BatchTopKSAE", weights(), k=4), "k = 4"),
        (
            lambda f: layouts.dictionary_learning(f, "AutoEncoder", weights(), dict_size=11),
            "dict_size = 11",
        ),
        (lambda f: layouts.qwen_scope(f / "anywhere", weights()), "how many features"),
        (lambda f: layouts.qwen_scope(f / "SAE-Res-x-W1K-L0_50", weights()), "k = 50"),
    ],
)
def test_other_settings_that_lie(tmp_path: Path, write: Callable[[Path], Any], said: str) -> None:
    write(tmp_path)
    with pytest.raises(LoadError, match=said):
        load_dictionary(tmp_path)


def test_cross_layer_transcoders(tmp_path: Path) -> None:
    layouts.circuit_tracer(tmp_path)
    (tmp_path / "config.yaml").write_text("model_kind: transcoder_set\n")
    with pytest.raises(LoadError, match="transcoder_set"):
        load_dictionary(tmp_path)
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch executed']")
    with pytest.raises(LoadError, match="YAML"):
        load_dictionary(tmp_path)
    (tmp_path / "config.yaml").unlink()
    assert load_dictionary(tmp_path).reads is None  # settings may be missing
    change(tmp_path / "W_enc_0.safetensors", lambda a: a.update(W_skip_0=mx.eye(6)))
    with pytest.raises(LoadError, match="W_skip_0"):
        load_dictionary(tmp_path)
    layouts.circuit_tracer(tmp_path)
    (tmp_path / "W_dec_1.safetensors").unlink()
    with pytest.raises(LoadError, match="W_dec_1"):
        load_dictionary(tmp_path)
    (tmp_path / "W_enc_1.safetensors").unlink()
    with pytest.raises(LoadError, match="no layer 1"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("name", ["dictionary_learning", "qwen-scope"])
def test_code_in_a_torch_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    archive = Archive()
    call = archive.name("os", "system") + b"(" + archive.text("touch executed") + b"tR"
    archive.write(weight_files(tmp_path)[0], {"encoder.weight": call})
    with pytest.raises(LoadError, match=r"'os\.system', which is code"):
        load_dictionary(tmp_path)
    archive.write(weight_files(tmp_path)[0], [1, 2])
    with pytest.raises(LoadError, match="no tensors by name"):
        load_dictionary(tmp_path)


def test_numpy_files_with_objects_or_compressed_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([{}], dtype=object))
    with pytest.raises(LoadError, match="object"):
        load_dictionary(tmp_path)
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros((1000, 1000)))
    with pytest.raises(LoadError, match="compressed"):
        load_dictionary(tmp_path)


def test_what_is_no_dictionary_is_told_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no dictionary of a known format.*saelens"):
        load_dictionary(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(LoadError, match=r"It holds 'model\.safetensors'"):
        load_dictionary(tmp_path)
    with pytest.raises(LoadError, match="no dictionary"):
        load_dictionary(tmp_path / "model.safetensors")
    for wrong in ("", "./nowhere", "a/b/c", "\0", str(tmp_path / "gone"), "x" * 5000):
        with pytest.raises(LoadError):
            load_dictionary(wrong)
    with pytest.raises(InputError, match="path or a hub id"):
        load_dictionary(3)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="sealens"):
        load_dictionary(tmp_path, format="sealens")
    with pytest.raises(InputError, match="layer"):
        load_dictionary(tmp_path, layer=-1)


def test_several_formats_or_several_dictionaries(tmp_path: Path) -> None:
    one = layouts.gemma_scope(tmp_path / "layer_3/width_16k/average_l0_9", weights())
    with pytest.raises(LoadError, match=r"no dictionary whose path names layer 4.*layer_3"):
        load_dictionary(tmp_path, layer=4)
    assert load_dictionary(tmp_path).kind == "jumprelu"
    layouts.gemma_scope(tmp_path / "layer_4/width_16k/average_l0_3", weights())
    with pytest.raises(LoadError, match=r"2 dictionaries: .*layer_3.*layer_4.*subfolder"):
        load_dictionary(tmp_path)
    assert load_dictionary(tmp_path, layer=4).kind == "jumprelu"
    assert load_dictionary(tmp_path, subfolder="layer_3").kind == "jumprelu"
    layouts.mlxterp(one, weights())
    with pytest.raises(LoadError, match="several formats: 'gemma-scope', 'mlxterp'"):
        load_dictionary(one)
    assert load_dictionary(one, format="mlxterp").kind == "topk"


def test_a_layer_that_is_another(tmp_path: Path) -> None:
    folder = layouts.saelens(tmp_path / "sae", "standard", weights())
    assert load_dictionary(folder, layer=1).kind == "relu"
    with pytest.raises(LoadError, match="of layer 1, not of layer 2"):
        load_dictionary(folder, layer=2)
    layouts.circuit_tracer(tmp_path / "clt")
    with pytest.raises(LoadError, match="all layers together"):
        load_dictionary(tmp_path / "clt", layer=2)


@pytest.mark.filterwarnings("ignore::mlxray.plugins.registry.PluginWarning")
@pytest.mark.parametrize(
    ("load", "said"),
    [
        (lambda path: 1 / 0, "cannot read.*ZeroDivisionError"),
        (lambda path: {"W_enc": 1}, "read a dict"),
    ],
)
def test_formats_of_strangers_that_fail(tmp_path: Path, load: Any, said: str) -> None:
    class Plugin:
        @staticmethod
        def mlxray_dictionary_formats() -> list[DictionaryFormat]:
            return [
                DictionaryFormat("bad", lambda path: path.name == "bad", load),
                DictionaryFormat("worse", lambda path: 1 // 0 == 0, load),
            ]

    import mlxray

    mlxray.hookimpl(Plugin.mlxray_dictionary_formats)
    registry.register(Plugin, "bad-formats")
    try:
        (tmp_path / "bad").mkdir()
        with pytest.raises(LoadError, match=said):
            load_dictionary(tmp_path / "bad")
    finally:
        registry.unregister("bad-formats")
