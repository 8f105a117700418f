"""The loop of a generation: each step's pass, choice of a token, and reasons to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import proxy

import mlx.core as mx

from ..arrays import number, start_evaluating
from ..checks.arguments import count
from ..errors import AnalysisError, EditError, InputError
from ..loading.stops import tokenizer_stops
from ..points.vocabulary import AddressLike, addresses
from ..run.wrapped import WrappedModel
from ..seams.edits import EditReport
from ..seams.positions import cached_tokens
from .passes import Pass, Passes
from .prompts import Prompt, prompt_ids
from .sampling import Choice, Chooser, Sampling
from .text import TextStream, stop_list

#: ``callback(step, token_id, logits)``, logits (V,); True ends the generation.
Callback = Callable[[int, int, mx.array], Any]

#: Steps after which MLX's unused buffers are given back, as mlx-lm does.
TIDY = 256


@dataclass(frozen=True)
class Options:
    """What a generation is asked to do; see `generate`."""

    max_tokens: int
    sampling: Sampling
    interventions: tuple[tuple[AddressLike, Callable[..., Any]], ...]
    stop_tokens: frozenset[int] | None
    stop_strings: str | Sequence[str]
    callback: Callback | None
    watch: AddressLike | Sequence[AddressLike]
    prompt_cache: list[Any] | None
    use_cache: bool
    allow_unchanged: bool


@dataclass(frozen=True)
class GenerationStep:
    """One step of a generation.

    Attributes:
        index: 0 for the first.
        token: Id of the token that the step gave.
        text: What became certain of the text: whole characters, possibly none.
        logprob: Natural logarithm of the token's probability, before penalties and temperature.
        logits: (V,), before penalties.
        activations: Canonical address → value; of the whole prompt in step 0, then of one token.
        finish_reason: In the last step, why it is the last: see `GenerationResult`.
    """

    index: int
    token: int
    text: str
    logprob: float
    logits: mx.array
    activations: dict[str, Any]
    finish_reason: str | None = None


class Generation(Iterator[GenerationStep]):
    """A generation under way: an iterator of its steps.

    Attributes:
        prompt_tokens: Ids of the prompt.
        options: What was asked for.
        edits: What each edit did; after the last step.
    """

    def __init__(self, model: WrappedModel, prompt: Prompt, options: Options) -> None:
        count(options.max_tokens, "max_tokens", least=1)
        self.options = options
        self.edits: list[EditReport] = []
        self.prompt_tokens = prompt_ids(model, prompt)
        caches = options.prompt_cache
        if caches is not None and not (caches and all(hasattr(c, "state") for c in caches)):
            raise InputError(
                "prompt_cache is mlx-lm's list of caches, one for each layer: make it with "
                "mlx_lm.models.cache.make_prompt_cache(model.model)."
            )
        watch = addresses(options.watch)
        self._passes = Passes(
            model,
            self.prompt_tokens,
            interventions=options.interventions,
            watch=watch,
            cache=options.prompt_cache,
            use_cache=options.use_cache,
            allow_unchanged=options.allow_unchanged,
        )
        self._room = _room(model, self.prompt_tokens, options.prompt_cache)
        self._stop_tokens = _stop_tokens(model, options.stop_tokens)
        stops = stop_list(options.stop_strings)
        self._text = TextStream(model.tokens, stops, self.prompt_tokens)
        self._choose = Chooser(options.sampling, self.prompt_tokens)
        # Weak, or the two would hold each other, and with them the model, in a cycle.
        self._steps = type(self)._iterate(proxy(self))

    def __next__(self) -> GenerationStep:
        return next(self._steps)

    def each(self, take: Callable[[GenerationStep], object]) -> None:
        """Give every step to `take`, which is none of the user's own code."""

        def steps() -> None:
            for step in self:
                take(step)

        if self.options.callback is None:
            self._passes.hold(steps)
        else:  # the callback finds the model as it is outside of runs
            steps()

    def close(self) -> None:
        """Stop here, and let go of the cache."""
        self._steps.close()

    def _iterate(self) -> Generator[GenerationStep, None, None]:
        limit = self.options.max_tokens
        if self._room is not None:
            limit = min(limit, self._room)
        # A callback may change what edits do, so the next pass waits for it.
        passes = self._passes  # held: a stream that is dropped is gone when this ends
        ahead = self.options.callback is None and passes.can_rewind
        given = None
        try:
            done, choice = self._launch(passes.prompt(), None)
            for index in range(limit):
                given, following = index, None
                if ahead and index + 1 < limit:
                    following = self._next(choice)
                step = self._step(index, done, choice, last=index + 1 == limit)
                yield step
                if step.finish_reason:
                    break
                done, choice = following or self._next(choice)
                if index % TIDY == TIDY - 1:
                    mx.clear_cache()
        finally:
            passes.rewind(given)
        edits = passes.edits
        for edit, tally in zip(edits, done.tallies, strict=True):
            edit.close(tally)
        self.edits = [edit.report() for edit in edits]

    def _next(self, choice: Choice) -> tuple[Pass, Choice]:
        return self._launch(self._passes.token(choice.token), choice.token)

    def _launch(self, made: Pass, before: mx.array | None) -> tuple[Pass, Choice]:
        """Choose a token, and let MLX begin to compute it and all that is kept of the step."""
        choice = self._choose(made.logits[None], before)
        start_evaluating(choice.token, choice.logprob, made.logits, *made.arrays())
        return made, choice

    def _step(self, index: int, done: Pass, choice: Choice, *, last: bool) -> GenerationStep:
        token, logprob = int(number(choice.token)), number(choice.logprob)
        if not math.isfinite(logprob) and not math.isfinite(number(choice.total)):
            self._refuse(index)
        logits = done.logits
        if self._passes.edits and _alike(logits, logprob):
            self._refuse(index, "are all the same, so that no token is likelier than another")
        reason = None
        if token in self._stop_tokens:
            text, reason = "", "stop"
        else:
            text, stopped = self._text.add(token)
            reason = "stop" if stopped else None
        callback = self.options.callback
        if callback is not None and callback(index, token, logits) and reason is None:
            reason = "callback"
        if reason is None and last:
            reason = "length" if index + 1 == self.options.max_tokens else "context"
        if reason is not None:
            rest, stopped = self._text.finish()
            text, reason = text + rest, "stop" if stopped else reason
        return GenerationStep(index, token, text, logprob, logits, done.activations, reason)

    def _refuse(self, index: int, what: str = "are not finite numbers") -> None:
        where = f"the logits of step {index} {what}"
        if self._passes.edits:
            if not self._passes.finite_without_edits():
                raise AnalysisError(
                    f"{where}, and so they are without the edits: the model's weights, or its "
                    "dtype, give no finite logits for this prompt."
                )
            named = "; ".join(edit.named for edit in self._passes.edits)
            raise EditError(f"{where}: an edit is too strong for the model ({named}). Weaken it.")
        raise AnalysisError(
            f"{where}, without any edit: the model's weights or dtype are at fault."
        )


def _alike(logits: mx.array, logprob: float) -> bool:
    """Whether all logits are one number, as behind a norm of what is too large for its dtype."""
    if logits.size == 1 or abs(logprob + math.log(logits.size)) > 0.1:
        return False  # known without the logits at nearly every step; half precision rounds much
    return number(mx.max(logits)) == number(mx.min(logits))


def _room(model: WrappedModel, ids: list[int], cache: list[Any] | None) -> int | None:
    """Tokens that can be written: the last one needs no position of its own."""
    context = model.context
    if context is None:
        return None
    room = context - cached_tokens(cache) - len(ids) + 1
    if room < 1:
        raise InputError(
            f"the prompt has {len(ids)} tokens after {cached_tokens(cache)} in the cache; this "
            f"model's context is {context}."
        )
    return room


def _stop_tokens(model: WrappedModel, asked: frozenset[int] | None) -> frozenset[int]:
    if asked is not None:
        return frozenset(count(token, "a stop token", least=0) for token in asked)
    return tokenizer_stops(model.tokenizer)
