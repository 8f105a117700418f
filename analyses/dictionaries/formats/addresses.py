"""Names of points in other libraries, and the addresses that they are here."""

from __future__ import annotations

import re

from mlxray.points.vocabulary import ALIASES, POINTS

#: What stands after ``blocks.N.`` in TransformerLens → what stands after ``layers.N.`` here; the
#: last two have another form in a run, and are the same once a dictionary has them flat.
_HOOKS = {
    **{n: p for n, p in ALIASES.items() if "hook_" in n and POINTS[p].per_layer},
    "attn.hook_z": "z",
    "mlp.hook_in": "mlp.input",
}
_BACK = {
    **{point: hook for hook, point in _HOOKS.items()},
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
}
#: What stands after ``model.layers.N.`` in the transformers library, of families with four norms.
_MODULES = {
    "output": "resid_post",
    "self_attn.o_proj.input": "z",
    "pre_feedforward_layernorm.output": "mlp.input",
    "post_feedforward_layernorm.output": "mlp_add",
}


def from_hook(name: str | None) -> str | None:
    """The address of a point that TransformerLens names; None if it has none here.

    >>> from_hook("blocks.8.hook_resid_pre")
    'layers.8.resid_pre'
    """
    if name in ("hook_embed", "blocks.0.hook_embed"):
        return "embed"
    found = re.fullmatch(r"(?:blocks|layers)\.(\d{1,6})\.(.+)", name or "")
    if found is None:
        return None
    if str(name).startswith("layers."):
        return name
    point = _HOOKS.get(found[2])
    return point and f"layers.{int(found[1])}.{point}"


def to_hook(address: str | None) -> str | None:
    """What TransformerLens calls a point; the address itself where it has no name there."""
    if address is None or address == "embed":
        return address and "hook_embed"
    found = re.fullmatch(r"layers\.(\d{1,6})\.(.+)", address)
    hook = _BACK.get(found[2]) if found else None
    return f"blocks.{found[1]}.{hook}" if found and hook else address


def from_module(name: str | None) -> str | None:
    """The address of a module's input or output in the transformers library; None if unknown.

    >>> from_module("model.layers.9.output")
    'layers.9.resid_post'
    """
    found = re.fullmatch(r"(?:model\.)*(?:language_model\.)?layers\.(\d{1,6})\.(.+)", name or "")
    point = _MODULES.get(found[2]) if found else None
    return f"layers.{int(found[1])}.{point}" if found and point else None
