"""Run by `mlx.launch`: every process takes part in one sweep and prints all its effects."""

import sys

import mlxray  # noqa: F401

import mlx.core as mx  # isort: skip
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.analyses import activation_patching

mx.random.seed(3)
args = llama.ModelArgs("llama", 32, 4, 48, 4, 1e-5, 40, num_key_value_heads=2)
model = InterpretableModel(llama.Model(args))
found = activation_patching(
    model, [1, 2, 3, 4, 5, 6], [1, 9, 3, 4, 8, 6], "resid_post", by="position", budget=1
)
rank = mx.distributed.init().rank()
numbers = " ".join(f"{value:.6f}" for value in found.effect_matrix.reshape(-1).tolist())
sys.stdout.write(f"rank {rank}: {numbers}\n")
