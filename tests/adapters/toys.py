"""Toy transformers with names of their own, drawn at random so that no name can help."""

import random
import string
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlxray.testing.zoo import randomize

WIDTH, HEADS, TOKENS = 16, 4, 41


class Parts(nn.Module):
    """A module with submodules under random names, reached by the roles given here."""

    def __init__(self, names: random.Random, **parts) -> None:
        super().__init__()
        object.__setattr__(self, "named", {})
        for role, part in parts.items():
            name = "".join(names.choices(string.ascii_lowercase, k=8))
            self.named[role] = name
            setattr(self, name, part)

    def part(self, role: str):
        return getattr(self, self.named[role])


class Attention(Parts):
    def __init__(self, names: random.Random, fused: bool = True, gate: bool = False) -> None:
        super().__init__(
            names,
            qkv=nn.Linear(WIDTH, 3 * WIDTH),
            out=nn.Linear(WIDTH, WIDTH),
            **({"gate": nn.Linear(WIDTH, WIDTH)} if gate else {}),
        )
        self.head_count = HEADS
        self.fused = fused

    def __call__(self, x):
        batch, tokens, _ = x.shape
        split = self.part("qkv")(x).reshape(batch, tokens, 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = split[0], split[1], split[2]
        if self.fused:
            z = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask="causal")
        else:
            future = mx.triu(mx.full((tokens, tokens), -mx.inf), k=1)
            z = mx.softmax(0.5 * q @ k.swapaxes(-1, -2) + future, axis=-1) @ v
        z = z.transpose(0, 2, 1, 3).reshape(batch, tokens, -1)
        if "gate" in self.named:
            z = z * mx.sigmoid(self.part("gate")(x))
        return self.part("out")(z)


class Feed(Parts):
    def __init__(self, names: random.Random) -> None:
        super().__init__(names, up=nn.Linear(WIDTH, 24), down=nn.Linear(24, WIDTH))

    def __call__(self, x):
        return self.part("down")(nn.silu(self.part("up")(x)))


class Running(Parts):
    """Mixes tokens without attention: each gets the mean of those before it."""

    def __init__(self, names: random.Random) -> None:
        super().__init__(names, out=nn.Linear(WIDTH, WIDTH))

    def __call__(self, x):
        counts = mx.arange(1, x.shape[1] + 1)[None, :, None]
        return self.part("out")(mx.cumsum(x, axis=1) / counts)


class Block(Parts):
    def __init__(self, names: random.Random, forward: Callable, **parts) -> None:
        super().__init__(names, **parts)
        object.__setattr__(self, "forward", forward)

    def __call__(self, x):
        return self.forward(self.part, x)


class Toy(Parts):
    def __init__(self, names: random.Random, blocks: list[nn.Module], norm: bool = True) -> None:
        super().__init__(
            names,
            embed=nn.Embedding(TOKENS, WIDTH),
            blocks=blocks,
            head=nn.Linear(WIDTH, TOKENS),
            **({"norm": nn.LayerNorm(WIDTH)} if norm else {}),
        )

    def __call__(self, tokens):
        x = self.part("embed")(tokens)
        for block in self.part("blocks"):
            x = block(x)
        return self.part("head")(self.part("norm")(x) if "norm" in self.named else x)


def sequential(part, x):
    x = x + part("attn")(part("norm1")(x))
    return x + part("mlp")(part("norm2")(x))


def parallel(part, x):
    h = part("norm1")(x)
    return x + part("attn")(h) + part("mlp")(h)


def post_norms(part, x):
    x = x + part("norm1")(part("attn")(x))
    return x + part("norm2")(part("mlp")(x))


def scaled(part, x):
    x = x + 0.3 * part("attn")(part("norm1")(x))
    return x + 0.7 * part("mlp")(part("norm2")(x))


def squashed(part, x):
    return mx.tanh(sequential(part, x))


def without_norm_modules(part, x):
    x = x + part("attn")(mx.fast.rms_norm(x, None, 1e-5))
    return x + part("mlp")(mx.fast.rms_norm(x, None, 1e-5))


def only_feed(part, x):
    return x + part("mlp")(x)


def make(forward: Callable, *, seed: int = 0, attention=None, norm: bool = True, **other) -> Toy:
    """A toy of two blocks with the given forward pass."""
    names = random.Random(seed)

    def block() -> Block:
        parts = {"norm1": nn.RMSNorm(WIDTH), "norm2": nn.LayerNorm(WIDTH), "mlp": Feed(names)}
        if forward is not only_feed:
            parts["attn"] = attention(names) if attention else Attention(names)
        return Block(names, forward, **parts, **{k: make(names) for k, make in other.items()})

    toy = Toy(names, [block() for _ in range(2)], norm)
    randomize(toy, seed)
    toy.eval()
    return toy
