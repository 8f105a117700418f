"""One training run: the loss, the step on one or two lanes, and checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map, tree_unflatten
from mlx_lm.models.llama import Model
from tokenizers import Tokenizer

from ..storage.files import save_safetensors
from .corpus import Batch, Corpus
from .model import Shape, build_model, flatten
from .tokenizer import SPECIAL

Tree = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns."""

    shape: Shape = field(default_factory=Shape)
    seed: int = 6
    steps: int = 5600
    rows: int = 20
    length: int = 128
    long_every: int = 8
    """Every so many steps the rows are half as many and twice as long."""
    counted: float = 0.5
    """Part of the positions that count in the loss."""
    learning_rate: float = 4e-3
    warmup: int = 150
    weight_decay: float = 0.05
    beta2: float = 0.98
    clip: float = 1.0

    def layout(self, step: int) -> tuple[int, int]:
        """Rows and length of the batch of a step."""
        if self.long_every and step % self.long_every == self.long_every - 1:
            return self.rows // 2, self.length * 2
        return self.rows, self.length

    def rate(self, step: int) -> float:
        """Learning rate: a linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


class Trainer:
    """Holds parameters and optimizer state; `step` moves them by one batch.

    ``lanes`` splits each batch over that many streams, which MLX's CPU backend runs on as many
    threads: two lanes train almost twice as fast on two cores, with the same sums.
    """

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, lanes: int = 1) -> None:
        if tokenizer.get_vocab_size() != recipe.shape.vocabulary:
            raise ValueError(
                f"the tokenizer has {tokenizer.get_vocab_size()} tokens, "
                f"the model {recipe.shape.vocabulary}"
            )
        self.recipe = recipe
        self.corpus = Corpus(tokenizer, recipe.seed)
        self.model = build_model(recipe.shape, recipe.seed)
        self.parameters: Tree = self.model.trainable_parameters()
        self.done = 0
        self.tokens = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._optimizer = optim.AdamW(
            recipe.learning_rate,
            betas=[0.9, recipe.beta2],
            weight_decay=recipe.weight_decay,
            bias_correction=True,
        )
        self._optimizer.init(self.parameters)
        self.state: Tree = self._optimizer.state
        device = mx.default_device()
        self._streams = [mx.default_stream(device)] if lanes == 1 else [
            mx.new_stream(device) for _ in range(lanes)
        ]  # fmt: skip
        self._gradients: list[Callable[..., Any]] = [
            mx.compile(mx.value_and_grad(self._loss)) for _ in self._streams
        ]
        self._update = mx.compile(self._apply)

    def _loss(
        self, parameters: Tree, tokens: mx.array, positions: mx.array, weights: mx.array
    ) -> mx.array:
        """Weighted sum of the cross-entropies at ``positions`` (rows, counted)."""
        self.model.update(parameters)
        hidden = self.model.model(tokens[:, :-1])
        hidden = mx.take_along_axis(hidden, positions[..., None], axis=1)
        logits = self.model.model.embed_tokens.as_linear(hidden)
        targets = mx.take_along_axis(tokens[:, 1:], positions, axis=1)
        return (nn.losses.cross_entropy(logits, targets) * weights).sum()

    def _apply(
        self, parameters: Tree, state: Tree, rate: mx.array, *parts: Tree
    ) -> tuple[Tree, Tree]:
        gradients = parts[0]
        for part in parts[1:]:
            gradients = tree_map(lambda a, b: a + b, gradients, part)
        gradients, _ = optim.clip_grad_norm(gradients, self.recipe.clip)
        self._optimizer.state = state
        state["learning_rate"] = rate
        parameters = self._optimizer.apply_gradients(gradients, parameters)
        return parameters, self._optimizer.state

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        rows, length = self.recipe.layout(step)
        return self.corpus.batch(step, rows, length, int(length * self.recipe.counted))

    def step(self, batch: Batch | None = None) -> float:
        """One step; returns the weighted mean loss in nats."""
        began, cpu_began = time.perf_counter(), time.process_time()
        batch = batch or self.batch(self.done)
        weights = batch.weights / batch.weights.sum()
        lanes = len(self._streams)
        losses, parts = [], []
        for lane, (stream, gradient) in enumerate(zip(self._streams, self._gradients, strict=True)):
            with mx.stream(stream):
                loss, part = gradient(
                    self.parameters,
                    mx.array(batch.tokens[lane::lanes]),
                    mx.array(batch.positions[lane::lanes]),
                    mx.array(weights[lane::lanes]),
                )
            losses.append(loss)
            parts.append(part)
        rate = mx.array(self.recipe.rate(self.done))
        self.parameters, self.state = self._update(self.parameters, self.state, rate, *parts)
        mx.eval(self.parameters, self.state, losses)
        self.done += 1
        self.tokens += batch.size
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - cpu_began
        return sum(float(loss) for loss in losses)

    def trained_model(self) -> Model:
        """The model with the current parameters in place."""
        self.model.update(self.parameters)
        return self.model

    def save(self, path: Path) -> None:
        """Write a checkpoint: parameters, optimizer state and progress, in one safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"parameters.{name}": value for name, value in flatten(self.parameters)}
        arrays |= {f"state.{name}": value for name, value in flatten(self.state)}
        progress = {
            "done": self.done,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "recipe": asdict(self.recipe),
        }
        save_safetensors(path, arrays, {"progress": json.dumps(progress)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe.

        Raises:
            ValueError: the checkpoint belongs to another recipe.
        """
        loaded: tuple[dict[str, mx.array], dict[str, str]]
        loaded = mx.load(str(path), return_metadata=True)  # type: ignore[assignment]
        arrays, metadata = loaded
        progress = json.loads(metadata["progress"])
        if progress["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} was written by another recipe: {progress['recipe']}")
        trees: dict[str, list[tuple[str, mx.array]]] = {"parameters": [], "state": []}
        for name, value in arrays.items():
            kind, _, rest = name.partition(".")
            trees[kind].append((rest, value))
        self.parameters = tree_unflatten(trees["parameters"])
        self.state = tree_unflatten(trees["state"])
        mx.eval(self.parameters, self.state)
        self.done, self.tokens = progress["done"], progress["tokens"]
        self.seconds, self.cpu_seconds = progress["seconds"], progress["cpu_seconds"]


assert SPECIAL[1] == "<|bos|>" and SPECIAL[5] == "<|end|>"  # ids in Shape.config
