"""Sweeps of quantised models unpack their weights in large passes and give the same numbers."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.analyses.patching import dense
from mlxray.analyses.patching.patches import Patch
from mlxray.analyses.patching.sweep import Sweep

from ...backends import need_quantised_products
from ..models import CLEAN, CORRUPTED

COMPONENTS = ("resid_pre", "z", "mlp_out")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("many", [1, 10**9])
def test_numbers_of_single_passes(monkeypatch, many, bias):
    need_quantised_products(bits=4, group_size=64, width=64, rows=12)
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=64,
        num_hidden_layers=3,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=40,
        attention_bias=bias,
    )
    mx.random.seed(3)
    root = llama.Model(args)
    if bias:
        for layer in root.layers:
            layer.self_attn.q_proj.bias = mx.random.normal((64,))
    nn.quantize(root, group_size=64, bits=4)
    model = InterpretableModel(root)
    assert len(dense.quantised(model.layout)) == 3 * 7
    assert dense.unpacked_bytes(model.layout) == 4 * 128 * 64
    products, plain = [], dense._product
    monkeypatch.setattr(dense, "MANY_TOKENS", many)
    monkeypatch.setattr(dense, "_product", lambda call: products.append(1) or plain(call))
    cells = [(Patch(c, layer, p),) for c in COMPONENTS for layer in range(3) for p in (0, 4, 9)]
    sweep = Sweep(model, model.tokens.batch(CORRUPTED))
    addresses = [f"layers.{layer}.{c}" for layer in range(3) for c in COMPONENTS]
    values = sweep.sources(model.tokens.batch(CLEAN), addresses)
    found = {}
    for indices, logits in sweep.logits(cells, values):
        found |= dict(zip(indices, logits[:, -1], strict=True))
    assert bool(products) == (many == 1)
    for index, cell in enumerate(cells):
        naive = sweep.naive(cell, values)[-1]
        assert mx.allclose(found[index], naive, rtol=1e-4, atol=1e-4), cell
