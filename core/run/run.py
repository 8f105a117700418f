"""A run: one forward pass of the model's own code, with what to watch, edit and skip in it.

A `Run` is planned (sites add what they need to the handlers of modules), executed, and then
read; `Run.restart` makes it ready for another pass. It holds what was asked for and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..arrays import evaluate, held
from ..errors import AddressError, InputError
from ..machine.streams import share_stream
from ..points.layout import Layout
from ..points.sites import AttentionSite, Site
from ..points.vocabulary import ATTENTION_POINTS, LARGE_POINTS, AddressLike, tokens_axis
from ..seams.attention import Frame
from ..seams.edits import Call, Edit, EditReport
from ..seams.handlers import NO_CHANGES, Handler, Skip
from ..seams.instrument import Original, instrumented, under
from ..seams.positions import Span, cached_tokens, tells_tokens


class Run:
    """Plan, execute, read.

    Args:
        layout: The model and its adapter.
        watch: Addresses to keep.
        edits: Edits, applied in this order where several meet at one address.
        everything: Keep the output of every module, and whatever a point needs.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        watch: Sequence[AddressLike] = (),
        edits: Sequence[Edit] = (),
        everything: bool = False,
    ) -> None:
        self.layout = layout
        self.handlers: dict[int, Handler] = {}
        self.derived: dict[str, Any] = {}
        self.edits: list[Edit] = []
        self._frames: list[Frame] = []
        self._attention = False
        self.everything = everything
        if everything:
            self._keep_everything()
        self.plan_edits(edits)
        self.sites: dict[str, Site] = {}
        for address in watch:
            self.watch(address)

    def plan_edits(self, edits: Sequence[Edit]) -> None:
        """Add edits to the run to come, after those that it has."""
        for edit in edits:
            edit.axis = tokens_axis(edit.address)
            self.layout.site(edit.address).plan_edit(self, edit)
            self.edits.append(edit)

    def watch(self, address: AddressLike) -> Site:
        """Keep the value at `address` of the run to come."""
        site = self.layout.site(address)
        if site.key not in self.sites:
            site.plan_watch(self)
            self.sites[site.key] = site
        return site

    def handler(self, path: str) -> Handler:
        """The handler of the module at `path` (one for each module object)."""
        module = self.layout.modules[path]
        if id(module) not in self.handlers:
            self.handlers[id(module)] = Handler(module, path)
        return self.handlers[id(module)]

    def attention_handler(self, path: str) -> Handler:
        """The same for an attention module whose inside is watched or edited."""
        self._attention = True
        return self.handler(path)

    def skip(self, path: str, value: Skip) -> None:
        """Do not make the calls of the module at `path`; answer ``value(call)`` instead.

        For a block that is the residual stream: what else such a block returns is None, since
        only blocks ask for it.
        """
        layer = self.layout.layer_of(path)
        others = self.layout.roles(layer).returns - 1 if layer is not None else 0
        if others:
            self.handler(path).changes.skip = lambda call: (value(call), *[None] * others)
        else:
            self.handler(path).changes.skip = value

    def _keep_everything(self) -> None:
        inputs = self.layout.inputs_of_points()
        for path, module in self.layout.modules.items():
            if id(module) not in self.handlers:
                self.handlers[id(module)] = Handler(module, path, id(module) in inputs, True)
        for path in self.layout.attention_paths():
            self.attention_handler(path).keep_points = frozenset(ATTENTION_POINTS)

    def execute(
        self,
        tokens: mx.array,
        *,
        cache: Any = None,
        lengths: Sequence[int] | None = None,
        span: Span | None = None,
    ) -> Any:
        """Run the model on (B, S) token ids; nothing is evaluated.

        Args:
            tokens: (B, S) integer ids.
            cache: mlx-lm's list of key/value caches, or None.
            lengths: Tokens of each row if the rows are padded on the right; edits of positions
                count in these.
            span: Which positions these tokens have, where that is not all; of one generation.

        Returns:
            What the model returns, the first of it if there are several things: logits (B, S, V).

        Raises:
            InputError: if a derived point needs the tokens that the cache holds.
        """
        share_stream()
        self._check_start(cache)
        if self.edits and span is None:
            span = _span(tokens, lengths, cached_tokens(cache))
            for edit in self.edits:
                edit.begin(span)
        modules = [h.module for h in self.handlers.values()]
        if cache is None and self.layout.adapter.needs_cache:
            from mlx_lm.models.cache import make_prompt_cache

            cache = make_prompt_cache(self.layout.root)
        more = {} if cache is None else {"cache": cache}
        root = self.layout.root
        if modules:
            output = instrumented(modules, self._attention, under, self, root, held(tokens), **more)
        else:
            output = under(self, root, held(tokens), **more)
        return output[0] if isinstance(output, (tuple, list)) else output

    def hold(self, function: Callable[[], None]) -> None:
        """Call `function` while the modules of this plan stay swapped: its passes save doing it."""
        modules = [h.module for h in self.handlers.values()]
        if modules:
            instrumented(modules, self._attention, function)
        else:
            function()

    def _check_start(self, cache: Any) -> None:
        if cache is None or (tells_tokens(cache) and not cached_tokens(cache)):
            return
        for address, record in self.derived.items():
            if record.needs_text is not None:
                raise InputError(
                    f"{address!r} needs the whole text in one pass: {record.needs_text}, and this "
                    "pass goes on from a cache. For generate(…), pass use_cache=False."
                )

    def call(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Call one module of the model under this run."""
        share_stream()
        modules = [h.module for h in self.handlers.values()]
        return instrumented(modules, self._attention, under, self, module, *args, **kwargs)

    def call_answered(
        self, path: str, answer: Any, module: nn.Module, *args: Any, **kwargs: Any
    ) -> Any:
        """Call one module in a run of its own, in which calls of `path` return `answer`."""
        inner = Run(self.layout)
        inner.skip(path, lambda _: answer)
        return inner.call(module, *args, **kwargs)

    def keeps(self, site: Site) -> bool:
        """Whether this run keeps what `site` reads; one of everything lacks some inputs."""
        if site.key in self.sites:
            return True
        if not self.everything:
            return False
        if isinstance(site, AttentionSite):
            return site.field in self.handler(site.path).keep_points
        return all(self.handler(path).keep_input for path in site.inputs)

    def read(self, address: AddressLike) -> Any:
        """The value kept at `address`: after the edits there, as the model went on with it."""
        return held(self.layout.site(address).read(self))

    def restart(self) -> None:
        """Let go of what the last pass kept, and be ready for another with the same plan."""
        for record in self.derived.values():
            record.restart()
        for handler in self.handlers.values():
            handler.count, handler.frames = 0, ()
            # In place: sites hold on to some of these.
            handler.calls.clear()
            handler.outputs.clear()
            if handler.made is not None:
                handler.made.shares.clear()
                handler.made.mixed.clear()

    def forget(self) -> None:
        """Let go of everything kept, so that evaluating the results holds nothing else."""
        self.handlers.clear()
        self.derived.clear()
        self.sites.clear()

    def settle(self, *results: Any) -> list[EditReport]:
        """Evaluate `results` and the edits' counts together, then check that every edit acted.

        Raises:
            EditNeverFired, EditChangedNothing: see `Edit.settle`.
        """
        evaluate(*results, *(a for edit in self.edits for a in edit.pending()))
        for edit in self.edits:
            edit.settle()
        return [edit.report() for edit in self.edits]

    def values(self) -> dict[str, Any]:
        """What was asked for, by canonical address.

        With `everything`, that is each call of each module, numbered where there were several,
        and each point that the run passed once, but for the large ones (`head_out`, `expert_out`).
        """
        found = {key: site.read(self) for key, site in self.sites.items()}
        if not self.everything:
            return found
        for path, module in self.layout.modules.items():
            name, outputs = self.layout.short(path) or "logits", self.handlers[id(module)].outputs
            if len(outputs) == 1:
                found[name] = outputs[0]
            else:
                found |= {f"{name}#{i}": out for i, out in enumerate(outputs)}
        for status in self.layout.statuses():
            if not status.available or status.point in LARGE_POINTS:
                continue
            site = self.layout.site(status.address)
            try:
                found[site.key] = site.read(self)
            except AddressError:  # not in this run, or in several calls: no one value to keep
                continue
        return found

    # The seams call these four.

    def on_call(
        self, module: nn.Module, original: Original, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        handler = self.handlers.get(id(module))
        if handler is None:
            return original(module, *args, **kwargs)
        index = handler.count
        handler.count = index + 1
        if handler.made is not None or handler.keep_input or handler.keep_points:
            call = Call(module, handler.path, args, kwargs, index)
            return self._on_watched_call(handler, call, original)
        # Nearly every call of a traced model comes this way, the short one.
        output = original(module, *args, **kwargs)
        if handler.keep_output:
            handler.outputs.append(held(output))
        return output

    def _on_watched_call(self, handler: Handler, call: Call, original: Original) -> Any:
        changes = handler.made or NO_CHANGES
        for before in changes.before:
            before(call)
        if handler.keep_input:
            handler.calls.append(call.held())
        if changes.skip is not None:
            output = changes.skip(call)
        elif handler.keep_points or changes.point_edits or changes.around:
            frame = Frame(call, changes.point_edits, handler.keep_points, changes.around)
            handler.frames = (*handler.frames, frame)
            self._frames.append(frame)
            try:
                output = original(handler.module, *call.args, **call.kwargs)
            finally:
                self._frames.pop()
        else:
            output = original(handler.module, *call.args, **call.kwargs)
        for after in changes.after:
            output = after(call, output)
        if handler.keep_output:
            handler.outputs.append(held(output))
        return output

    def on_fused_attention(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        if not self._frames:
            return original(*args, **kwargs)
        return self._frames[-1].fused(original, *args, **kwargs)

    def on_softmax(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        if not self._frames:
            return original(*args, **kwargs)
        return self._frames[-1].softmax(original, *args, **kwargs)

    def on_quantised_attention(self, original: Original, *args: Any, **kwargs: Any) -> Any:
        if not self._frames:
            return original(*args, **kwargs)
        return self._frames[-1].quantised(original, *args, **kwargs)


def _span(tokens: mx.array, lengths: Sequence[int] | None, before: int) -> Span:
    """What a single run covers, `before` tokens being in its cache."""
    rows, count = tokens.shape
    own = [count] * rows if lengths is None else lengths
    return Span(tuple(before + n for n in own), before, before + count)
