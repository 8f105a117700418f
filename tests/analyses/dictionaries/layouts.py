"""Small dictionaries in the layouts of other libraries, written without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ...core.torch_archive import write_torch

D, F, K = 6, 10, 3

Arrays = dict[str, np.ndarray[Any, Any]]


def weights(seed: int = 0, d_out: int | None = None) -> Arrays:
    """Random weights with SAELens' names and orders of axes."""
    rng = np.random.default_rng(seed)
    d_out = d_out or D
    shapes = {
        "W_enc": (D, F),
        "b_enc": (F,),
        "W_dec": (F, d_out),
        "b_dec": (d_out,),
        "b_gate": (F,),
        "b_mag": (F,),
        "r_mag": (F,),
        "W_skip": (d_out, D),
    }
    made = {k: rng.normal(size=shape).astype("<f4") for k, shape in shapes.items()}
    return {**made, "threshold": rng.uniform(0.1, 1, F).astype("<f4")}


def inputs(seed: int = 1) -> np.ndarray[Any, Any]:
    """Activations of seven tokens."""
    return np.random.default_rng(seed).normal(size=(7, D)).astype("<f4")


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def jump(x: Any, threshold: Any) -> Any:
    return np.where(x > threshold, relu(x), 0)


def top(x: Any, k: int = K, by: Any = None) -> Any:
    order = np.argsort(-(x if by is None else by), axis=-1)[..., :k]
    kept = np.zeros_like(x)
    np.put_along_axis(kept, order, np.take_along_axis(x, order, -1), -1)
    return kept if by is not None else relu(kept)


def safetensors(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(
        str(path), {k: mx.array(np.ascontiguousarray(v)) for k, v in arrays.items()}
    )


def settings(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


NEEDED = {
    "standard": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "topk": ("b_enc",),
    "abstopk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc", "W_skip"),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold", "W_skip"),
}


#: Architectures whose weights are those of a function of their own, and are all written.
WHOLE = ("matching_pursuit", "temporal")


def unit_rows(seed: int = 0) -> Arrays:
    """Weights of a matching pursuit: rows of norm 1."""
    w = weights(seed)
    norms = np.linalg.norm(w["W_dec"], axis=1, keepdims=True)
    return {"W_dec": w["W_dec"] / norms, "b_dec": w["b_dec"]}


def temporal_weights(
    seed: int = 0, *, layers: int = 1, tied: bool = True, width: int = 0
) -> Arrays:
    """Weights of a temporal dictionary, with queries of half the number of features."""
    rng = np.random.default_rng(seed)
    width = width or F // 2
    shapes: dict[str, tuple[int, ...]] = {"W_dec": (F, D), "b_dec": (D,)}
    shapes |= {} if tied else {"W_enc": (D, F)}
    for n in range(layers):
        for name in ("q_target", "k_ctx", "v_ctx", "c_proj"):
            out = width if name in ("q_target", "k_ctx") else F
            shapes[f"attn_layers.{n}.{name}.weight"] = (out, F)
            shapes[f"attn_layers.{n}.{name}.bias"] = (out,)
    return {name: rng.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


def weights_of(architecture: str) -> Arrays:
    """Weights of one of SAELens' architectures."""
    if architecture == "matching_pursuit":
        return unit_rows()
    if architecture == "temporal":
        return temporal_weights()
    return weights(d_out=4 if "transcoder" in architecture else None)


def saelens(folder: Path, architecture: str, w: Arrays, **changed: Any) -> Path:
    """SAELens 6."""
    transcoder = "transcoder" in architecture
    values: dict[str, Any] = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not transcoder,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "pocket",
            "hook_name": "blocks.1.hook_resid_post",
        },
    }
    if transcoder:
        values["d_out"] = w["b_dec"].shape[0]
        values["metadata"]["hook_name"] = "blocks.1.hook_resid_mid"
        values["metadata"]["hook_name_out"] = "blocks.1.hook_mlp_out"
    if architecture in ("topk", "abstopk"):
        values["k"] = K
    if architecture == "temporal":
        values |= {"n_heads": 1, "n_attn_layers": 1, "bottleneck_factor": 2, "kval_topk": K}
    settings(folder / "cfg.json", {**values, **changed})
    if architecture not in WHOLE:
        names = ("W_enc", "W_dec", "b_dec", *NEEDED.get(architecture, ("b_enc",)))
        w = {name: w[name] for name in names}
    safetensors(folder / "sae_weights.safetensors", w)
    return folder


def gemma_scope(folder: Path, w: Arrays) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    np.savez(folder / "params.npz", **{name: w[name] for name in names})
    return folder


def gemma_scope_2(folder: Path, w: Arrays, **config: Any) -> Path:
    names = {"w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec"}
    arrays = {name: w[own] for name, own in names.items()} | {"threshold": w["threshold"]}
    if config.get("affine_connection"):
        arrays["affine_skip_connection"] = w["W_skip"].T
    safetensors(folder / "params.safetensors", arrays)
    if config:
        settings(folder / "config.json", {"architecture": "jump_relu", **config})
    return folder


