"""From a point of the vocabulary to its place among a model's calls, by the adapter's roles."""

from __future__ import annotations

from ..errors import PointAbsent
from .adapter import Adapter, OwnSoftmax
from .experts import ExpertsSite
from .roles import Roles
from .sites import AttentionSite, HeadOutSite, ModuleSite, ResidMidSite, Site
from .vocabulary import ATTENTION_POINTS

#: Why a dense block has no point of a mixture.
NO_ROUTER = "no router chooses among experts here"


def place(layout: Roles, name: str, layer: int | None) -> Site:
    """The site of a point of the vocabulary.

    Raises:
        PointAbsent: if the adapter says that the model, or this layer, does not have it.
        AddressError: if a role is not where the adapter says.
    """
    if layer is None:
        return _of_model(layout, name)
    layer = layout.index(layer)
    roles, block, key = layout.roles(layer), layout.block(layer), f"layers.{layer}.{name}"
    if name in roles.absent:
        raise PointAbsent(name, roles.absent[name])
    if name == "resid_pre":
        return ModuleSite(key, block, "input", argument=roles.stream)
    if name == "resid_post":
        return ModuleSite(key, block, "output")
    if name == "resid_mid":
        return _resid_mid(layout, key, layer, roles)
    if name.startswith("mlp_"):
        return _mlp(layout, name, layer, roles)
    if name in ("router", "expert_out"):
        return _experts(layout, name, layer, roles)
    if name.startswith("mixer_"):
        return _mixer(layout, name, layer, roles)
    return _attention(layout, name, layer, roles)


def _experts(layout: Roles, name: str, layer: int, roles: Adapter) -> Site:
    if roles.mlp is not None and roles.experts is not None:
        paths = layout.role(layer, roles.mlp), layout.role(layer, roles.mlp, roles.experts)
        return ExpertsSite(f"layers.{layer}.{name}", *paths, name)
    block = layout.modules[layout.block(layer)]
    if any("expert" in path or "switch" in path for path, _ in block.named_modules()):
        raise PointAbsent(name, "no single module answers for the chosen experts of this block")
    raise PointAbsent(name, NO_ROUTER)


def _of_model(layout: Roles, name: str) -> Site:
    adapter = layout.adapter
    if name in adapter.absent:
        raise PointAbsent(name, adapter.absent[name])
    if name == "embed":
        return ModuleSite("embed", layout.block(0), "input", argument=layout.roles(0).stream)
    if name == "logits":
        return ModuleSite("logits", "", "output")
    layout.need(adapter.final_norm)
    return ModuleSite("final_norm", adapter.final_norm, "output")


def _mlp(layout: Roles, name: str, layer: int, roles: Adapter) -> Site:
    key = f"layers.{layer}.{name}"
    if roles.mlp is None:
        raise PointAbsent(name, "this block has no MLP")
    if name == "mlp_act":
        return ModuleSite(key, layout.role(layer, roles.mlp, roles.down_proj), "input")
    # A block that holds the projections itself has no call that is the MLP's alone.
    out = layout.role(layer, *([roles.mlp] if roles.mlp else [roles.down_proj]))
    if name == "mlp_out":
        return ModuleSite(key, out, "output")
    if roles.post_mlp_norm:
        out = layout.role(layer, roles.post_mlp_norm)
    return ModuleSite(key, out, "output", factor=layout.factor(layer, roles.mlp_scale))


def _mixer(layout: Roles, name: str, layer: int, roles: Adapter) -> Site:
    key = f"layers.{layer}.{name}"
    if roles.mixer is None:
        raise PointAbsent(name, "softmax attention alone mixes tokens here")
    if name == "mixer_out":
        return ModuleSite(key, layout.role(layer, roles.mixer), "output")
    path, factor = _mixer_add(layout, layer, roles)
    return ModuleSite(key, path, "output", factor=factor)


def _mixer_add(layout: Roles, layer: int, roles: Adapter) -> tuple[str, float]:
    post = roles.post_attn_norm if roles.attn is None else None
    return layout.role(layer, post or roles.mixer), layout.factor(layer, roles.attn_scale)


def _attn_out(layout: Roles, layer: int, roles: Adapter) -> str:
    return layout.role(layer, *([roles.attn] if roles.attn else [roles.out_proj]))


def _attn_add(layout: Roles, layer: int, roles: Adapter) -> tuple[str, float]:
    out = _attn_out(layout, layer, roles)
    if roles.post_attn_norm:
        out = layout.role(layer, roles.post_attn_norm)
    return out, layout.factor(layer, roles.attn_scale)


def _resid_mid(layout: Roles, key: str, layer: int, roles: Adapter) -> Site:
    reader = roles.mlp_norm or roles.mlp
    if reader is None:
        raise PointAbsent("resid_mid", "this block has one sub-layer only")
    adds = []
    if roles.mixer is not None:
        adds.append(_mixer_add(layout, layer, roles))
    if roles.attn is not None:
        adds.append(_attn_add(layout, layer, roles))
    if not adds:
        raise PointAbsent("resid_mid", "this block has one sub-layer only")
    where = layout.block(layer), layout.role(layer, reader)
    return ResidMidSite(key, *where, tuple(adds), roles.stream)


def _attention(layout: Roles, name: str, layer: int, roles: Adapter) -> Site:
    key = f"layers.{layer}.{name}"
    if roles.attn is None:
        raise PointAbsent(name, "this block has no softmax attention")
    path = layout.role(layer, roles.attn)
    if name == "attn_out":
        return ModuleSite(key, _attn_out(layout, layer, roles), "output")
    if name == "attn_add":
        add, factor = _attn_add(layout, layer, roles)
        return ModuleSite(key, add, "output", factor=factor)
    if name == "head_out":
        out_proj = layout.role(layer, roles.attn, roles.out_proj)
        return HeadOutSite(key, out_proj, layout.heads(layer))
    assert name in ATTENTION_POINTS
    seam = roles.attention
    if not isinstance(seam, OwnSoftmax) or name in ("scores", "pattern"):
        return AttentionSite(key, path, name)
    if name == "z":
        out_proj = layout.role(layer, roles.attn, roles.out_proj)
        return ModuleSite(key, out_proj, "input", heads=layout.heads(layer))
    part, _, call = getattr(seam, name).partition("#")
    heads = layout.heads(layer, kv=True) if name == "v" else 0
    where = layout.role(layer, roles.attn, part)
    return ModuleSite(key, where, "output", int(call) if call else None, heads=heads)
