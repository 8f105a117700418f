"""Finding modules and keys by role, for code written against module paths."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.nn as nn

from .errors import AddressError, nearest
from .loading.choose import choose_adapter
from .points.layout import Layout
from .points.vocabulary import normalize_layer_key

#: What a component is called in the families that mlx-lm has.
COMPONENTS = {
    "resid_post": ("",),
    "resid_pre": ("",),
    "attn": ("self_attn", "attn", "attention"),
    "attn_head": ("self_attn", "attn", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "block_sparse_moe"),
}


class ModuleResolver:
    """Finds the embedding, the final norm and the output head of a model.

    Args:
        model: The model.
        embedding_path, norm_path, lm_head_path: Paths that override what is found.
    """

    def __init__(
        self,
        model: nn.Module,
        embedding_path: str | None = None,
        norm_path: str | None = None,
        lm_head_path: str | None = None,
    ) -> None:
        self.model = model
        self._paths = {"embed": embedding_path, "final_norm": norm_path, "head": lm_head_path}
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        """The resolved layout, kept until `clear_cache`."""
        if self._layout is None:
            self._layout = Layout(self.model, choose_adapter(self.model, **self._paths))
        return self._layout

    def get_embedding_layer(self) -> nn.Module:
        """The token embedding."""
        return self._module(self.layout.adapter.embed)

    def get_final_norm(self) -> nn.Module:
        """The norm before the output head."""
        return self._module(self.layout.adapter.final_norm)

    def get_lm_head(self) -> nn.Module | None:
        """The output head, or None where the embedding does its work."""
        path, tied = self.layout.output_head()
        return None if tied else self._module(path)

    def get_output_projection(self) -> tuple[nn.Module, str, bool]:
        """(module, path, is_weight_tied) of what turns the last hidden state into logits."""
        path, tied = self.layout.output_head()
        return self._module(path), path, tied

    def clear_cache(self) -> None:
        """Look again on the next question; call it after changing the model's structure."""
        self._layout = None

    def _module(self, path: str) -> nn.Module:
        if path not in self.layout.modules:
            raise AddressError(f"no module at {path!r}. {nearest(path, self.layout.modules)}")
        return self.layout.modules[path]


def find_layer_key_pattern(
    activations: Iterable[str], layer_idx: int, component: str | None = None
) -> str | None:
    """The key in `activations` of a layer, or of a part of it; None if there is none."""
    wanted = f"layers.{layer_idx}" + (f".{component}" if component else "")
    return next((key for key in activations if normalize_layer_key(key) == wanted), None)


def resolve_component(component: str, layer: int, activations: Iterable[str]) -> str:
    """The key in `activations` of a component by its architecture-independent name.

    Args:
        component: ``"resid_post"``, ``"resid_pre"``, ``"attn"``, ``"mlp"``, ``"attn_head"``, or a
            path inside the block such as ``"mlp.gate_proj"``.
        layer: Index of the layer; ``"resid_pre"`` is the key of the layer before it.
        activations: Keys, or a mapping.

    Raises:
        AddressError: if no key fits.
    """
    keys = list(activations)
    for name in COMPONENTS.get(component, (component,)):
        index = layer - 1 if component == "resid_pre" else layer
        found = find_layer_key_pattern(keys, index, name or None)
        if found is not None:
            return found
    raise AddressError(f"no key for {component!r} of layer {layer}. {nearest(component, keys)}")


__all__ = [
    "ModuleResolver",
    "find_layer_key_pattern",
    "normalize_layer_key",
    "resolve_component",
]
