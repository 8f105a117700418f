"""Text towers of vision models, and families with a structure of their own."""

from __future__ import annotations

from typing import Any

from .dense import DENSE, SMALL, UNTIED
from .experts import EXPERTS, LATENT, MIXTURES
from .hybrid import DELTA, HYBRID


def text(name: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A wrapper's configuration around that of its text model."""
    return {"vocab_size": 97, "text_config": {"model_type": name, **config}, **more}


GEMMA4 = {
    **SMALL,
    "num_hidden_layers": 4,
    "global_head_dim": 16,
    "vocab_size_per_layer_input": 97,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "sliding_window": 4,
    "sliding_window_pattern": 2,
}

WRAPPERS: dict[str, dict[str, Any]] = {
    "deepseek_v41": {
        **LATENT,
        "num_hidden_layers": 2,
        "o_groups": 2,
        "o_lora_rank": 8,
        "sliding_window": 4,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "index_topk": 4,
        "hc_mult": 2,
    },
    "gemma3n": text(
        "gemma3n_text",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "vocab_size_per_layer_input": 97,
            "hidden_size_per_layer_input": 8,
            "altup_num_inputs": 2,
            "altup_active_idx": 0,
            "altup_correct_scale": True,
            "altup_coef_clip": 120.0,
            "laurel_rank": 4,
            "num_kv_shared_layers": 2,
            "intermediate_size": [64, 64, 64, 64],
            "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
            "layer_types": [
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "sliding_window": 4,
            "final_logit_softcapping": 3.0,
            "rope_local_base_freq": 1000.0,
            "query_pre_attn_scalar": 6.0,
            "rope_theta": 1000.0,
        },
    ),
    "gemma4_text": GEMMA4,
    "gemma4_text/plain": {**GEMMA4, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0},
    "gemma4_text/experts": {
        **GEMMA4,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
    "gemma4": text("gemma4_text", GEMMA4),
    "kimi_k25": text("kimi_k25", LATENT),
    "kimi_k3": text("kimi_linear", HYBRID["kimi_linear"]),
    "kimi_k3/residual-attention": text(
        "kimi_linear", {**HYBRID["kimi_linear"], "num_hidden_layers": 4, "attn_res_block_size": 2}
    ),
    "kimi_vl": text("deepseek_v3", LATENT),
    "lfm2-vl": text("lfm2", HYBRID["lfm2"]),
    "llama4": text(
        "llama4_text",
        {
            **EXPERTS,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 4,
            "attention_chunk_size": 4,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 64,
            "use_qk_norm": True,
            "attention_bias": False,
            "rope_theta": 1000.0,
            "rope_scaling": None,
        },
    ),
    "llama4_text": {
        **SMALL,
        "intermediate_size_mlp": 64,
        "no_rope_layers": [1, 0],
        "use_qk_norm": True,
    },
    "minimax_m3_vl": text(
        "minimax_m3",
        {**EXPERTS, "rotary_dim": 4, "moe_layer_freq": [0, 1], "dense_intermediate_size": 64},
    ),
    "mistral3": text("ministral3", DENSE["ministral3"]),
    "muse_spark": text(
        "muse_spark_text",
        {
            **EXPERTS,
            "post_norm_eps": 1e-5,
            "rope_parameters": {"rope_theta": 1000.0},
            "layer_rope_theta": [1000.0, 0],
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 4,
            "final_logit_softcapping": 3.0,
            "output_multiplier": 0.5,
            "moe_hidden_size": 32,
            "num_shared_experts": 0,
        },
    ),
    "nemotron-nas": {
        **SMALL,
        "num_hidden_layers": 3,
        "rope_theta": 1000.0,
        "block_configs": [
            {
                "attention": {"n_heads_in_group": 2, "no_op": False},
                "ffn": {"ffn_mult": 2.0, "no_op": False},
            },
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0, "no_op": False}},
            {
                "attention": {"n_heads_in_group": 4, "no_op": False},
                "ffn": {"no_op": True},
            },
        ],
    },
    "pixtral": text("llama", DENSE["llama"]),
    "prism_hadamard_qwen35": text(
        "qwen3_5_text",
        {**SMALL, **DELTA, "hidden_size": 128, "full_attention_interval": 2},
        schema_version=1,
        tensor_namespace="mlx-lm-text",
        quantization={"bits": 2, "group_size": 128, "mode": "affine"},
        modules=[{"path": "model.embed_tokens", "embedding": True, "dtype": "float16", "block": 0}],
    ),
    "qwen2_vl": text("qwen2", DENSE["qwen2"]),
    "qwen3_5": text("qwen3_5_text", {**SMALL, **DELTA, **UNTIED, "full_attention_interval": 2}),
    "qwen3_5_moe": text(
        "qwen3_5_moe_text", {**MIXTURES["qwen3_moe"], **DELTA, "full_attention_interval": 2}
    ),
    "qwen3_vl": text("qwen3", DENSE["qwen3"]),
    "qwen3_vl_moe": text("qwen3_moe", MIXTURES["qwen3_moe"]),
}
