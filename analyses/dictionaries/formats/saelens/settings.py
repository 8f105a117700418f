"""Settings of SAELens: those of version 6, and older ones brought to the same names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..reading import Settings

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

#: Where the addresses stand in the metadata: TransformerLens has no name for some.
ADDRESSES = ("mlxray_reads", "mlxray_writes")

#: Settings of the model and the point, which older files have beside the dictionary's own.
_METADATA = (
    "model_name",
    "hook_name",
    "hook_name_out",
    "model_class_name",
    "hook_head_index",
    "hook_head_index_out",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "exclude_special_tokens",
    "neuronpedia_id",
    "context_size",
    "seqpos_slice",
    "dataset_path",
    "sae_lens_version",
    "sae_lens_training_version",
)
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}


def read_settings(path: Path) -> Settings:
    """The settings of a ``cfg.json``, as SAELens 6 writes them.

    Raises:
        LoadError: if it cannot be read.
    """
    settings = Settings.from_json(path)
    version = settings.values.get("sae_lens_version") or settings.inner("metadata").values.get(
        "sae_lens_version"
    )
    major = re.match(r"(\d{1,4})\.", str(version or ""))
    return settings if major and int(major[1]) >= 6 else _modern(settings)


def _modern(old: Settings) -> Settings:
    """Settings from before SAELens 6, with the names and the defaults that they had."""
    values: dict[str, Any] = {_RENAMED.get(k, k): v for k, v in old.values.items()}
    values.setdefault("architecture", "standard")
    values.setdefault("apply_b_dec_to_input", True)
    hook = values.get("hook_name")
    reshape = "hook_z" if "hook_z" in str(hook or "") else "none"
    values.setdefault("reshape_activations", reshape)
    normalize = values.get("normalize_activations")
    if isinstance(normalize, bool):
        normalize = "expected_average_only_in" if normalize else "none"
    values["normalize_activations"] = normalize or "none"
    function = values.get("activation_fn") or "relu"
    kwargs = Settings(old.path, values).inner("activation_fn_kwargs")
    if function == "topk":
        values["architecture"] = "topk"
        values["k"] = kwargs.values.get("k")
    elif function != "relu":
        raise Settings(old.path, values).wrong("activation_fn", "'relu' or 'topk'")
    values["metadata"] = {name: values[name] for name in _METADATA if name in values}
    return Settings(old.path, values)
