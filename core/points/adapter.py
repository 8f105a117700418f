"""An adapter says where a family keeps its parts. It holds names, never code that computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.nn as nn


@dataclass(frozen=True)
class FusedAttention:
    """The model calls ``mx.fast.scaled_dot_product_attention`` (most of mlx-lm does)."""


@dataclass(frozen=True)
class OwnSoftmax:
    """The model writes ``mx.softmax(scores) @ values`` itself.

    The softmax is watched where it is called; queries, keys and values are read where the
    attention module gets them.

    Attributes:
        q, k: Path inside the attention module whose output they are, with ``#n`` for the
            n-th call (RoPE is called for the queries, then for the keys).
        v: Path of the value projection; its output is split into heads.
    """

    q: str = "rope#0"
    k: str = "rope#1"
    v: str = "v_proj"


AttentionSeam = FusedAttention | OwnSoftmax

#: A factor between a sub-layer and the residual stream: an attribute of the block, a number, or a
#: function that reads it off the block.
Scale = str | float | Callable[[nn.Module], float]


@dataclass(frozen=True)
class Variant:
    """Blocks of another kind in the same model, and what differs there.

    Attributes:
        changes: Fields of the adapter with their values in such a block.
        has: Path whose presence in a block tells the kind, or a function of the block.
        layers: Indices of such blocks, where no path tells them.
    """

    changes: Mapping[str, Any]
    has: str | Callable[[nn.Module], bool] | None = None
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Roles of a transformer and the module paths that play them.

    A family is a variation of another: ``replace(LLAMA, name="gemma2", …)``.

    Attributes:
        name: Shown to people; unique in the registry.
        model_types: mlx-lm module names (``mlx_lm.models.NAME``) or config ``model_type``s.
        embed, final_norm, head: Paths from the root; `head` may be missing in a model that ties its
            output to the embedding.
        layers: Path of the list of blocks; several, joined by commas, that run one after another.
        positions: Table of learned positions, whose rows bound the prompt; None with RoPE.
        attn, mlp: Paths from a block; None where a block has no such part.
        mixer: What mixes tokens in another way than softmax attention (a state space, a
            convolution, linear attention), instead of attention or beside it.
        attn_norm, mlp_norm: Norms before a sub-layer; None where there is none.
        post_attn_norm, post_mlp_norm: Norms between a sub-layer and the residual stream; the
            first one also behind a mixer in attention's place.
        attn_scale, mlp_scale: Factors between a sub-layer and the residual stream.
        out_proj: Output projection, from the attention module.
        down_proj: Down projection, from the MLP.
        projections: Of queries, keys and values, from the attention module; one alone returns the
            three one after another.
        up_proj, gate_proj: From the MLP; None where it has no gate.
        experts: In a mixture, what is called with the tokens and the chosen experts, from the MLP.
        heads, kv_heads: Attributes of the attention module that count heads, or the numbers.
        attention: How the model computes attention.
        absent: Points that the family does not have, each with the reason.
        departures: Identities of the vocabulary that the family does not keep (by the name of
            their check in `mlxray.testing`), each with the reason.
        stream: Position of the residual stream among the arguments of a block.
        returns: How many values a block returns; the first is the stream.
        needs_cache: Whether the model computes what it was trained for only with a cache of
            mlx-lm's; every run then gets a fresh one.
        variants: Blocks of other kinds. All that fit count, one after the other; what they say of
            `absent` and `departures` comes on top.
        notes: What a person should know of how the roles were found.
    """

    name: str
    model_types: tuple[str, ...] = ()
    embed: str = "model.embed_tokens"
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    positions: str | None = None
    attn: str | None = "self_attn"
    mlp: str | None = "mlp"
    mixer: str | None = None
    attn_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    post_attn_norm: str | None = None
    post_mlp_norm: str | None = None
    attn_scale: Scale = 1.0
    mlp_scale: Scale = 1.0
    out_proj: str = "o_proj"
    down_proj: str = "down_proj"
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    up_proj: str = "up_proj"
    gate_proj: str | None = "gate_proj"
    experts: str | None = None
    heads: str | int = "n_heads"
    kv_heads: str | int = "n_kv_heads"
    attention: AttentionSeam = FusedAttention()
    absent: Mapping[str, str] = field(default_factory=dict)
    departures: Mapping[str, str] = field(default_factory=dict)
    stream: int = 0
    returns: int = 1
    needs_cache: bool = False
    variants: tuple[Variant, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterFinder:
    """A way to make an adapter for a model that no adapter names.

    Attributes:
        name: Unique in the registry.
        find: ``find(root, layers)`` → an adapter; `layers` is the list's attribute if the user
            gave one. Raises AdapterError where it cannot tell.
    """

    name: str
    find: Callable[[nn.Module, str | None], Adapter]
