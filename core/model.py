"""The model as its users see it: one object with both references' surfaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .arrays import arrays_of
from .checks.arguments import checked
from .checks.elsewhere import MODEL
from .checks.finite import NaNCheck
from .conversation.trace import conversation_trace
from .errors import InputError, PluginError
from .generation import generate, generate_batch, stream_generate
from .interventions import Interventions
from .loading.choose import choose_adapter
from .loading.load import load
from .plugins.registry import registry
from .points.adapter import Adapter
from .points.vocabulary import AddressLike
from .points.vocabulary import addresses as as_list
from .run import gradients as _gradients
from .run.attach import attach, attached, detach
from .run.cache import ActivationCache
from .run.forward import Returned, check_returned, forward, returned
from .run.predictions import get_token_predictions
from .run.proxies import LayerListProxy, ModuleProxy, OutputProxy
from .run.run import Run
from .run.tail import Norm, finish_from
from .run.trace import Trace, current_trace
from .run.weights import WEIGHTS, weight
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
        resolved: The layout as of the last look at the modules; `layout` looks whether they are
            still the same.
        loaded_from: The name that it was loaded by, with nothing else said; None otherwise.

    Raises:
        LoadError: if the checkpoint cannot be found or read.
        AdapterError: if the blocks or a given path cannot be found.
    """

    @checked("model")
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
        others = (tokenizer, embedding_path, norm_path, lm_head_path, adapter, lora_path)
        alone = layer_attr == "layers" and not any(each is not None for each in others)
        self.loaded_from = model if isinstance(model, str) and alone else None
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
            partial(
                choose_adapter,
                model,
                adapter=adapter,
                layers=None if layer_attr == "layers" else layer_attr,
                embed=embedding_path,
                final_norm=norm_path,
                head=lm_head_path,
            ),
            name,
        )
        registry.notify("mlxray_model_loaded", model=self)

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> InterpretableModel:
        """Load by name; the same as ``InterpretableModel(name, …)``."""
        return cls(name, **options)

    @property
    def layers(self) -> LayerListProxy:
        """The blocks, by index."""
        return LayerListProxy(self)

    # Runs

    forward = forward
    __call__ = forward

    @checked("inputs", "interventions")
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

    @checked("inputs", "hooks", "interventions", "return_type")
    def run_with_cache(
        self,
        inputs: Inputs,
        hooks: AddressLike | Sequence[AddressLike] | Callable[[str], bool] | None = None,
        *,
        interventions: Interventions | None = None,
        allow_unchanged: bool = False,
        return_type: Returned = "logits",
    ) -> tuple[mx.array, ActivationCache]:
        """Run once and keep activations.

        Args:
            inputs: As in `trace`.
            hooks: Address, or addresses, to keep, or a function that says of each of
                `available_hooks` whether to. None keeps every module's output and every
                point (but `head_out`, which is H times as large): mind the memory.
            interventions: Address → edit, in force during the run.
            allow_unchanged: Accept edits that change no number.
            return_type: Logits or loss, as in `forward`.

        Returns:
            Logits (B, S, V), or the loss, and the cache, evaluated.
        """
        batch = self.tokens.batch(inputs)
        check_returned(return_type, batch)
        layout = self.resolved
        edits = planned_edits(layout, interventions, allow_unchanged=allow_unchanged)
        watch = () if hooks is None else self.chosen_hooks(hooks)
        run = Run(layout, watch=watch, edits=edits, everything=hooks is None)
        logits = run.execute(batch.ids, lengths=batch.lengths)
        found: mx.array = returned(logits, batch, return_type)
        kept = run.values()
        run.forget()
        check = NaNCheck(kept, logits, edited=bool(edits))
        reports = run.settle(found, *arrays_of(list(kept.values())), *check.pending)
        check.warn()
        facts = {"tokens": batch.rows(), "edits": reports}
        return found, ActivationCache(kept, self.resolved, facts)

    @checked("inputs", "hooks", "return_type")
    def run_with_hooks(
        self,
        inputs: Inputs,
        hooks: Interventions = (),
        *,
        allow_unchanged: bool = False,
        return_type: Returned = "logits",
    ) -> mx.array:
        """Run once with edits.

        Args:
            inputs: As in `trace`.
            hooks: Pairs (address, fn), or a mapping; fn is ``fn(activation)``,
                ``fn(activation, call)`` or ``fn(inputs, output, wrapper)``, and returns the
                activation to go on with.
            allow_unchanged: Accept edits that change no number.
            return_type: Logits or loss, as in `forward`.

        Returns:
            Logits (B, S, V), or the loss, evaluated.

        Raises:
            EditError: if an edit returns the wrong thing, never fires, or changes nothing.
        """
        layout = self.layout
        run = Run(layout, edits=planned_edits(layout, hooks, allow_unchanged=allow_unchanged))
        batch = self._tokens.batch(inputs)
        check_returned(return_type, batch)
        logits: mx.array = run.execute(batch.ids, lengths=batch.lengths)
        found: mx.array = returned(logits, batch, return_type)
        check = NaNCheck({}, logits)
        run.settle(found, *check.pending)
        check.warn()
        return found

    @checked("inputs", "addresses")
    def activations(
        self, inputs: Inputs, addresses: AddressLike | Sequence[AddressLike]
    ) -> ActivationCache:
        """Keep activations, computing nothing that they do not need (logits, late layers)."""
        batch = self.tokens.batch(inputs)
        run = Run(self.resolved, watch=as_list(addresses))
        run.execute(batch.ids)
        kept = run.values()
        run.forget()
        check = NaNCheck(kept)
        run.settle(*arrays_of(list(kept.values())), *check.pending)
        check.warn()
        return ActivationCache(kept, self.resolved, {"tokens": batch.rows()})

    @checked("inputs")
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

    @checked("inputs")
    def get_attention_patterns(
        self, inputs: Inputs, layers: Sequence[int] | None = None
    ) -> dict[int, mx.array]:
        """Attention probabilities that the model really used: layer → (B, H, S, S) float32."""
        return self.watch(inputs, "pattern", layers)

    @checked()
    def finish_from(
        self, residual: mx.array, *, final_norm: Norm | None = None, skip_norm: bool = False
    ) -> mx.array:
        """Logits of the model's own tail for a residual stream (B, S, D); see `tail`.

        Lazy, as MLX's own functions are, so that it costs what is used of it: evaluate the logits
        before you hand them to another thread.
        """
        return finish_from(self.layout, residual, final_norm=final_norm, skip_norm=skip_norm)

    @checked("inputs", "addresses", "interventions")
    def gradients(
        self,
        inputs: Inputs,
        metric: Callable[[mx.array], mx.array],
        addresses: AddressLike | Sequence[AddressLike],
        *,
        interventions: Interventions | None = None,
        positions: Sequence[int] | None = None,
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """A scalar of the logits and its exact gradient at each address; see `gradients`."""
        layout = self.layout
        edits = [
            (e.address, e.fn) for e in planned_edits(layout, interventions, allow_unchanged=True)
        ]
        batch = self._tokens.batch(inputs)
        return _gradients.gradients(
            layout, batch, metric, as_list(addresses), edits=edits, positions=positions
        )

    # What is attached, and text; `model` in these functions is this object

    attach = attach
    attached = attached
    detach = detach

    @property
    def attachments(self) -> dict[str, Any]:
        """What is attached, by the address of all its values; see `attach`."""
        return {address: each.source for address, each in self.layout.attached.all.items()}

    generate = generate
    stream_generate = stream_generate
    generate_batch = generate_batch
    conversation_trace = conversation_trace
    get_token_predictions = get_token_predictions

    # Parts

    @property
    def output(self) -> OutputProxy:
        """The model's output in the open trace; ``.save()`` keeps it."""
        return OutputProxy(self, "logits", "output")

    @output.setter
    def output(self, value: Any) -> None:
        change = value.value if isinstance(value, OutputProxy) else value
        current_trace(self, "output").edit("logits", change)

    @checked()
    def module(self, path: str) -> ModuleProxy:
        """A module of the model by its path, as a proxy."""
        site = self.layout.site(path)
        return ModuleProxy(self, getattr(site, "path", ""))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "resolved" not in self.__dict__:
            raise AttributeError(name)
        if name in self.resolved.current().modules:
            return ModuleProxy(self, name)
        if name in WEIGHTS:
            return weight(self.layout, name)
        if name in MODEL and name not in registry.names("analysis"):
            raise AttributeError(f"the model has no {name!r}: {MODEL[name]}")
        try:
            found = registry.get("analysis", name)
        except PluginError as error:
            raise AttributeError(
                f"the model has no module or analysis {name!r}: {error}"
            ) from error
        return found.of(self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *WEIGHTS, *registry.names("analysis")})

    def __repr__(self) -> str:
        return (
            f"<InterpretableModel {self.name}: {self.layout.n_layers} layers, "
            f"adapter {self.adapter.name}>"
        )


HookedModel = InterpretableModel
