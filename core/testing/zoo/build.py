"""From a small configuration to a small random model, without a download."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path

from ...errors import LoadError
from ...run.trace import random_from

#: A configuration that forgets a size gets mlx-lm's default, which may be billions.
MOST_PARAMETERS = 3_000_000

#: Parameters that keep their initial values, less a little: decay rates and the like, which
#: make sense in a narrow range only.
_NARROW = (
    *("A_log", "dt_bias", "dt_proj.bias", "x_proj", "recurrent_gate", "_res_proj"),
    *("time_", "w0", "a0", "v0", "k_k", "k_a"),
)


def build(config: Mapping[str, Any], file: str, *, seed: int = 0) -> nn.Module:
    """A random model of mlx-lm, every parameter drawn so that its effect is visible.

    mlx initialises norms at one and biases at zero, which hides mistakes; here all are random.

    Args:
        config: What a checkpoint's ``config.json`` would say; ``model_type`` is the file's name
            if it says nothing else.
        file: Name in ``mlx_lm.models``.
        seed: Of the parameters.

    Raises:
        LoadError: if the model would have more than `MOST_PARAMETERS` parameters.
    """
    module = import_module(f"mlx_lm.models.{file}")
    full = copy.deepcopy({"model_type": file, **config})
    with random_from(seed):
        model: nn.Module = module.Model(module.ModelArgs.from_dict(full))
    parameters: Any = tree_flatten(model.parameters())
    count = sum(array.size for _, array in parameters)
    if count > MOST_PARAMETERS:
        raise LoadError(f"{file}: {count:,} parameters; a small model is wanted.")
    return randomize(model, seed)


def quantise(model: nn.Module, bits: int, group_size: int = 32) -> nn.Module:
    """Quantise a model's linear layers, embeddings and experts, as mlx-lm's converter does."""

    def fits(path: str, module: nn.Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size == 0

    nn.quantize(model, group_size=group_size, bits=bits, class_predicate=fits)
    mx.eval(model.parameters())
    return model


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every floating parameter of a model anew, and evaluate."""
    generator = np.random.default_rng(seed)

    def drawn(path: str, old: mx.array) -> mx.array:
        if not mx.issubdtype(old.dtype, mx.floating):
            return old
        noise = mx.array(generator.standard_normal(old.shape).astype(np.float32))
        if any(part in path for part in _NARROW):
            return (old + 0.1 * noise).astype(old.dtype)
        if old.ndim < 2:
            return (old + 0.3 * noise).astype(old.dtype)
        inputs = old.shape[-1] if old.shape[-1] > 1 else old.shape[-2]
        scale = 1.0 if "embed" in path else 1.5 / inputs**0.5
        return (scale * noise).astype(old.dtype)

    model.update(tree_map_with_path(drawn, model.parameters()))
    mx.eval(model.parameters())
    return model
