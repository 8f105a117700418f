"""The same numbers as SAELens' own code, where SAELens is installed (it is no dependency).

``pytest -s`` prints the table of docs/reference/dictionary-files.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import load_dictionary, save_dictionary
from mlxray.analyses.dictionaries.shipped import FOLDER

from . import layouts
from .layouts import inputs, weights

sae_lens = pytest.importorskip("sae_lens")
torch = pytest.importorskip("torch")

#: The largest difference that is accepted, as a share of the largest value.
CLOSE = 1e-5

#: Dictionary → the largest differences of features and output, as such shares.
LARGEST: dict[str, list[float]] = {}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the largest differences when all is compared."""
    yield
    print(f"\nSAELens {sae_lens.__version__}, torch {torch.__version__}")
    for what, shares in LARGEST.items():
        shown = (f"{s:.1e}".replace("e-0", "e-") if s else "0" for s in shares)
        print(f"| {what} |", " | ".join(shown), "|")


@pytest.fixture(autouse=True)
def size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A little larger than elsewhere, so that sums have some length."""
    monkeypatch.setattr(layouts, "D", 64)
    monkeypatch.setattr(layouts, "F", 256)


def agree(what: str, theirs: Any, ours: Any) -> None:
    x = inputs()[None]
    with torch.no_grad():
        wanted = [call(torch.from_numpy(x)).numpy() for call in (theirs.encode, theirs)]
    found = [np.array(call(mx.array(x))) for call in (ours.encode, ours)]
    shares = [
        float(np.abs(one - other).max() / np.abs(one).max())
        for one, other in zip(wanted, found, strict=True)
    ]
    known = LARGEST.setdefault(what, shares)
    LARGEST[what] = [max(pair) for pair in zip(known, shares, strict=True)]
    assert max(shares) <= CLOSE, what


def theirs(folder: Path) -> Any:
    return sae_lens.SAE.load_from_disk(str(folder))


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in (*layouts.NEEDED, *layouts.WHOLE)},
    "topk, ranked by decoder norm": ("topk", {"rescale_acts_by_decoder_norm": True}),
    "standard, constant_norm_rescale": (
        "standard",
        {"normalize_activations": "constant_norm_rescale"},
    ),
    "jumprelu, layer_norm": ("jumprelu", {"normalize_activations": "layer_norm"}),
    "standard, b_dec not subtracted": ("standard", {"apply_b_dec_to_input": False}),
    "temporal, constant_scalar_rescale, relu": (
        "temporal",
        {
            "n_heads": 4,
            "sae_diff_type": "relu",
            "apply_b_dec_to_input": False,
            "normalize_activations": "constant_scalar_rescale",
            "activation_normalization_factor": 0.3,
        },
    ),
    "temporal, layer_norm": ("temporal", {"normalize_activations": "layer_norm"}),
    "matching_pursuit, layer_norm, nine steps, no bias": (
        "matching_pursuit",
        {
            "residual_threshold": 4.0,
            "max_iterations": 9,
            "stop_on_duplicate_support": False,
            "apply_b_dec_to_input": False,
            "normalize_activations": "layer_norm",
        },
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_reading_and_writing(tmp_path: Path, what: str) -> None:
    """What SAELens saves is read the same, and what is written SAELens reads the same."""
    architecture, changed = CHANGES[what]
    w = layouts.weights_of(architecture)
    layouts.saelens(tmp_path / "mine", architecture, w, **changed)
    reference = theirs(tmp_path / "mine")
    reference.save_model(tmp_path / "theirs")
    found = load_dictionary(tmp_path / "theirs")
    agree(what, reference, found)
    save_dictionary(found, tmp_path / "written")
    agree(what, theirs(tmp_path / "written"), found)


@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("subtracted", [True, False])
def test_temporal_with_an_encoder(tmp_path: Path, layers: int, subtracted: bool) -> None:
    w = layouts.temporal_weights(layers=layers, tied=False)
    own = {"n_attn_layers": layers, "n_heads": 2, "tied_weights": False}
    layouts.saelens(tmp_path, "temporal", w, **own, apply_b_dec_to_input=subtracted)
    found = load_dictionary(tmp_path)
    what = f"temporal, {layers} layers, weights not tied"
    agree(what, theirs(tmp_path), found)
    save_dictionary(found, tmp_path / "written")
    agree(what, theirs(tmp_path / "written"), found)


@pytest.mark.parametrize("function", ["relu", "topk"])
def test_settings_before_version_6(tmp_path: Path, function: str) -> None:
    layouts.saelens(tmp_path, "standard", weights())
    old = {
        "d_in": layouts.D,
        "d_sae": layouts.F,
        "dtype": "torch.float32",
        "model_name": "pocket",
        "hook_point": "blocks.2.hook_resid_pre",
        "normalize_activations": None,
        "activation_fn_str": function,
        "activation_fn_kwargs": {"k": 3} if function == "topk" else {},
    }
    layouts.settings(tmp_path / "cfg.json", old)
    agree(f"before 6.0, {function}", theirs(tmp_path), load_dictionary(tmp_path))


def test_every_architecture_of_saelens_is_here() -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY

    assert set(SAE_CLASS_REGISTRY) == {*layouts.NEEDED, *layouts.WHOLE}


@pytest.mark.parametrize("name", ["layers.3.resid_post", "layers.3.mlp"])
def test_dictionaries_of_the_embedded_model(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Half precision in the file, single precision in both libraries."""
    monkeypatch.setattr(layouts, "D", 128)
    agree(f"pocket:{name}", theirs(FOLDER / name), load_dictionary(f"pocket:{name}"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """SAELens' loaders of other layouts read from the hub: from this folder instead."""
    from huggingface_hub.errors import EntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def local(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        path = tmp_path / repo_id / subfolder / filename
        if not path.exists():
            raise EntryNotFoundError("not there")
        return str(path)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        arrays: Any = mx.load(str(tmp_path / repo_id / filename))
        return {name: list(array.shape) for name, array in arrays.items()}

    monkeypatch.setattr(loaders, "hf_hub_download", local)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return tmp_path


def of_loader(name: str, repository: str, place: str, **overrides: Any) -> Any:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    load = getattr(loaders, name)
    settings, state, _ = load(repository, place, "cpu", False, overrides or None)
    settings = loaders.handle_config_defaulting(settings)
    kind = sae_lens.SAE.get_sae_config_class_for_architecture(settings["architecture"])
    made = sae_lens.SAE.get_sae_class_for_architecture(settings["architecture"])(
        kind.from_dict(settings)
    )
    made.process_state_dict_for_loading(state)
    made.load_state_dict(state)
    return made


def test_gemma_scope(hub: Path) -> None:
    repository, place = "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"
    folder = layouts.gemma_scope(hub / repository / place, weights())
    reference = of_loader(
        "gemma_2_sae_huggingface_loader", repository, place, d_in=layouts.D, d_sae=layouts.F
    )
    found = load_dictionary(folder)
    agree("Gemma Scope", reference, found)
    assert reference.cfg.metadata.hook_name == "blocks.12.hook_resid_post"
    assert found.reads == "layers.12.resid_post"


@pytest.mark.parametrize("config", [True, False])
def test_gemma_scope_2(hub: Path, config: bool) -> None:
    repository, place = "google/gemma-scope-2-1b-pt", "transcoder/layer_9_width_16k_l0_big_affine"
    settings = {"model_name": "gemma-3-1b-pt"} if config else {}
    folder = layouts.gemma_scope_2(
        hub / repository / place, weights(), affine_connection=True, **settings
    )
    if not config:
        (folder / "config.json").unlink()
    reference = of_loader("gemma_3_sae_huggingface_loader", repository, place)
    agree("Gemma Scope 2", reference, load_dictionary(folder))


def test_llama_scope(hub: Path) -> None:
    repository, place = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
    folder = layouts.llama_scope(hub / repository / place, weights())
    loader = "llama_scope_sae_huggingface_loader"
    reference = of_loader(loader, repository, place, dtype="float32")
    reference.fold_activation_norm_scaling_factor(layouts.D**0.5 / 1.25)
    agree("Llama Scope", reference, load_dictionary(folder))


@pytest.mark.parametrize("name", ["AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK"])
def test_dictionary_learning(hub: Path, name: str) -> None:
    w = weights()
    folder = layouts.dictionary_learning(hub / "o" / "r" / "place", name, w)
    loader = "dictionary_learning_sae_huggingface_loader_1"
    reference = of_loader(loader, "o/r", "place")
    agree(f"dictionary_learning, {name}", reference, load_dictionary(folder))


def test_qwen_scope(hub: Path) -> None:
    repository = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    path = layouts.qwen_scope(hub / repository, weights())
    loader = "qwen_scope_sae_huggingface_loader"
    reference = of_loader(loader, repository, path.name, d_in=layouts.D, d_sae=layouts.F)
    agree("Qwen-Scope", reference, load_dictionary(path))


def test_written_settings_are_those_of_saelens(tmp_path: Path) -> None:
    """What is written has no setting that SAELens' own file lacks, nor the other way round."""
    layouts.saelens(tmp_path / "mine", "topk", weights())
    theirs(tmp_path / "mine").save_model(tmp_path / "theirs")
    save_dictionary(load_dictionary(tmp_path / "mine"), tmp_path / "written")
    own, other = (
        json.loads((tmp_path / name / "cfg.json").read_text()) for name in ("written", "theirs")
    )
    assert set(own) == set(other)
