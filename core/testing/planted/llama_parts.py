"""Setting a Llama's weights by hand: heads that copy blocks, MLPs that multiply them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .models import CONSTANT, SHARPNESS, Array, Blocks, put

#: Rotary frequencies fall so fast that all but the first pair of dimensions stand still.
_THETA = 1e30

#: Where SiLU is the identity to nine digits.
_OPEN = 20.0


class LlamaParts:
    """A Llama of `heads` heads and `layers` layers whose components start out idle.

    Args:
        blocks: Of the residual stream; ``constant`` (1) and ``token`` are needed, and ``idle``,
            where components with no part in the circuit write.
        head_width: Even; (head_width / 2 − 1) dimensions are left for queries and keys.
    """

    def __init__(
        self, blocks: Blocks, *, layers: int, heads: int, head_width: int, vocabulary: int
    ) -> None:
        self.blocks, self.layers, self.heads = blocks, layers, heads
        self.head_width, self.vocabulary = head_width, vocabulary
        self.hidden = max(16, 2 * vocabulary)
        self._rng = np.random.default_rng(0)
        self.weights: dict[str, Array] = {}
        norm = np.full(blocks.width, CONSTANT / np.sqrt(blocks.width))
        for layer in range(layers):
            block = f"model.layers.{layer}"
            self.weights[f"{block}.input_layernorm.weight"] = norm
            self.weights[f"{block}.post_attention_layernorm.weight"] = norm
            for name, rows in (("q", heads), ("k", heads), ("v", heads)):
                shape = (rows * head_width, blocks.width)
                self.weights[f"{block}.self_attn.{name}_proj.weight"] = np.zeros(shape)
            shape = (blocks.width, heads * head_width)
            self.weights[f"{block}.self_attn.o_proj.weight"] = np.zeros(shape)
            for head in range(heads):
                self._idle_head(layer, head)
            self._idle_mlp(layer)
        self.weights["model.norm.weight"] = norm
        embedding = blocks.writer("token", columns=vocabulary).T.copy()
        embedding[:, blocks["constant"]] = CONSTANT
        self.weights["model.embed_tokens.weight"] = embedding
        self.weights["lm_head.weight"] = np.zeros((vocabulary, blocks.width))

    def _set_head(self, layer: int, head: int, **parts: Array) -> None:
        span = slice(head * self.head_width, (head + 1) * self.head_width)
        for name, matrix in parts.items():
            weight = self.weights[f"model.layers.{layer}.self_attn.{name}_proj.weight"]
            if name == "o":
                weight[:, span] = matrix
            else:
                weight[span] = matrix

    def _idle_head(self, layer: int, head: int) -> None:
        blocks, rows = self.blocks, self.head_width
        reads = {x: blocks.random_reader(self._rng, rows, "token", "idle") for x in "qkv"}
        mixed = self._rng.normal(size=(blocks.size("idle"), rows)) / 2
        self._set_head(layer, head, **reads, o=blocks.writer("idle", mixed))

    def _idle_mlp(self, layer: int) -> None:
        blocks, rows = self.blocks, self.hidden
        gate, up = (blocks.random_reader(self._rng, rows, "token", "idle") for _ in range(2))
        mixed = self._rng.normal(size=(blocks.size("idle"), rows)) / 2
        self._set_mlp(layer, gate, up, blocks.writer("idle", mixed))

    def _set_mlp(self, layer: int, gate: Array, up: Array, down: Array) -> None:
        path = f"model.layers.{layer}.mlp"
        for name, matrix in (("gate", gate), ("up", up), ("down", down)):
            self.weights[f"{path}.{name}_proj.weight"] = matrix

    def copy(self, layer: int, head: int, *, looks_for: Array, reads: Array, writes: Array) -> None:
        """A head that looks for a mark, wherever it is asked from.

        Args:
            looks_for: (1, width), what makes a token the one to attend to.
            reads: (n, width) the values. writes: (width, n) what becomes of them.
        """
        rows = self.head_width
        query, key = np.zeros((rows, self.blocks.width)), np.zeros((rows, self.blocks.width))
        # Dimension 0 rotates with the position; the first still one is used.
        query[1] = self.blocks.reader("constant") * SHARPNESS * np.sqrt(rows) / CONSTANT
        key[1] = looks_for
        value, out = np.zeros((rows, self.blocks.width)), np.zeros((self.blocks.width, rows))
        value[: len(reads)] = reads
        out[:, : writes.shape[1]] = writes
        self._set_head(layer, head, q=query, k=key, v=value, o=out)

    def linear(self, layer: int, *, reads: Array, writes: Array) -> None:
        """An MLP that is linear: ``writes @ reads``; its gate is held open by the constant."""
        gate = np.repeat(self.blocks.reader("constant") * _OPEN / CONSTANT, len(reads), axis=0)
        self.product(layer, left=gate, right=reads, writes=writes / _OPEN)

    def product(self, layer: int, *, left: Array, right: Array, writes: Array) -> None:
        """An MLP that multiplies: ``writes @ (silu(left x) · right x)``, rows paired."""
        gate, up = np.zeros((2, self.hidden, self.blocks.width))
        down = np.zeros((self.blocks.width, self.hidden))
        gate[: len(left)], up[: len(right)], down[:, : writes.shape[1]] = left, right, writes
        self._set_mlp(layer, gate, up, down)

    def conjunction(self, layer: int, *, left: Array, right: Array, writes: Array) -> None:
        """An MLP that writes where both of two bits are 1."""
        self.product(layer, left=_OPEN * left, right=right, writes=writes / _OPEN)

    def unembed(self, reads: Array) -> None:
        """Add (vocabulary, width) to the output head."""
        self.weights["lm_head.weight"] = self.weights["lm_head.weight"] + reads

    def build(self) -> Any:
        """The model."""
        from mlx_lm.models import llama

        arguments = llama.ModelArgs(
            model_type="llama",
            hidden_size=self.blocks.width,
            num_hidden_layers=self.layers,
            intermediate_size=self.hidden,
            num_attention_heads=self.heads,
            head_dim=self.head_width,
            rms_norm_eps=1e-5,
            vocab_size=self.vocabulary,
            rope_theta=_THETA,
            tie_word_embeddings=False,
        )
        model = llama.Model(arguments)
        put(model, self.weights)
        return model
