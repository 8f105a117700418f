"""Setting a GPT-2's weights by hand: heads that find positions and match blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from .models import CONSTANT, SHARPNESS, Array, Blocks, put

#: Where GELU is the identity, or zero, to float32's last digit.
_OPEN = 40.0


class GPT2Parts:
    """A GPT-2 whose components start out idle.

    LayerNorm also takes the mean away. Whatever is written therefore sums to zero: each writer
    puts the negative sum of what it writes into the dimension ``balance``, which nobody reads.
    The output is tied to the embedding, so answers are written into the block ``token``.

    Args:
        blocks: Of the residual stream; needs ``constant`` (2), ``balance`` (1), ``position``,
            ``token`` and ``idle``.
        mlps: Let MLPs with no part in the circuit write as well; otherwise they are zero.
    """

    def __init__(
        self, blocks: Blocks, *, layers: int, heads: int, vocabulary: int, mlps: bool
    ) -> None:
        self.blocks, self.layers, self.heads = blocks, layers, heads
        self.vocabulary, self.width = vocabulary, blocks.width
        self.positions = blocks.size("position")
        self.head_width, rest = divmod(self.width, heads)
        if rest:
            raise ValueError(f"{heads} heads do not divide {self.width} dimensions")
        self._rng = np.random.default_rng(0)
        self.weights: dict[str, Array] = {}
        norm = np.full(self.width, CONSTANT * np.sqrt(2 / self.width))
        norm[blocks["balance"]] = 0
        self._set_norm("model.ln_f", norm)
        for layer in range(layers):
            block = f"model.h.{layer}"
            self._set_norm(f"{block}.ln_1", norm)
            self._set_norm(f"{block}.ln_2", norm)
            self.weights[f"{block}.attn.c_attn.weight"] = np.zeros((3 * self.width, self.width))
            self.weights[f"{block}.attn.c_attn.bias"] = np.zeros(3 * self.width)
            self.weights[f"{block}.attn.c_proj.weight"] = np.zeros((self.width, self.width))
            self.weights[f"{block}.attn.c_proj.bias"] = np.zeros(self.width)
            for head in range(heads):
                self._idle_head(layer, head)
            self._idle_mlp(layer, writes=mlps)
        tokens = blocks.writer("token", columns=vocabulary)
        self.weights["model.wte.weight"] = self._balanced(tokens).T
        places = self._balanced(blocks.writer("position", columns=self.positions)).T
        places[:, blocks["constant"]] = (CONSTANT, -CONSTANT)
        self.weights["model.wpe.weight"] = places

    def _set_norm(self, path: str, weight: Array) -> None:
        self.weights[f"{path}.weight"] = weight
        self.weights[f"{path}.bias"] = np.zeros(self.width)

    def _balanced(self, writes: Array) -> Array:
        """`writes` (width, n) with columns that sum to zero."""
        found: Array = writes.copy()
        found[self.blocks["balance"]] -= writes.sum(axis=0)
        return found

    def _random_reader(self, rows: int) -> Array:
        return self.blocks.random_reader(self._rng, rows, "token", "position", "idle")

    def _idle_writer(self, columns: int) -> Array:
        mixed = self._rng.normal(size=(self.blocks.size("idle"), columns)) / 2
        return self.blocks.writer("idle", mixed)

    def _idle_head(self, layer: int, head: int) -> None:
        rows = self.head_width
        reads = [self._random_reader(rows) for _ in range(3)]
        self._set_head(layer, head, *reads, writes=self._idle_writer(rows))

    def _idle_mlp(self, layer: int, *, writes: bool) -> None:
        hidden = 4 * self.width
        reads = self._random_reader(hidden)
        out = self._idle_writer(hidden) / 4 if writes else np.zeros((self.width, hidden))
        self._set_mlp(layer, reads, np.zeros(hidden), out)

    def _set_mlp(self, layer: int, reads: Array, bias: Array, writes: Array) -> None:
        path = f"model.h.{layer}.mlp"
        self.weights[f"{path}.c_fc.weight"], self.weights[f"{path}.c_fc.bias"] = reads, bias
        self.weights[f"{path}.c_proj.weight"] = self._balanced(writes)
        self.weights[f"{path}.c_proj.bias"] = np.zeros(self.width)

    def _set_head(
        self, layer: int, head: int, query: Array, key: Array, value: Array, *, writes: Array
    ) -> None:
        joint = self.weights[f"model.h.{layer}.attn.c_attn.weight"]
        for part, matrix in enumerate((query, key, value)):
            start = part * self.width + head * self.head_width
            joint[start : start + self.head_width] = 0
            joint[start : start + len(matrix)] = matrix
        start = head * self.head_width
        project = self.weights[f"model.h.{layer}.attn.c_proj.weight"]
        project[:, start : start + self.head_width] = 0
        project[:, start : start + writes.shape[1]] = self._balanced(writes)

    def match(
        self, layer: int, head: int, *, query: Array, key: Array, reads: Array, writes: Array
    ) -> None:
        """A head that attends where the query's block equals the key's.

        Args:
            query, key: (n, width) readers of one-hot vectors.
            reads: (m, width) the values. writes: (width, m) what becomes of them.
        """
        strength = SHARPNESS * np.sqrt(self.head_width)
        self._set_head(layer, head, strength * query, key, reads, writes=writes)

    def look_back(self, layer: int, head: int, steps: int, *, reads: Array, writes: Array) -> None:
        """A head that attends `steps` tokens back."""
        query = self.blocks.reader("position")
        key = self.blocks.reader("position", np.eye(self.positions, k=-steps))
        self.match(layer, head, query=query, key=key, reads=reads, writes=writes)

    def look_for(self, layer: int, head: int, mark: Array, *, reads: Array, writes: Array) -> None:
        """A head that attends to tokens with a mark (1, width), wherever it is asked from."""
        constant = self.blocks.reader("constant", np.array([[1 / CONSTANT, 0.0]]))
        self.match(layer, head, query=constant, key=mark, reads=reads, writes=writes)

    def threshold(self, layer: int, *, reads: Array, writes: Array) -> None:
        """An MLP that passes ones on and zeros too: ``2 · relu(reads x − 1/2)``, then `writes`."""
        hidden = 4 * self.width
        inward, outward = np.zeros((hidden, self.width)), np.zeros((self.width, hidden))
        inward[: len(reads)] = _OPEN * reads
        outward[:, : writes.shape[1]] = writes * 2 / _OPEN
        bias = np.full(hidden, -_OPEN / 2)
        self._set_mlp(layer, inward, bias, outward)

    def build(self) -> Any:
        """The model."""
        from mlx_lm.models import gpt2

        arguments = gpt2.ModelArgs(
            model_type="gpt2",
            n_ctx=self.positions,
            n_embd=self.width,
            n_head=self.heads,
            n_layer=self.layers,
            n_positions=self.positions,
            layer_norm_epsilon=1e-5,
            vocab_size=self.vocabulary,
        )
        model = gpt2.Model(arguments)
        put(model, self.weights)
        return model
