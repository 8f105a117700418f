"""Names of other libraries that are not ours: what they are called here, or the line to write.

Addresses have theirs in `points.vocabulary.ALIASES` and `points.elsewhere`.
"""

from __future__ import annotations

#: Argument → what it is called here; the first that the function has.
ARGUMENTS = {
    "fwd_hooks": ("interventions", "hooks"),
    "names_filter": ("hooks", "addresses", "watch"),
    "max_new_tokens": ("max_tokens",),
    "use_past_kv_cache": ("use_cache",),
    "input": ("inputs", "prompt"),
}

#: Arguments that no function here has → the line to write.
NO_ARGUMENTS = {
    "pre_hooks": 'edit the input: hooks=[("layers.5.mlp.input", lambda activation: …)].',
    "bwd_hooks": "gradients: model.gradients(prompt, metric, addresses).",
    "incl_bwd": "gradients: model.gradients(prompt, metric, addresses).",
    "stop_at_layer": 'write model.activations(prompt, ("resid_pre", layer)), which stops there.',
    "start_at_layer": 'edit that layer\'s input: {("resid_pre", layer): lambda stream: …}.',
    "prepend_bos": "give the ids: model.to_tokens(text, prepend_bos=…).",
    "remove_batch_dim": "write cache[address][0].",
    "reset_hooks_end": "nothing stays after a run; leave it out.",
    "clear_contexts": "nothing stays after a run; leave it out.",
    "past_kv_cache": "generate(…, prompt_cache=…) goes on from a cache.",
    "do_sample": "temperature=0 takes the likeliest token, which is the default.",
    "stop_at_eos": "stop_tokens=[] goes on past the end of the text.",
    "eos_token_id": "stop_tokens=[…] has the ids that end the text.",
    "freq_penalty": "repetition_penalty=… is mlx-lm's.",
    "apply_ln": (
        "cache.logit_attrs(stack, tokens) holds the final norm's scale itself; "
        "model.finish_from(stream) runs the model's own norm and head."
    ),
    "device": "MLX's arrays belong to no device; see mx.set_default_device.",
}

_BLOCK = (
    "edits belong to one run: model.run_with_hooks(prompt, [(address, fn)]), or as a block "
    '"with model.trace(prompt, {address: fn}) as trace:".'
)
_NOTHING_STAYS = "edits belong to one run and are gone after it; there is nothing to reset."
_AS_IT_IS = "the weights are as in the checkpoint, and stay so; nothing is folded or centred."

#: Attributes that the model does not have → the line to write.
MODEL = {
    "hooks": _BLOCK,
    "add_hook": _BLOCK,
    "add_perma_hook": _BLOCK,
    "reset_hooks": _NOTHING_STAYS,
    "remove_all_hook_fns": _NOTHING_STAYS,
    "hook_dict": "model.available_hooks() has the addresses.",
    "hook_points": "model.available_hooks() has the addresses.",
    "mod_dict": "dict(model.named_modules()).",
    "blocks": "model.layers[0], with the names of the model's own modules in it.",
    "unembed": "model.finish_from(stream, skip_norm=True).",
    "ln_final": "model.activations(prompt, 'final_norm'); model.finish_from(stream) has it in it.",
    "to_single_str_token": "model.token_to_str(token_id).",
    "get_token_position": "model.to_str_tokens(prompt).index(token).",
    "tokens_to_residual_directions": "model.W_U[:, token_id].",
    "loss_fn": 'model(prompt, return_type="loss").',
    "input_to_embed": 'model.activations(prompt, "embed").',
    "set_use_attn_result": 'ask for it: model.run_with_cache(prompt, ("head_out", 0)).',
    "set_use_split_qkv_input": "see model.path_patching(…) for inputs of single heads.",
    "set_use_hook_mlp_in": "see model.path_patching(…) for inputs of single parts.",
    "fold_layer_norm": _AS_IT_IS,
    "center_writing_weights": _AS_IT_IS,
    "center_unembed": _AS_IT_IS,
    "OV": "model.W_V[layer] @ model.W_O[layer], head by head.",
    "QK": "model.W_Q[layer] @ model.W_K[layer].swapaxes(1, 2), head by head; RoPE is not in it.",
    "parameters": "model.model.parameters().",
    "eval": "model.model.eval().",
    "train": "model.model.train().",
    "to": "MLX's arrays belong to no device; see mx.set_default_device.",
    "cuda": "MLX's arrays belong to no device; see mx.set_default_device.",
    "cpu": "MLX's arrays belong to no device; see mx.set_default_device.",
}

_NEURONS = "model.direct_logit_attribution(prompt, neurons=True)."

#: Attributes that a cache does not have → the line to write.
CACHE = {
    "stack_activation": 'mx.stack([cache["z", layer] for layer in range(model.cfg.n_layers)]).',
    "apply_ln_to_stack": "cache.logit_attrs(stack, tokens) holds the final norm's scale itself.",
    "compute_head_results": 'ask for it: model.run_with_cache(prompt, ("head_out", 0)).',
    "get_full_resid_decomposition": _NEURONS,
    "get_neuron_results": _NEURONS,
    "stack_neuron_results": _NEURONS,
    "remove_batch_dim": "cache[address][0].",
    "toggle_autodiff": "model.gradients(prompt, metric, addresses).",
    "cache_dict": "cache.activations.",
    "to": "MLX's arrays belong to no device; see mx.set_default_device.",
}

#: Names of a size in other configurations → what `cfg` calls it.
SIZES = {
    "num_hidden_layers": "n_layers",
    "n_layer": "n_layers",
    "hidden_size": "d_model",
    "n_embd": "d_model",
    "num_attention_heads": "n_heads",
    "n_head": "n_heads",
    "num_key_value_heads": "n_key_value_heads",
    "n_kv_heads": "n_key_value_heads",
    "head_dim": "d_head",
    "intermediate_size": "d_mlp",
    "vocab_size": "d_vocab",
    "max_position_embeddings": "n_ctx",
}
