"""The forward passes of a generation: the prompt, then a token at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..arrays import arrays_of, evaluate
from ..errors import InputError, TraceError
from ..points.vocabulary import AddressLike, head_of, parse, tokens_axis
from ..run.run import Run
from ..run.wrapped import WrappedModel
from ..seams.instrument import own_class
from ..seams.positions import Span, cached_tokens, tells_tokens
from .edits import CountedEdit, Tally

#: Most tokens of a prompt in one pass, as in mlx-lm.
PIECE = 2048


@dataclass(frozen=True)
class Pass:
    """What a step's pass gave; lazy.

    Attributes:
        logits: (V,) at the last token.
        activations: What is watched, at the tokens that are new in this step.
        tallies: What each edit did up to here.
    """

    logits: mx.array
    activations: dict[str, Any]
    tallies: tuple[Tally, ...]

    def arrays(self) -> list[mx.array]:
        """Everything but the logits."""
        counted = [array for tally in self.tallies for array in tally.arrays()]
        return arrays_of(list(self.activations.values())) + counted if self.activations else counted


class Passes:
    """Runs a prompt and what follows it, with edits and watched points in every pass.

    Args:
        model: The model.
        ids: The prompt.
        interventions: Pairs (address, function or `LimitedEdit`).
        watch: Addresses to keep.
        cache: mlx-lm's caches to continue from; they are changed. None makes new ones.
        use_cache: False runs all tokens again at every step.
        allow_unchanged: Accept edits that change no number.

    Raises:
        InputError: if the model takes no cache, or another number of them.
    """

    def __init__(
        self,
        model: WrappedModel,
        ids: Sequence[int],
        *,
        interventions: Iterable[tuple[AddressLike, Callable[..., Any]]],
        watch: Sequence[AddressLike],
        cache: list[Any] | None,
        use_cache: bool,
        allow_unchanged: bool,
    ) -> None:
        self.cache = _cache(model, cache, use_cache)
        self._given = cache is not None
        before = cached_tokens(self.cache)
        self.span = Span(
            (before + len(ids),), before, before, generating=True, counted=tells_tokens(self.cache)
        )
        site = model.layout.site
        self.edits = [
            CountedEdit(site(a).key, fn, allow_unchanged=allow_unchanged) for a, fn in interventions
        ]
        self._run = Run(model.layout, edits=self.edits, watch=watch)
        self._version = self._run.layout.version
        for edit in self.edits:
            edit.begin(self.span)
        self._before = before
        self._ids = mx.array(list(ids))
        self._seen: mx.array | None = None

    def prompt(self) -> Pass:
        """The prompt's pass. All but its last token is evaluated, in pieces, when it returns."""
        parts = []
        last = 0 if self.cache is None else self._ids.size - 1
        for start in range(0, last, PIECE):
            part = self._pass(self._ids[start : min(start + PIECE, last)])
            evaluate([c.state for c in self.cache or ()], part.arrays())
            parts.append(part)
            mx.clear_cache()
        final = self._pass(self._ids[last:])
        if not parts or not final.activations:
            return final
        values = {
            key: _joined(key, [p.activations[key] for p in parts], value, self._before)
            for key, value in final.activations.items()
        }
        return Pass(final.logits, values, final.tallies)

    def hold(self, function: Callable[[], None]) -> None:
        """Call `function`, whose passes find the modules that they watch swapped already."""
        self._run.hold(function)

    def finite_without_edits(self) -> bool:
        """Whether the prompt gets finite logits with no edit in force; a run of its own."""
        logits: mx.array = Run(self._run.layout).execute(self._ids[None])
        return bool(mx.all(mx.isfinite(mx.logsumexp(logits[:, -1], axis=-1))).item())

    def token(self, token: mx.array) -> Pass:
        """The pass of one more token, (1,)."""
        return self._pass(token)

    @property
    def can_rewind(self) -> bool:
        """Whether a pass that turns out to be too many leaves no trace in the caller's cache."""
        return not self._given or all(_is_plain(each) for each in self.cache)

    def rewind(self, generated: int | None) -> None:
        """Leave in the caller's cache the prompt and so many generated tokens.

        None takes the prompt out as well: its pass was broken off.
        """
        if not self._given:
            return
        prompt = self.span.prompts[0]
        wanted = self._before if generated is None else prompt + generated
        for each in self.cache:
            if _is_plain(each) and each.offset > wanted:
                each.trim(each.offset - wanted)

    def _pass(self, tokens: mx.array) -> Pass:
        new = tokens.size
        # Edits and watched points are those of the modules that the generation began with.
        if self._run.handlers and self._run.layout.current().version != self._version:
            raise TraceError(
                "modules of the model were replaced during this generation: its edits and watched "
                "points are not in the new ones. Start another generation."
            )
        if self.cache is None:
            seen = self._seen
            tokens = tokens if seen is None else mx.concatenate([seen, tokens.astype(seen.dtype)])
            self._seen = tokens
            self.span.start, self.span.end = 0, tokens.size
        else:
            self.span.start, self.span.end = self.span.end, self.span.end + new
        self._run.restart()
        logits = self._run.execute(tokens[None], cache=self.cache, span=self.span)
        kept = self._run.values()
        if self.cache is None:
            kept = {key: _last(key, value, new) for key, value in kept.items()}
        return Pass(logits[0, -1], kept, tuple(edit.tally() for edit in self.edits))


