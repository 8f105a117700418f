"""Dense transformers with softmax attention in every block."""

from __future__ import annotations

from typing import Any

#: What most configurations say; two key/value heads serve four query heads.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "vocab_size": 97,
    "max_position_embeddings": 64,
}

UNTIED = {"tie_word_embeddings": False}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

#: Windows are shorter than the kit's prompts, so that they cut.
WINDOWS = {
    "num_hidden_layers": 3,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

DENSE: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, **UNTIED},
    "llama/tied": {**SMALL, "tie_word_embeddings": True},
    "llama/bias": {**SMALL, **UNTIED, "attention_bias": True, "mlp_bias": True},
    "llama/windows": {**SMALL, **WINDOWS, **UNTIED},
    "llama/llama3-rope": {**SMALL, **UNTIED, "rope_scaling": LLAMA3_ROPE},
    "llama/one-head": {**SMALL, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32},
    "llama/mistral": {**SMALL, **UNTIED, "model_type": "mistral"},
    "qwen": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "kv_channels": 8,
        "intermediate_size": 128,
        "vocab_size": 97,
    },
    "qwen2": {**SMALL, "rope_theta": 1000.0},
    "qwen3": {**SMALL, **UNTIED, "rope_theta": 1000.0},
    "gemma": SMALL,
    "gemma2": {
        **SMALL,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 6.0,
    },
    "gemma3_text": {
        **SMALL,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 6.0,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
    },
    "gemma3": {
        "vocab_size": 97,
        "text_config": {
            **SMALL,
            "model_type": "gemma3_text",
            "query_pre_attn_scalar": 6.0,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
        },
    },
    "gpt2": {
        "n_ctx": 64,
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 64,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 97,
    },
}
