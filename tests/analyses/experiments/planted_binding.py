"""A model whose binding mechanism was planted.

It has two blocks and works on one-hot vectors: the first writes a pointer at the last token, the
second follows it. Its reading of the prompt shares nothing with the experiment's.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlxray import Adapter

NAMES = ("positional", "lexical", "reflexive")

V, N = 1536, 5
TOKENS, POINTER, ANSWER = slice(0, V), slice(V, 2 * V), slice(2 * V, 3 * V)


def one_hot(ids):
    return (mx.expand_dims(ids, -1) == mx.arange(V)).astype(mx.float32)


class OneHot(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.zeros((V, 1))

    def __call__(self, ids):
        return mx.concatenate([one_hot(ids), mx.zeros((*ids.shape, 2 * V))], axis=-1)


def facts(x):
    """People, things and the thing asked of "<bos>The Ann has the pear. … Who has the pear?"."""
    ids = mx.argmax(x[..., TOKENS], axis=-1)
    return ids[:, 2 : 5 * N + 1 : 5], ids[:, 5 : 5 * N + 1 : 5], ids[:, -2]


class Point(nn.Module):
    def __init__(self, mechanism):
        super().__init__()
        self.mechanism = mechanism

    def __call__(self, x, mask=None, cache=None):
        if x.shape[1] < 5 * N:
            return x
        people, things, asked = facts(x)
        group = mx.argmax(things == asked[:, None], axis=1)
        pointer = {
            "positional": group,
            "lexical": asked,
            "reflexive": mx.take_along_axis(people, group[:, None], axis=1)[:, 0],
        }[self.mechanism]
        return at_the_end(x, POINTER, one_hot(pointer))


class Follow(Point):
    def __call__(self, x, mask=None, cache=None):
        if x.shape[1] < 5 * N:
            return x
        people, things, _ = facts(x)
        pointer = mx.argmax(x[:, -1, POINTER], axis=-1)[:, None]
        chosen = {
            "positional": mx.arange(N)[None] == pointer,
            "lexical": things == pointer,
            "reflexive": people == pointer,
        }[self.mechanism]
        # What points to nothing adds nothing, and the answer is token 0.
        votes = mx.sum(one_hot(people) * chosen[..., None], axis=1)
        return at_the_end(x, ANSWER, 8 * votes)


def at_the_end(x, where, value):
    last = mx.concatenate([x[:, -1, : where.start], value, x[:, -1, where.stop :]], axis=-1)
    return mx.concatenate([x[:, :-1], last[:, None]], axis=1)


class Answer(nn.Module):
    def __call__(self, x):
        return x[..., ANSWER]


class Planted(nn.Module):
    def __init__(self, mechanism):
        super().__init__()
        self.embed, self.head = OneHot(), Answer()
        self.layers = [Point(mechanism), Follow(mechanism)]

    def __call__(self, ids, cache=None):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


PLANTED = Adapter("planted", embed="embed", layers="layers", final_norm="none", head="head",
                  attn=None, mlp=None, attn_norm=None, mlp_norm=None)  # fmt: skip
