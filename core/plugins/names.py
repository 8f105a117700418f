"""Names that nothing registered can have, since they mean something else already.

Lists, so that the registry imports neither the model nor the command line; a test compares
them.
"""

from __future__ import annotations

from typing import Any

from ..checks.annotations import wrong_field

#: What every model object holds or can do.
RESERVED = frozenset(
    """
    W_E W_K W_O W_Q W_U W_V W_gate W_in W_out W_pos activations adapter attach attached attachments
    available_hooks b_K b_O b_Q b_U b_V b_gate b_in b_out cfg chosen_hooks config context
    conversation_trace decode detach encode encode_batch find_hooks finish_from forward
    from_pretrained generate generate_batch get_attention_patterns get_token_predictions gradients
    layer_indices layers layout loaded_from model module name named_modules output points resolved
    run_with_cache run_with_hooks stream_generate to_single_token to_str_tokens to_string to_tokens
    token_to_str tokenizer tokens trace vocab_size watch
    """.split()
)


#: Commands of the kernel.
COMMANDS = frozenset("doctor generate plugins points run verify".split())


def unusable(kind: str, item: Any) -> str | None:
    """Why an item of this kind cannot be registered; None if it can."""
    name = item.name
    if not isinstance(name, str):
        return f"has a name that is not a string but {type(name).__name__}"
    if not name.strip():
        return "has an empty name"
    if (wrong := wrong_field(item)) is not None:
        return f"cannot be used: {wrong}"
    if kind == "command" and name in COMMANDS:
        return f"could not be called: mlxray {name} means something else"
    if kind != "analysis":
        return None
    if not name.isidentifier() or name.startswith("_"):
        return "is not a public Python name"
    if name in RESERVED:
        return f"could not be called: model.{name} means something else"
    return None