def _cache(model: WrappedModel, cache: list[Any] | None, use_cache: bool) -> Any:
    if not use_cache:
        if cache is not None:
            raise InputError("use_cache=False runs every token again; it takes no prompt_cache.")
        return None
    root = model.model
    parameters = inspect.signature(own_class(root).__call__).parameters
    makes = hasattr(root, "make_cache") or hasattr(root, "layers")
    if "cache" not in parameters or not (makes or cache is not None):
        raise InputError(
            f"{type(root).__name__} does not take mlx-lm's cache. Pass use_cache=False: every "
            "step then runs all tokens again."
        )
    from mlx_lm.models.cache import make_prompt_cache

    if cache is None:
        return make_prompt_cache(root)
    # Models go through layers and caches together, as far as the shorter list.
    if makes and len(cache) != (wanted := len(make_prompt_cache(root))):
        raise InputError(
            f"prompt_cache has {len(cache)} caches, and this model takes {wanted}: make them "
            "with mlx_lm.models.cache.make_prompt_cache(model.model)."
        )
    return cache


def _point(key: str) -> str:
    """The point of an address, of one head's too."""
    name = parse(key).name
    return (head_of(name) or (name,))[0]


def _is_plain(cache: Any) -> bool:
    """Whether tokens can be taken out of one layer's cache again, however many it holds."""
    from mlx_lm.models.cache import KVCache, QuantizedKVCache

    return type(cache) in (KVCache, QuantizedKVCache)


def _last(key: str, value: Any, new: int) -> Any:
    """The last `new` tokens of a value; all keys and values, as a cache gives them."""
    if not isinstance(value, mx.array) or _point(key) in ("k", "v"):
        return value
    axis = tokens_axis(key)
    if value.ndim <= axis or value.shape[axis] < new:
        return value
    start = value.shape[axis] - new
    return value[(slice(None),) * axis + (slice(start, None),)]


def _joined(key: str, parts: list[Any], final: Any, before: int) -> Any:
    """The pieces of the prompt as one value, after `before` tokens in the cache.

    Raises:
        InputError: if they do not fit together.
    """
    name, axis = _point(key), tokens_axis(key)
    values = [*parts, final]
    if name in ("k", "v") and final.shape[axis] > 1:
        return final  # the cache's, of all positions
    if name in ("scores", "pattern"):
        lengths = [v.shape[-1] for v in values]
        rows = [v.shape[axis] for v in values]
        if lengths[-1] != before + sum(rows):
            raise InputError(
                f"{key!r} cannot be watched here: the layer sees a window of {lengths[-1]} "
                f"positions, shorter than the prompt of {before + sum(rows)}. Watch it in a "
                "single run."
            )
        masked = 0.0 if name == "pattern" else -mx.inf
        values = [
            mx.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, lengths[-1] - n)], constant_values=masked)
            for v, n in zip(values, lengths, strict=True)
        ]
    if not all(isinstance(v, mx.array) and v.ndim > axis for v in values):
        raise InputError(
            f"{key!r} cannot be watched in a generation: it is {type(final).__name__}, not one "
            "array with tokens on its second axis. Watch a point."
        )
    return mx.concatenate(values, axis=axis)
