"""Names that nothing registered can have, since they mean something else already.

Lists, so that the registry imports neither the model nor the command line; a test compares
them.
"""

from __future__ import annotations

#: What every model object holds or can do.
RESERVED = frozenset(
    """
    activations adapter conversation_trace decode encode encode_batch finish_from from_pretrained
    generate generate_batch get_attention_patterns get_token_predictions gradients layer_indices
    layers layout model module name named_modules output points run_with_cache run_with_hooks
    stream_generate to_str_tokens token_to_str tokenizer tokens trace vocab_size watch
    """.split()
)


#: Commands of the kernel.
COMMANDS = frozenset("doctor generate plugins points run verify".split())


def unusable(kind: str, name: object) -> str | None:
    """Why nothing of this kind can be called `name`; None if it can."""
    if kind == "analysis":
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            return "is not a public Python name"
        if name in RESERVED:
            return f"could not be called: model.{name} means something else"
    if kind == "command" and name in COMMANDS:
        return f"could not be called: mlxray {name} means something else"
    return None