def llama_scope(folder: Path, w: Arrays, **changed: Any) -> Path:
    values = {
        "d_model": D,
        "d_sae": F,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.5,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 1.25, "out": 1.25},
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "apply_decoder_bias_to_pre_encoder": False,
        "use_decoder_bias": True,
    }
    settings(folder / "hyperparams.json", {**values, **changed})
    arrays = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T,
        "decoder.bias": w["b_dec"],
    }
    safetensors(folder / "checkpoints" / "final.safetensors", arrays)
    return folder


def sparsify(folder: Path, w: Arrays, **changed: Any) -> Path:
    values = {"activation": "topk", "num_latents": F, "k": K, "d_in": D, "expansion_factor": 32}
    settings(folder / "cfg.json", {**values, **changed})
    arrays = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    if changed.get("skip_connection"):
        arrays["W_skip"] = w["W_skip"]
    safetensors(folder / "sae.safetensors", arrays)
    return folder


def _linear(w: Arrays, bias: str) -> Arrays:
    return {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, bias: w["b_dec"]}


def _matrices(w: Arrays) -> Arrays:
    return {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def dictionary_learning(folder: Path, name: str, w: Arrays, **changed: Any) -> Path:
    k, threshold = np.asarray(K, "<i4"), np.asarray(0.4, "<f4")
    biased = {"encoder.bias": w["b_enc"]}
    state = {
        "AutoEncoder": {**_linear(w, "bias"), **biased},
        "AutoEncoderNew": {**_linear(w, "decoder.bias"), **biased},
        "GatedAutoEncoder": {
            **_linear(w, "decoder_bias"),
            "gate_bias": w["b_gate"],
            "mag_bias": w["b_mag"],
            "r_mag": w["r_mag"],
        },
        "JumpReluAutoEncoder": {**_matrices(w), "threshold": w["threshold"]},
        "AutoEncoderTopK": {
            **_linear(w, "b_dec"),
            **biased,
            "k": k,
            "threshold": np.asarray(-1, "<f4"),
        },
        "BatchTopKSAE": {**_linear(w, "b_dec"), **biased, "k": k, "threshold": threshold},
        "MatryoshkaBatchTopKSAE": {
            **_matrices(w),
            "k": k,
            "threshold": threshold,
            "group_sizes": np.asarray([4, F - 4], "<i8"),
        },
    }.get(name, {})
    trainer = {
        "dict_class": name,
        "activation_dim": D,
        "dict_size": F,
        "k": K,
        "layer": 2,
        "lm_name": "pocket",
        "submodule_name": "resid_post_layer_2",
    }
    settings(folder / "config.json", {"trainer": {**trainer, **changed}, "buffer": {"ctx_len": 9}})
    write_torch(folder / "ae.pt", {k: np.array(v, order="C") for k, v in state.items()})
    return folder


def qwen_scope(folder: Path, w: Arrays, layer: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "W_enc": np.ascontiguousarray(w["W_enc"].T),
        "W_dec": np.ascontiguousarray(w["W_dec"].T),
        "b_enc": w["b_enc"],
        "b_dec": w["b_dec"],
    }
    return write_torch(folder / f"layer{layer}.sae.pt", state)


def mlxterp(folder: Path, w: Arrays, name: str = "SAE", **changed: Any) -> Path:
    values = {
        "d_model": D,
        "d_hidden": F,
        "class": name,
        "metadata": {"layer": 1, "component": "mlp"},
        "_training": True,
        "k": K,
        "normalize_input": True,
        "tied_weights": False,
    }
    values |= changed
    settings(folder / "config.json", values)
    arrays = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "input_mean": w["b_dec"] / 2,
        "input_std": np.abs(w["b_dec"]) + 0.5,
    }
    if values["tied_weights"]:
        arrays["decoder_bias"] = w["b_dec"]
    else:
        arrays |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
    safetensors(folder / "weights.safetensors", arrays)
    return folder


def circuit_tracer_set(folder: Path, w: Arrays, layer: int = 4, *, jumps: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"W_enc": w["W_enc"].T, **{name: w[name] for name in ("W_dec", "b_enc", "b_dec")}}
    if jumps:
        arrays |= {"activation_function.threshold": w["threshold"], "W_skip": w["W_skip"]}
    safetensors(folder / f"layer_{layer}.safetensors", arrays)
    (folder / "config.yaml").write_text(
        "model_name: Qwen/Qwen3-4B\nmodel_kind: transcoder_set\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return folder


def circuit_tracer(folder: Path, layers: int = 3, jumps: bool = True) -> list[Arrays]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    made = []
    for n in range(layers):
        w = weights(seed=10 + n)
        w["decoder"] = rng.normal(size=(F, layers - n, D)).astype("<f4")
        encoder = {f"W_enc_{n}": w["W_enc"].T, f"b_enc_{n}": w["b_enc"], f"b_dec_{n}": w["b_dec"]}
        if jumps:
            encoder[f"threshold_{n}"] = w["threshold"]
        safetensors(folder / f"W_enc_{n}.safetensors", encoder)
        safetensors(folder / f"W_dec_{n}.safetensors", {f"W_dec_{n}": w["decoder"]})
        made.append(w)
    (folder / "config.yaml").write_text(
        "model_name: google/gemma-2-2b\nmodel_kind: cross_layer_transcoder\n"
        "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\nscan: [a, b]\n"
    )
    return made
