"""Writing on from a prompt, with edits and watched points at every step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import mlx.core as mx

from ..arrays import evaluate
from ..checks.arguments import checked, count
from ..errors import InputError, TokenizerMissing
from ..interventions import Interventions, as_pairs
from ..points.vocabulary import AddressLike
from ..run.wrapped import WrappedModel
from .chat import Message
from .prompts import Prompt, is_chat, prompt_ids
from .result import GenerationResult
from .sampling import Sampling
from .stream import Callback, Generation, GenerationStep, Options


@checked("prompt", "interventions", "stop_tokens", "watch")
def stream_generate(
    model: WrappedModel,
    prompt: Prompt,
    max_tokens: int = 50,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    interventions: Interventions | None = None,
    stop_tokens: Iterable[int] | None = None,
    callback: Callback | None = None,
    *,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    repetition_context: int = 20,
    seed: int | None = None,
    stop_strings: str | Sequence[str] = (),
    watch: AddressLike | Sequence[AddressLike] = (),
    prompt_cache: list[Any] | None = None,
    use_cache: bool = True,
    allow_unchanged: bool = False,
) -> Generation:
    """Write on from a prompt and hand over each step as it comes.

    ``for step in stream_generate(model, "Once"): print(step.text, end="")``; the arguments are
    those of `generate`.

    Returns:
        An iterator of `GenerationStep`. Nothing of earlier steps is held. After the last step it
        raises as `generate` does if an edit did nothing.
    """
    sampling = Sampling(
        temperature, top_k, top_p, min_p, repetition_penalty, repetition_context, seed
    )
    options = Options(
        max_tokens=max_tokens,
        sampling=sampling,
        interventions=as_pairs(interventions),
        stop_tokens=_ids(stop_tokens),
        stop_strings=stop_strings,
        callback=callback,
        watch=watch,
        prompt_cache=prompt_cache,
        use_cache=use_cache,
        allow_unchanged=allow_unchanged,
    )
    return Generation(model, prompt, options)


@checked("prompt", "interventions", "stop_tokens", "watch")
def generate(
    model: WrappedModel,
    prompt: Prompt,
    max_tokens: int = 50,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    interventions: Interventions | None = None,
    stop_tokens: Iterable[int] | None = None,
    callback: Callback | None = None,
    *,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    repetition_context: int = 20,
    seed: int | None = None,
    stop_strings: str | Sequence[str] = (),
    watch: AddressLike | Sequence[AddressLike] = (),
    keep_logits: bool = False,
    prompt_cache: list[Any] | None = None,
    use_cache: bool = True,
    allow_unchanged: bool = False,
) -> GenerationResult:
    """Write on from a prompt with mlx-lm's sampler and key/value cache.

    Edits see what a step runs: the prompt first, in pieces of at most 2048 tokens and its last
    token alone (as mlx-lm runs it), then one token at a time. `Where(…).edit(fn)` limits an edit
    to the prompt, to generated tokens, to positions or steps.

    Args:
        model: The model.
        prompt: Text, token ids, or a chat (a list of messages with ``role`` and ``content``).
        max_tokens: Most tokens to write.
        temperature: 0 takes the most probable token.
        top_k: Choose among the k most probable; 0 for all.
        top_p: Choose among the most probable that hold this share; 1 for all.
        interventions: Address → edit, or pairs (address, edit).
        stop_tokens: Ids that end the text, in place of all that the checkpoint and the tokenizer
            name; an empty list for none.
        callback: ``callback(step, token_id, logits)`` after each step, logits (V,); True stops.
        min_p: Choose among tokens with at least this share of the top one's probability.
        repetition_penalty: Makes recent tokens less likely if above 1.
        repetition_context: How many tokens count as recent.
        seed: Same seed, same tokens; None draws from MLX's global random state.
        stop_strings: Texts that end the text, even where they span tokens.
        watch: Address, or addresses, whose values to keep at each step.
        keep_logits: Keep the logits of each step.
        prompt_cache: mlx-lm's caches that hold what stands before the prompt; they are changed.
            Afterwards they hold the prompt and the generated tokens but the last, whatever ended
            the text: ``generate([result.tokens[-1], *more], prompt_cache=cache)`` goes on.
        use_cache: False runs all tokens again at each step; the same tokens, slower.
        allow_unchanged: Accept edits that change no number.

    Raises:
        InputError: for a prompt or an option that cannot be used.
        AddressError: for an address that the model does not have.
        EditError: if an edit returns the wrong thing, makes the logits not a number, never fires
            in the whole generation, or changes nothing.
        AnalysisError: if the logits are not numbers without any edit.
        TraceError: if modules of the model are replaced meanwhile, and there are edits or watched
            points.
    """
    steps = stream_generate(
        model,
        prompt,
        max_tokens,
        temperature,
        top_k,
        top_p,
        interventions,
        stop_tokens,
        callback,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        repetition_context=repetition_context,
        seed=seed,
        stop_strings=stop_strings,
        watch=watch,
        prompt_cache=prompt_cache,
        use_cache=use_cache,
        allow_unchanged=allow_unchanged,
    )
    return _collected(model, steps, keep_logits)


@checked("prompts", "interventions", "stop_tokens", "watch")
def generate_batch(
    model: WrappedModel,
    prompts: Sequence[Prompt] | mx.array,
    max_tokens: int = 50,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    interventions: Interventions | None = None,
    stop_tokens: Iterable[int] | None = None,
    callback: Callback | None = None,
    *,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    repetition_context: int = 20,
    seed: int | None = None,
    stop_strings: str | Sequence[str] = (),
    watch: AddressLike | Sequence[AddressLike] = (),
    keep_logits: bool = False,
    use_cache: bool = True,
    allow_unchanged: bool = False,
) -> list[GenerationResult]:
    """`generate` for each of several prompts, of any lengths.

    One after the other: each then gets, to the last bit, what it gets alone, an edit's positions
    are its own, and it ends when it is done.

    Args:
        model: The model.
        prompts: Texts, lists of ids, chats, or an array (B, S).
        seed: Row i is what ``generate(prompt, seed=seed + i)`` gives.

    The other arguments, and what is raised, are those of `generate`.
    """
    if isinstance(prompts, str) or is_chat(prompts):
        raise InputError("generate_batch() takes a list of prompts; for one, use generate().")
    rows = _prompts(model, prompts)
    if seed is not None:
        count(seed, "seed", least=0)
    stops = _ids(stop_tokens)
    return [
        generate(
            model,
            row,
            max_tokens,
            temperature,
            top_k,
            top_p,
            interventions,
            stops,
            callback,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            repetition_context=repetition_context,
            seed=None if seed is None else seed + index,
            stop_strings=stop_strings,
            watch=watch,
            keep_logits=keep_logits,
            use_cache=use_cache,
            allow_unchanged=allow_unchanged,
        )
        for index, row in enumerate(rows)
    ]


def _ids(stop_tokens: Any) -> frozenset[int] | None:
    try:
        return None if stop_tokens is None else frozenset(stop_tokens)
    except TypeError:
        raise InputError(f"stop_tokens is a list of token ids; got {stop_tokens!r}.") from None


def _prompts(model: WrappedModel, prompts: Any) -> list[list[int]]:
    """The ids of each prompt: all are looked at before the first one runs."""
    if hasattr(prompts, "tolist"):
        prompts = model.tokens.batch(prompts).rows()
    if not isinstance(prompts, Iterable):
        raise InputError(f"prompts are a list of them; got {type(prompts).__name__}.")
    rows = []
    for index, prompt in enumerate(prompts):
        try:
            rows.append(prompt_ids(model, prompt))
        except TokenizerMissing:
            raise
        except InputError as error:
            raise InputError(f"prompt {index}: {error}") from error
    if not rows:
        raise InputError("the list of prompts is empty.")
    return rows


def _collected(model: WrappedModel, steps: Generation, keep_logits: bool) -> GenerationResult:
    begun = time.perf_counter()
    texts: list[str] = []
    reasons: list[str] = []
    tokens: list[int] = []
    logprobs: list[float] = []
    logits: list[mx.array] = []
    activations: dict[str, list[Any]] = {}

    def take(step: GenerationStep) -> None:
        texts.append(step.text)
        tokens.append(step.token)
        logprobs.append(step.logprob)
        if step.finish_reason:
            reasons.append(step.finish_reason)
        if keep_logits:
            logits.append(step.logits)
        for key, value in step.activations.items():
            activations.setdefault(key, []).append(value)

    steps.each(take)
    readable = model.tokenizer is not None
    result = GenerationResult(
        text="".join(texts),
        tokens=tokens,
        logprobs=logprobs,
        finish_reason=reasons[-1] if reasons else "length",
        prompt=model.decode(steps.prompt_tokens) if readable else "",
        prompt_tokens=steps.prompt_tokens,
        pieces=[model.token_to_str(token) for token in tokens] if readable else [],
        token_logits=mx.stack(logits) if logits else None,
        activations=activations,
        edits=steps.edits,
    )
    evaluate(result.token_logits)
    result.metadata = {
        "model": model.name,
        "max_tokens": steps.options.max_tokens,
        "sampling": steps.options.sampling,
        "seconds": round(time.perf_counter() - begun, 4),
    }
    return result


__all__ = ["Interventions", "Message", "Prompt", "generate", "generate_batch", "stream_generate"]
