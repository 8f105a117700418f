"""The model as its users see it: one object with both references' surfaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .arrays import arrays_of, nested
from .conversation.trace import conversation_trace
from .errors import InputError, PluginError
from .generation import generate, generate_batch, stream_generate
from .interventions import Interventions
from .loading.choose import choose_adapter
from .loading.load import load
from .plugins.registry import registry
from .points.adapter import Adapter
from .points.vocabulary import AddressLike
from .run import gradients as _gradients
from .run.cache import ActivationCache
from .run.proxies import LayerListProxy, ModuleProxy, OutputProxy
from .run.run import Run
from .run.tail import Norm, finish_from
from .run.trace import Trace, current_trace
from .run.wrapped import WrappedModel, planned_edits
from .tokens import Inputs


class InterpretableModel(WrappedModel):
    """A language model whose inside can be watched and edited.

    Args:
        model: An ``mlx.nn.Module`` from token ids to logits, a hub id, a local folder, or
            ``"pocket"``, the embedded model.
        tokenizer: Any object with ``encode`` and ``decode``; loaded with the model if that is
            given by name.
        layer_attr: Name or path of the list of blocks, if it is not where the adapter looks.
        embedding_path, norm_path, lm_head_path: Paths that override the adapter's.
        adapter: An `Adapter`, or the name of a registered one; chosen by the model's type if None.
        lora_path: Folder with a LoRA adapter that mlx-lm trained, for a model given by name.
        trust_remote_code: Let a checkpoint run Python code of its own.

    Attributes:
        model: The wrapped module, untouched.
        tokenizer: As given or loaded, or None.
        adapter: The roles in use.
        layout: Resolves addresses.
        layers: The blocks, by index.

    Raises:
        LoadError: if the checkpoint cannot be found or read.
        AdapterError: if the blocks or a given path cannot be found.
    """

    def __init__(
        self,
        model: nn.Module | str | os.PathLike[str],
        tokenizer: Any = None,
        layer_attr: str = "layers",
        embedding_path: str | None = None,
        norm_path: str | None = None,
        lm_head_path: str | None = None,
        *,
        adapter: Adapter | str | None = None,
        lora_path: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        name = model if isinstance(model, str) else type(model).__module__.split(".")[-1]
        if isinstance(model, str):
            model, loaded = load(model, lora_path=lora_path, trust_remote_code=trust_remote_code)
            tokenizer = tokenizer if tokenizer is not None else loaded
        elif not isinstance(model, nn.Module):
            raise InputError(f"expected an mlx.nn.Module or a name, got {type(model).__name__}.")
        elif lora_path is not None:
            raise InputError("lora_path is for a model given by name; put it into this one first.")
        super().__init__(
            model,
            tokenizer,
            choose_adapter(
                model,
                adapter=adapter,
                layers=None if layer_attr == "layers" else layer_attr,
                embed=embedding_path,
                final_norm=norm_path,
                head=lm_head_path,
            ),
            name,
        )
        self.layers = LayerListProxy(self)
        registry.notify("mlxray_model_loaded", model=self)

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> InterpretableModel:
        """Load by name; the same as ``InterpretableModel(name, …)``."""
        return cls(name, **options)

    # Runs

    def trace(
        self,
        inputs: Inputs,
        interventions: Interventions | None = None,
        *,
        allow_unchanged: bool = False,
    ) -> Trace:
        """Open a run as a block: ``with model.trace("Hello") as trace: …``.

        Args:
            inputs: Text, texts, token ids, or an array (B, S).
            interventions: Address → edit, or pairs; see `mlxray.interventions`.
            allow_unchanged: Accept edits that change no number.
        """
        edits = planned_edits(self.layout, interventions, allow_unchanged=allow_unchanged)
        return Trace(self, inputs, edits, allow_unchanged=allow_unchanged)

    def run_with_cache(
        self,
        inputs: Inputs,
        hooks: Sequence[AddressLike] | None = None,
        *,
        interventions: Interventions | None = None,
        allow_unchanged: bool = False,
    ) -> tuple[mx.array, ActivationCache]:
        """Run once and keep activations.

        Args:
            inputs: As in `trace`.
            hooks: Addresses to keep. None keeps every module's output and every point (but
                `head_out`, which is H times as large): mind the memory.
            interventions: Address → edit, in force during the run.
            allow_unchanged: Accept edits that change no number.

        Returns:
            Logits (B, S, V) and the cache, evaluated.
        """
        batch = self.tokens.batch(inputs)
        edits = planned_edits(self.layout, interventions, allow_unchanged=allow_unchanged)
        run = Run(self.layout, watch=hooks or (), edits=edits, everything=hooks is None)
        logits = run.execute(batch.ids, lengths=batch.lengths)
        kept = run.values()
        run.forget()
        reports = run.settle(logits, *arrays_of(list(kept.values())))
        facts = {"tokens": batch.rows(), "edits": reports}
        return logits, ActivationCache(kept, self.layout, facts)

    def run_with_hooks(
        self, inputs: Inputs, hooks: Interventions = (), *, allow_unchanged: bool = False
    ) -> mx.array:
        """Run once with edits.

        Args:
            inputs: As in `trace`.
            hooks: Pairs (address, fn), or a mapping; fn is ``fn(activation)``,
                ``fn(activation, call)`` or ``fn(inputs, output, wrapper)``, and returns the
                activation to go on with.
            allow_unchanged: Accept edits that change no number.

        Returns:
            Logits (B, S, V), evaluated.

        Raises:
            EditError: if an edit returns the wrong thing, never fires, or changes nothing.
        """
        run = Run(
            self.layout, edits=planned_edits(self.layout, hooks, allow_unchanged=allow_unchanged)
        )
        batch = self.tokens.batch(inputs)
        logits: mx.array = run.execute(batch.ids, lengths=batch.lengths)
        run.settle(logits)
        return logits

    def activations(self, inputs: Inputs, addresses: Sequence[AddressLike]) -> ActivationCache:
        """Keep activations, computing nothing that they do not need (logits, late layers)."""
        batch = self.tokens.batch(inputs)
        run = Run(self.layout, watch=addresses)
        run.execute(batch.ids)
        kept = run.values()
        run.forget()
        run.settle(*arrays_of(list(kept.values())))
        return ActivationCache(kept, self.layout, {"tokens": batch.rows()})

    def watch(
        self, inputs: Inputs, point: str, layers: Sequence[int] | None = None
    ) -> dict[int, mx.array]:
        """One point at several layers: layer → array.

        Raises:
            PointAbsent: if a layer does not have the point.
            InputError: if `layers` is empty.
        """
        wanted = self.layer_indices(layers)
        cache = self.activations(inputs, [(point, layer) for layer in wanted])
        return {layer: cache[point, layer] for layer in wanted}

    def get_attention_patterns(
        self, inputs: Inputs, layers: Sequence[int] | None = None
    ) -> dict[int, mx.array]:
        """Attention probabilities that the model really used: layer → (B, H, S, S) float32."""
        return self.watch(inputs, "pattern", layers)

    def finish_from(
        self, residual: mx.array, *, final_norm: Norm | None = None, skip_norm: bool = False
    ) -> mx.array:
        """Logits of the model's own tail for a residual stream (B, S, D); see `tail`. Lazy."""
        return finish_from(self.layout, residual, final_norm=final_norm, skip_norm=skip_norm)

    def gradients(
        self,
        inputs: Inputs,
        metric: Callable[[mx.array], mx.array],
        addresses: Sequence[AddressLike],
        *,
        interventions: Interventions | None = None,
        positions: Sequence[int] | None = None,
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """A scalar of the logits and its exact gradient at each address; see `gradients`."""
        edits = [
            (e.address, e.fn)
            for e in planned_edits(self.layout, interventions, allow_unchanged=True)
        ]
        batch = self.tokens.batch(inputs)
        return _gradients.gradients(
            self.layout, batch, metric, addresses, edits=edits, positions=positions
        )

    # Text; `model` in these functions is this object

    generate = generate
    stream_generate = stream_generate
    generate_batch = generate_batch
    conversation_trace = conversation_trace

    def get_token_predictions(
        self,
        hidden_state: mx.array,
        top_k: int = 10,
        return_scores: bool = False,
        embedding_layer: Any = None,
        lm_head: Callable[[mx.array], mx.array] | None = None,
    ) -> list[Any]:
        """The tokens that the output projection scores highest for a hidden state.

        The final norm is not applied (`logit_lens` does): a cap or a scale of the model's is.

        Args:
            hidden_state: (D,), or (B, D) for a list per row.
            top_k: How many.
            return_scores: Give (token id, logit) pairs.
            embedding_layer: Use this embedding, transposed, instead of the model's head.
            lm_head: Use this module instead; it goes before `embedding_layer`.
        """
        if hidden_state.ndim not in (1, 2):
            raise InputError(f"hidden_state has shape (D,) or (B, D); got {hidden_state.shape}.")
        rows = hidden_state if hidden_state.ndim == 2 else hidden_state[None]
        if lm_head is not None:
            logits = lm_head(rows)
        elif embedding_layer is not None:
            logits = embedding_layer.as_linear(rows)
        else:
            logits = self.finish_from(rows[:, None], skip_norm=True)[:, 0]
        if not 0 < top_k <= logits.shape[-1]:
            raise InputError(f"top_k is between 1 and {logits.shape[-1]}; got {top_k}.")
        order = mx.argsort(-logits, axis=-1)[:, :top_k]
        scores = mx.take_along_axis(logits, order, axis=-1).astype(mx.float32)
        ids: list[Any] = nested(order)
        found = ids
        if return_scores:
            values = nested(scores)
            found = [list(zip(i, s, strict=True)) for i, s in zip(ids, values, strict=True)]
        return found if hidden_state.ndim == 2 else found[0]

    # Parts

    @property
    def output(self) -> OutputProxy:
        """The model's output in the open trace; ``.save()`` keeps it."""
        return OutputProxy(self, "logits", "output")

    @output.setter
    def output(self, value: Any) -> None:
        change = value.value if isinstance(value, OutputProxy) else value
        current_trace(self, "output").edit("logits", change)

    def module(self, path: str) -> ModuleProxy:
        """A module of the model by its path, as a proxy."""
        site = self.layout.site(path)
        return ModuleProxy(self, getattr(site, "path", ""))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "layout" not in self.__dict__:
            raise AttributeError(name)
        if name in self.layout.modules:
            return ModuleProxy(self, name)
        try:
            found = registry.get("analysis", name)
        except PluginError as error:
            raise AttributeError(
                f"the model has no module or analysis {name!r}: {error}"
            ) from error
        return partial(found, self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *registry.names("analysis")})

    def __repr__(self) -> str:
        return (
            f"<InterpretableModel {self.name}: {self.layout.n_layers} layers, "
            f"adapter {self.adapter.name}>"
        )


HookedModel = InterpretableModel
