"""Names of TransformerLens's hooks that mean something else here, each with the line to write."""

from __future__ import annotations

from .roles import Roles

_HEADS_FIRST = 'Write "layers.{layer}.%s": %s, with heads before tokens, (%s).'
_NORM = (
    'Write "layers.{layer}.{roles.%s}", what the norm returns. TransformerLens folds the norm\'s '
    "weights into what follows unless you switch that off."
)
_SCALE = "no module returns the scale of a norm; its input and its output tell it."
_EDGE = (
    "an input of single heads or of the MLP alone is an edge; see model.path_patching(…) and "
    "model.edge_attribution_patching(…)."
)

#: Name of a hook, without ``blocks.N.`` → the line to write, a format of the layer and its roles.
LINES = {
    "attn.hook_q": _HEADS_FIRST % ("q", "queries after norm and RoPE", "B, H, S, d"),
    "attn.hook_k": _HEADS_FIRST % ("k", "keys after norm and RoPE", "B, K, S, d"),
    "attn.hook_v": _HEADS_FIRST % ("v", "values", "B, K, S, d"),
    "attn.hook_rot_q": _HEADS_FIRST % ("q", "queries after norm and RoPE", "B, H, S, d"),
    "attn.hook_rot_k": _HEADS_FIRST % ("k", "keys after norm and RoPE", "B, K, S, d"),
    "attn.hook_z": _HEADS_FIRST % ("z", "mixed values", "B, H, S, d"),
    "attn.hook_result": _HEADS_FIRST % ("head_out", "each head's share", "B, H, S, D"),
    "mlp.hook_pre": (
        'Write the projection whose output it is, such as "layers.{layer}.{roles.mlp}.gate_proj" '
        "or c_fc; model.available_hooks() has its name."
    ),
    "ln1.hook_normalized": _NORM % "attn_norm",
    "ln2.hook_normalized": _NORM % "mlp_norm",
    "ln1.hook_scale": _SCALE,
    "ln2.hook_scale": _SCALE,
    "ln_final.hook_scale": _SCALE,
    "hook_q_input": _EDGE,
    "hook_k_input": _EDGE,
    "hook_v_input": _EDGE,
    "hook_attn_in": _EDGE,
    "hook_mlp_in": _EDGE,
}

_EMBED = (
    'there it is the token\'s vector alone. Write "{adapter.embed}" for that, and "embed" for what '
    "enters the first block, with the position's vector in it."
)
_POSITIONS = 'Write "{adapter.positions}": (S, D), the same for each prompt.'


def line_for(name: str, layer: int | None, layout: Roles) -> str | None:
    """What to write in place of a hook's name; None if `name` is none of these.

    Args:
        name: Of the address, without its layer.
        layer: None for one of the whole model.
        layout: The model's roles.
    """
    adapter = layout.adapter
    if adapter.positions and layer is None and name in ("hook_embed", "hook_pos_embed"):
        return (_EMBED if name == "hook_embed" else _POSITIONS).format(adapter=adapter)
    if name not in LINES or (layer is None) != name.startswith("ln_final"):
        return None
    if layer is None:
        return LINES[name]
    return LINES[name].format(layer=layer, roles=layout.roles(layer))
