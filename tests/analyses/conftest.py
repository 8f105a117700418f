"""Small random models of several families, and a tokenizer of single letters."""

import importlib

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_map

from mlxray import Adapter, InterpretableModel

SHARED = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 61,
    "num_key_value_heads": 2,
    "head_dim": 8,
}

FAMILIES = {
    "llama": SHARED,
    "qwen3": {
        **SHARED,
        "max_position_embeddings": 64,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
    },
    "gemma2": {**SHARED, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0},
    "gemma3_text": {**SHARED, "sliding_window": 4, "sliding_window_pattern": 2},
    "gpt2": {
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_ctx": 24,
        "n_positions": 24,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 61,
    },
    "cohere": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 61,
        "logit_scale": 0.25,
    },
}

COHERE = Adapter(
    name="cohere-by-hand", mlp_norm="input_layernorm", absent={"resid_mid": "parallel sub-layers"}
)


class Letters:
    """One token for each character; ids from 1, 0 is special."""

    bos_token = None
    all_special_ids = (0,)
    vocab_size = 61

    def encode(self, text, add_special_tokens=True):
        return [1 + (ord(c) - 33) % 60 for c in text]

    def decode(self, ids):
        return "".join(chr(32 + i) for i in ids)


def network(family, *, seed=0, dtype=mx.float32, scale=0.6, **changes):
    """A random mlx-lm model: `scale` is large, so that norms, caps and softmaxes matter."""
    module = importlib.import_module(f"mlx_lm.models.{family}")
    made = module.Model(module.ModelArgs(model_type=family, **{**FAMILIES[family], **changes}))
    mx.random.seed(seed)
    made.update(
        tree_map(lambda p: (mx.random.normal(p.shape) * scale).astype(dtype), made.parameters())
    )
    mx.eval(made.parameters())
    return made


def wrapped(family, *, tokenizer=True, **options):
    return InterpretableModel(
        network(family, **options),
        tokenizer=Letters() if tokenizer else None,
        adapter=COHERE if family == "cohere" else None,
    )


@pytest.fixture(scope="session")
def make():
    """``make(family, **options)``: a random model with a tokenizer of letters."""
    return wrapped


@pytest.fixture(scope="session")
def quantized():
    """``quantized(family)``: the same in 4 bits."""

    def build(family, **options):
        made = network(family, hidden_size=64, head_dim=16, intermediate_size=64, **options)
        nn.quantize(made, group_size=32, bits=4)
        return InterpretableModel(made, tokenizer=Letters())

    return build
