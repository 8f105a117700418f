"""From the hub, one dictionary's own files are fetched and no others."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from mlxray.analyses.dictionaries import load_dictionary
from mlxray.errors import LoadError

from . import layouts
from .layouts import weights


class Hub:
    """A folder that stands for the hub, and what was fetched from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hub"
        self.cache = folder / "cache"

    def names(self, source: str) -> list[str]:
        root = self.folder / source
        if not root.is_dir():
            raise OSError("404 Client Error")
        return [p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if p.is_file()]

    def fetch(self, source: str, allow_patterns: Any = None, local_files_only: bool = False) -> str:
        place = self.cache / source
        if local_files_only and not place.is_dir():
            raise OSError("nothing cached")
        for name in [] if local_files_only else self.names(source):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder / source / name, place / name)
        return str(place)

    def fetched(self) -> list[str]:
        return [p.relative_to(self.cache).as_posix() for p in self.cache.rglob("*") if p.is_file()]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda self, source: made.names(source)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.fetch)
    return made


def test_one_of_many(hub: Hub) -> None:
    repository = hub.folder / "google/gemma-scope-2b-pt-res"
    for layer in (1, 11, 12):
        layouts.gemma_scope(repository / f"layer_{layer}/width_16k/average_l0_82", weights())
    layouts.gemma_scope(repository / "layer_12/width_65k/average_l0_1", weights())
    name = "google/gemma-scope-2b-pt-res"
    assert load_dictionary(name, layer=11).reads == "layers.11.resid_post"
    assert hub.fetched() == [f"{name}/layer_11/width_16k/average_l0_82/params.npz"]
    with pytest.raises(LoadError, match=r"2 dictionaries: 'layer_12/width_16k.*width_65k"):
        load_dictionary(name, layer=12)
    assert load_dictionary(name, subfolder="layer_12/width_16k").reads == "layers.12.resid_post"
    assert load_dictionary(name, layer=12, subfolder="layer_12/width_65k/average_l0_1")
    with pytest.raises(LoadError, match="4 dictionaries"):
        load_dictionary(name)
    with pytest.raises(LoadError, match="names layer 7"):
        load_dictionary(name, layer=7)
    with pytest.raises(LoadError, match=r"layer_13.*no dictionary"):
        load_dictionary(name, subfolder="layer_13")
    assert len(hub.fetched()) == 3


def test_a_file_for_each_layer(hub: Hub) -> None:
    name = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    for layer in range(3):
        layouts.qwen_scope(hub.folder / name, weights(), layer)
    assert load_dictionary(name, layer=2).reads == "layers.2.resid_post"
    assert load_dictionary(name, subfolder="layer1.sae.pt").reads == "layers.1.resid_post"
    assert sorted(hub.fetched()) == [f"{name}/layer1.sae.pt", f"{name}/layer2.sae.pt"]


def test_a_file_for_each_layer_with_settings_beside(hub: Hub) -> None:
    name = "mwhanna/qwen3-4b-transcoders"
    for layer in range(3):
        layouts.circuit_tracer_set(hub.folder / name, weights(), layer)
    assert load_dictionary(name, layer=2).reads == "layers.2.mlp.input"
    assert sorted(hub.fetched()) == [f"{name}/config.yaml", f"{name}/layer_2.safetensors"]


def test_folders_with_more_than_the_dictionary(hub: Hub) -> None:
    repository = hub.folder / "owner/name"
    layouts.llama_scope(repository / "Llama3_1-8B-Base-L15R-8x", weights())
    layouts.circuit_tracer(repository)
    (repository / "pytorch_model.bin").write_bytes(b"large")
    assert load_dictionary("owner/name").n_layers == 3
    assert load_dictionary("owner/name", layer=15).reads == "layers.15.resid_post"
    fetched = {Path(name).name for name in hub.fetched()}
    assert fetched == {
        "hyperparams.json",
        "final.safetensors",
        "config.yaml",
        *(f"W_{part}_{n}.safetensors" for n in range(3) for part in ("enc", "dec")),
    }


def test_what_is_not_there(hub: Hub) -> None:
    with pytest.raises(LoadError, match="cannot fetch 'no/where' from the hub: OSError: 404"):
        load_dictionary("no/where")
    (hub.folder / "owner/model").mkdir(parents=True)
    (hub.folder / "owner/model/model.safetensors").touch()
    with pytest.raises(LoadError, match=r"owner/model' is no dictionary.*'model\.safetensors'"):
        load_dictionary("owner/model")


def test_a_cached_copy_is_enough(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.saelens(hub.folder / "owner/sae/blocks.1.hook_resid_post", "standard", weights())
    assert load_dictionary("owner/sae", layer=1, format="saelens").kind == "relu"
    shutil.rmtree(hub.folder)

    def offline(source: str, allow_patterns: Any = None, local_files_only: bool = False) -> str:
        return str(hub.cache / source)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert load_dictionary("owner/sae", layer=1).kind == "relu"
