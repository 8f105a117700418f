"""Small random models of several families, and a tokenizer of single letters."""

import importlib
import math

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


LETTERS = 12
PAIRS = 32


@pytest.fixture(scope="session")
def planted():
    """A llama whose heads are set by hand: 0.1 previous token, 1.0 induction, 1.1 first token.

    The residual stream holds a constant (dimension 0), the token's letter (1 to 12), the letter
    before (13 to 24) and a mark of the first letter of the alphabet (25). Heads are 64 wide: fast
    rotations measure distance, the slowest ones hardly turn and compare letters.
    """
    module = importlib.import_module("mlx_lm.models.llama")
    made = module.Model(
        module.ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=8,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=2 * PAIRS,
            rms_norm_eps=1e-6,
            vocab_size=LETTERS,
            rope_theta=1e8,
        )
    )
    made.update(tree_map(mx.zeros_like, made.parameters()))
    letters = range(LETTERS)
    embedding = mx.zeros((LETTERS, 32))
    for letter in letters:
        embedding[letter, 0] = embedding[letter, 1 + letter] = 1.0
    embedding[0, 25] = 1.0
    made.model.embed_tokens.weight = embedding
    first, second = made.model.layers
    for part in (first, second):
        for norm in (part.input_layernorm, part.post_attention_layernorm):
            norm.weight = mx.ones(32)
    made.model.norm.weight = mx.ones(32)

    # 0.1 compares the constant with itself, turned by one position: greatest one token back.
    rows = 2 * PAIRS
    query, key = mx.zeros((2 * rows, 32)), mx.zeros((2 * rows, 32))
    for pair in range(8):
        turn = 1e8 ** (-pair / PAIRS)
        query[rows + pair, 0] = 12.0
        key[rows + pair, 0] = 12.0 * math.cos(turn)
        key[rows + PAIRS + pair, 0] = 12.0 * math.sin(turn)
    value, output = mx.zeros((2 * rows, 32)), mx.zeros((32, 2 * rows))
    for letter in letters:
        value[rows + letter, 1 + letter] = 1.0
        output[13 + letter, rows + letter] = 1.0
    set_attention(first, query, key, value, output)

    # 1.0 compares the letter with each key's letter before, and copies that key's letter.
    query, key = mx.zeros((2 * rows, 32)), mx.zeros((2 * rows, 32))
    value, output = mx.zeros((2 * rows, 32)), mx.zeros((32, 2 * rows))
    for letter in letters:
        query[PAIRS - 12 + letter, 1 + letter] = 12.0
        key[PAIRS - 12 + letter, 13 + letter] = 12.0
        value[letter, 1 + letter] = 1.0
        output[1 + letter, letter] = 1.0
        # 1.1 looks for the mark, and writes the letter that it finds turned around.
        value[rows + letter, 1 + letter] = 1.0
        output[1 + letter, rows + letter] = -1.0
    query[rows + PAIRS - 1, 0] = 12.0
    key[rows + PAIRS - 1, 25] = 12.0
    set_attention(second, query, key, value, output)
    mx.eval(made.parameters())
    return InterpretableModel(made)


def set_attention(block, query, key, value, output):
    block.self_attn.q_proj.weight = query
    block.self_attn.k_proj.weight = key
    block.self_attn.v_proj.weight = value
    block.self_attn.o_proj.weight = output
