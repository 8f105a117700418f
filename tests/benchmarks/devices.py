"""What the benchmarks run on: each device of this machine, and models that fit it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
from mlx_lm.models import llama

from mlxray import InterpretableModel


@dataclass(frozen=True)
class Size:
    """A Llama with random weights."""

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    vocabulary: int
    dtype: mx.Dtype

    def __str__(self) -> str:
        return f"{self.layers} layers × {self.width}, {str(self.dtype).rpartition('.')[2]}"

    def model(self) -> InterpretableModel:
        """The model, on the default device."""
        mx.random.seed(0)
        arguments = llama.ModelArgs(
            model_type="llama",
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            intermediate_size=self.hidden,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            rms_norm_eps=1e-5,
            vocab_size=self.vocabulary,
        )
        raw = llama.Model(arguments)
        raw.set_dtype(self.dtype)
        return InterpretableModel(raw)


LARGE = Size(16, 2048, 8192, 32, 8, 32000, mx.bfloat16)
SMALL = Size(8, 512, 1376, 8, 4, 8000, mx.float32)


def devices() -> Iterator[tuple[str, bool]]:
    """Make each device the default one, and give its name and whether it is a GPU."""
    for kind in (mx.gpu, mx.cpu):
        if mx.is_available(kind):
            mx.set_default_device(mx.Device(kind, 0))
            facts: dict[str, Any] = mx.device_info() if hasattr(mx, "device_info") else {}
            yield str(facts.get("device_name") or mx.default_device()), kind == mx.gpu
