"""Each layout is read as the library that writes it computes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray.analyses.dictionaries import CrossLayerTranscoder, Dictionary, load_dictionary

from . import layouts
from .layouts import D, F, K, inputs, jump, relu, top, weights


def check(dictionary: Any, features: Any, output: Any) -> None:
    """Compare features and reconstruction of `inputs()`."""
    assert isinstance(dictionary, Dictionary)
    x = mx.array(inputs())
    assert np.allclose(np.array(dictionary.encode(x)), features, atol=1e-5)
    assert np.allclose(np.array(dictionary(x)), output, atol=1e-5)


def saelens_features(architecture: str, x: Any, w: layouts.Arrays) -> Any:
    z = x @ w["W_enc"]
    if architecture == "gated":
        magnitude = relu(x @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        return magnitude * (z + w["b_gate"] > 0)
    z = z + w["b_enc"]
    if "jumprelu" in architecture:
        return jump(z, w["threshold"])
    if architecture == "topk":
        return top(z)
    return top(z, by=np.abs(z)) if architecture == "abstopk" else relu(z)


@pytest.mark.parametrize("architecture", layouts.NEEDED)
def test_saelens(tmp_path: Path, architecture: str) -> None:
    transcoder = "transcoder" in architecture
    w = weights(d_out=4 if transcoder else D)
    found = load_dictionary(layouts.saelens(tmp_path, architecture, w))
    x = inputs()
    features = saelens_features(architecture, x - (0 if transcoder else w["b_dec"]), w)
    output = features @ w["W_dec"] + w["b_dec"]
    check(found, features, output + (x @ w["W_skip"].T if "skip" in architecture else 0))
    assert found.reads == f"layers.1.{'resid_mid' if transcoder else 'resid_post'}"
    assert found.writes == f"layers.1.{'mlp_add' if transcoder else 'resid_post'}"
    assert found.metadata["model_name"] == "pocket" and found.is_transcoder == transcoder
    for file in tmp_path.iterdir():
        assert load_dictionary(file).kind == found.kind


@pytest.mark.parametrize("architecture", [*layouts.NEEDED, *layouts.WHOLE])
def test_the_page_tells_how_near_each_architecture_comes(architecture: str) -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "dictionary-files.md"
    assert f"\n| {architecture} | " in page.read_text("utf-8")


@pytest.mark.parametrize("normalize", ["constant_norm_rescale", "layer_norm"])
def test_saelens_normalisations(tmp_path: Path, normalize: str) -> None:
    w, x = weights(), inputs()
    found = load_dictionary(
        layouts.saelens(tmp_path, "standard", w, normalize_activations=normalize)
    )
    mean, scale = 0, np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(D)
    if normalize == "layer_norm":
        mean, scale = x.mean(-1, keepdims=True), x.std(-1, keepdims=True, ddof=1)
    features = relu(((x - mean) / scale - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    x = mx.array(x)
    assert np.allclose(np.array(found.encode(x)), features, atol=1e-3)
    output = (features @ w["W_dec"] + w["b_dec"]) * scale + mean
    assert np.allclose(np.array(found(x)), output, atol=1e-3)


def test_saelens_ranks_by_decoder_norm_where_told(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    folder = layouts.saelens(tmp_path, "topk", w, rescale_acts_by_decoder_norm=True)
    norms = np.linalg.norm(w["W_dec"], axis=1)
    features = top(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms)
    check(load_dictionary(folder), features, (features / norms) @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.float16"])
def test_saelens_dtype_is_that_of_its_settings(tmp_path: Path, dtype: str) -> None:
    found = load_dictionary(layouts.saelens(tmp_path, "jumprelu", weights(), dtype=dtype))
    assert str(found.encoder.dtype).endswith(dtype.removeprefix("torch."))


def test_saelens_before_version_6(tmp_path: Path) -> None:
    """Other names, the model's settings beside the dictionary's, no architecture."""
    w, x = weights(), inputs()
    old = {
        "d_in": D,
        "d_sae": F,
        "dtype": "torch.float32",
        "model_name": "pocket",
        "hook_point": "blocks.2.attn.hook_z",
        "hook_point_layer": 2,
        "normalize_activations": False,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
    }
    layouts.saelens(tmp_path, "topk", w)
    layouts.settings(tmp_path / "cfg.json", old)
    found = load_dictionary(tmp_path)
    features = top((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    check(found, features, features @ w["W_dec"] + w["b_dec"])
    assert found.reads == "layers.2.z"
    assert found.metadata["reshape_activations"] == "hook_z"
    layouts.settings(
        tmp_path / "cfg.json",
        {**old, "activation_fn_str": "relu", "apply_b_dec_to_input": False},
    )
    layouts.safetensors(
        tmp_path / "sae_weights.safetensors",
        {**{k: w[k] for k in ("W_enc", "W_dec", "b_enc", "b_dec")}, "scaling_factor": np.ones(F)},
    )
    features = relu(x @ w["W_enc"] + w["b_enc"])
    check(load_dictionary(tmp_path), features, features @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize(
    ("hooks", "reads"),
    [
        ({"hook_name": "blocks.4.hook_attn_out"}, "layers.4.attn_add"),
        ({"hook_name": "blocks.4.mlp.hook_post"}, "layers.4.mlp_act"),
        ({"hook_name": "hook_embed"}, "embed"),
        ({"hook_name": "blocks.4.ln2.hook_normalized"}, None),
        ({"hook_name": ["a"]}, None),
        ({"mlxray_reads": 3}, None),
        ({"mlxray_reads": "layers.4.mlp_out", "hook_name": "hook_embed"}, "layers.4.mlp_out"),
        (
            {
                "hook_name": "blocks.4.hook_mlp_in",
                "hf_hook_name": "model.layers.4.pre_feedforward_layernorm.output",
            },
            "layers.4.mlp.input",
        ),
    ],
)
def test_points_of_other_libraries(tmp_path: Path, hooks: Any, reads: str | None) -> None:
    metadata = {"sae_lens_version": "6.0.0", **hooks}
    found = load_dictionary(layouts.saelens(tmp_path, "standard", weights(), metadata=metadata))
    assert found.reads == reads
    assert all(found.metadata.get(k) == v for k, v in hooks.items() if not k.startswith("mlxray"))


def test_gemma_scope(tmp_path: Path) -> None:
    w = weights()
    place = tmp_path / "gemma-scope-2b-pt-res" / "layer_12/width_16k/average_l0_82"
    found = load_dictionary(layouts.gemma_scope(place, w))
    features = jump(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    check(found, features, features @ w["W_dec"] + w["b_dec"])
    assert found.reads == "layers.12.resid_post"
    assert load_dictionary(place / "params.npz").kind == "jumprelu"
    place = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_7/width_16k/average_l0_7"
    found = load_dictionary(layouts.gemma_scope(place, w))
    assert (found.reads, found.writes) == (None, "layers.7.mlp_add") and found.is_transcoder
    other = tmp_path / "gemma-scope-2b-pt-res" / "embedding/width_4k/average_l0_6"
    found = load_dictionary(layouts.gemma_scope(other, w))
    assert found.reads == "embed"
    features = jump(inputs() @ w["W_enc"] / np.sqrt(D) + w["b_enc"], w["threshold"])
    check(found, features, features @ w["W_dec"] * np.sqrt(D) + w["b_dec"])


def test_gemma_scope_2(tmp_path: Path) -> None:
    w = weights(d_out=4)
    points = {
        "hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.9.post_feedforward_layernorm.output",
    }
    found = load_dictionary(layouts.gemma_scope_2(tmp_path, w, affine_connection=True, **points))
    features = jump(inputs() @ w["W_enc"] + w["b_enc"], w["threshold"])
    check(found, features, features @ w["W_dec"] + w["b_dec"] + inputs() @ w["W_skip"].T)
    assert (found.reads, found.writes) == ("layers.9.mlp.input", "layers.9.mlp_add")
    place = tmp_path / "mlp_out" / "layer_7_width_16k_l0_small"
    found = load_dictionary(layouts.gemma_scope_2(place, weights()))  # without config.json
    assert found.reads == "layers.7.mlp_add" and found.skip is None


def test_llama_scope(tmp_path: Path) -> None:
    w = weights()
    found = load_dictionary(layouts.llama_scope(tmp_path, w))
    scale = np.sqrt(D) / 1.25
    features = jump(inputs() * scale @ w["W_enc"] + w["b_enc"], 0.5 * scale)
    check(found, features, (features @ w["W_dec"] + w["b_dec"]) / scale)
    assert found.reads == "layers.15.resid_post" and not found.is_transcoder


def test_sparsify(tmp_path: Path) -> None:
    w, x = weights(), inputs()
    found = load_dictionary(layouts.sparsify(tmp_path / "layers.5", w))
    features = top((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    check(found, features, features @ w["W_dec"] + w["b_dec"])
    assert found.reads == "layers.5.resid_post"
    signed = load_dictionary(layouts.sparsify(tmp_path / "layers.5.mlp", w, signed=True))
    assert signed.kind == "abstopk" and signed.reads == "layers.5.mlp_out"
    folder = layouts.sparsify(
        tmp_path / "layers.6.mlp",
        w,
        transcode=True,
        skip_connection=True,
        num_latents=0,
        expansion_factor=1,
    )
    with pytest.raises(ValueError, match="6 latents"):
        load_dictionary(folder)
    layouts.sparsify(folder, w, transcode=True, skip_connection=True)
    found = load_dictionary(folder)
    features = top(x @ w["W_enc"] + w["b_enc"])
    check(found, features, features @ w["W_dec"] + w["b_dec"] + x @ w["W_skip"].T)
    assert (found.reads, found.writes) == ("layers.6.mlp.input", "layers.6.mlp_out")


def linear(subtract: bool, act: Callable[[Any], Any]) -> Callable[[Any, layouts.Arrays], Any]:
    return lambda x, w: act((x - w["b_dec"] * subtract) @ w["W_enc"] + w["b_enc"])


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("AutoEncoder", linear(True, relu)),
        ("AutoEncoderNew", linear(False, relu)),
        ("GatedAutoEncoder", lambda x, w: saelens_features("gated", x - w["b_dec"], w)),
        ("JumpReluAutoEncoder", lambda x, w: saelens_features("jumprelu", x, w)),
        ("AutoEncoderTopK", linear(True, top)),
        ("BatchTopKSAE", linear(True, lambda z: jump(z, 0.4))),
        ("MatryoshkaBatchTopKSAE", linear(True, lambda z: jump(z, 0.4))),
    ],
)
def test_dictionary_learning(tmp_path: Path, name: str, features: Any) -> None:
    w = weights()
    expected = features(inputs(), w)
    for shown in (name, f"<class 'dictionary_learning.dictionary.{name}'>"):
        layouts.dictionary_learning(tmp_path, name, w, dict_class=shown)
        found = load_dictionary(tmp_path)
        check(found, expected, expected @ w["W_dec"] + w["b_dec"])
        assert found.reads == "layers.2.resid_post"


def test_qwen_scope(tmp_path: Path) -> None:
    w = weights()
    folder = tmp_path / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
    found = load_dictionary(layouts.qwen_scope(folder, w))
    features = top(inputs() @ w["W_enc"] + w["b_enc"])
    check(found, features, features @ w["W_dec"] + w["b_dec"])
    layouts.qwen_scope(folder, w, layer=14)
    assert load_dictionary(folder, layer=14).reads == "layers.14.resid_post"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", ["SAE", "BatchTopKSAE"])
def test_mlxterp(tmp_path: Path, name: str, normalize: bool, tied: bool) -> None:
    w, x = weights(), inputs()
    folder = layouts.mlxterp(tmp_path, w, name, normalize_input=normalize, tied_weights=tied)
    mean, std = (w["b_dec"] / 2, np.abs(w["b_dec"]) + 0.5) if normalize else (0, 1)
    z = relu((x - mean) / std @ w["W_enc"] + w["b_enc"])
    features = np.where(z >= np.sort(z, axis=None)[-K * len(z)], z, 0) if name != "SAE" else top(z)
    decoder = w["W_enc"].T if tied else w["W_dec"]
    found = load_dictionary(folder)
    check(found, features, (features @ decoder + w["b_dec"]) * std + mean)
    assert found.reads == "layers.1.mlp_out"
    assert load_dictionary(layouts.mlxterp(tmp_path, w, name, k=100)).kind == "relu"


@pytest.mark.parametrize("jumps", [True, False])
def test_circuit_tracer_set(tmp_path: Path, jumps: bool) -> None:
    w, x = weights(d_out=4), inputs()
    found = load_dictionary(layouts.circuit_tracer_set(tmp_path, w, jumps=jumps))
    features = jump(x @ w["W_enc"] + w["b_enc"], w["threshold"] if jumps else 0)
    skipped = x @ w["W_skip"].T if jumps else 0
    check(found, features, features @ w["W_dec"] + w["b_dec"] + skipped)
    assert (found.reads, found.writes) == ("layers.4.mlp.input", "layers.4.mlp_add")
    layouts.circuit_tracer_set(tmp_path, w, layer=5)
    assert load_dictionary(tmp_path, layer=5).reads == "layers.5.mlp.input"


@pytest.mark.parametrize("jumps", [True, False])
def test_circuit_tracer(tmp_path: Path, jumps: bool) -> None:
    made = layouts.circuit_tracer(tmp_path, jumps=jumps)
    found = load_dictionary(tmp_path)
    assert isinstance(found, CrossLayerTranscoder)
    x = [inputs(n) for n in range(3)]
    features = [
        jump(x[n] @ w["W_enc"] + w["b_enc"], w["threshold"] if jumps else 0)
        for n, w in enumerate(made)
    ]
    for m, output in enumerate(found([mx.array(one) for one in x])):
        written = sum(features[n] @ made[n]["decoder"][:, m - n] for n in range(m + 1))
        assert np.allclose(np.array(output), written + made[m]["b_dec"], atol=1e-5)
    assert found.reads == tuple(f"layers.{n}.resid_mid" for n in range(3))
    assert found.writes == tuple(f"layers.{n}.mlp_add" for n in range(3))
    assert found.metadata["scan"] == ["a", "b"]
