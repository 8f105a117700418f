"""Choosing the next token: mlx-lm's sampler and penalties, with random numbers of one's own."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ..arrays import held
from ..checks.arguments import count
from ..errors import InputError
from ..run.trace import random_from


@dataclass(frozen=True)
class Choice:
    """A token chosen from logits; lazy.

    Attributes:
        token: (1,) id.
        logprob: (1,) natural logarithm of its probability, before penalties and temperature.
        total: Logarithm of the sum that made probabilities of logits; finite if they are sound.
    """

    token: mx.array
    logprob: mx.array
    total: mx.array


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the most probable token.
        top_k: Only the k most probable; 0 for all.
        top_p: Only the most probable ones that hold this share (nucleus; Holtzman et al. 2020).
        min_p: Only those with this share of the top token's probability (Nguyen et al. 2024).
        repetition_penalty: Divides positive logits of recent tokens, multiplies negative ones
            (Keskar et al. 2019); None for none.
        repetition_context: How many recent tokens, the prompt's included.
        seed: Same seed, same tokens, whatever else draws random numbers. None draws from MLX's
            global state, as mlx-lm does.

    Raises:
        InputError: if a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float | None = None
    repetition_context: int = 20
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, "at least 0", lambda x: x >= 0)
        _check("top_p", self.top_p, "above 0 and at most 1", lambda x: 0 < x <= 1)
        _check("min_p", self.min_p, "from 0 to 1", lambda x: 0 <= x <= 1)
        count(self.top_k, "top_k", least=0)
        count(self.repetition_context, "repetition_context", least=1)
        if self.repetition_penalty is not None:
            _check("repetition_penalty", self.repetition_penalty, "above 0", lambda x: x > 0)
        if self.seed is not None:
            count(self.seed, "seed", least=0)


def _check(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not holds(value):
        raise InputError(f"{name} is a number {allowed}; got {value!r}.")


class Chooser:
    """Chooses token after token of one generation."""

    def __init__(self, sampling: Sampling, ids: list[int]) -> None:
        from mlx_lm.sample_utils import make_logits_processors

        self._sampling = sampling
        self._sampler: Callable[[mx.array], mx.array] | None = None
        self._seeds = None if sampling.seed is None else random.Random(sampling.seed)
        self._penalties = make_logits_processors(
            repetition_penalty=sampling.repetition_penalty,
            repetition_context_size=sampling.repetition_context,
        )
        self._recent = mx.array(ids)

    def __call__(self, logits: mx.array, before: mx.array | None) -> Choice:
        """Choose from logits (1, V); `before` is the token chosen last, (1,), or None."""
        total = mx.logsumexp(logits, keepdims=True)
        logprobs = own = logits - total
        if self._penalties:
            if before is not None:
                kept = self._recent[-self._sampling.repetition_context :]
                self._recent = mx.concatenate([kept, before.astype(kept.dtype)])
            scores = held(logits)
            for penalty in self._penalties:
                scores = penalty(self._recent, scores)
            logprobs = scores - mx.logsumexp(scores, keepdims=True)
        token = self._sample(logprobs)
        return Choice(token, own[0][token], total)

    def _sample(self, logprobs: mx.array) -> mx.array:
        if self._sampler is None:
            self._sampler = self._make(logprobs.shape[-1])
        if self._sampling.temperature == 0:
            return self._sampler(logprobs)
        with random_from(None if self._seeds is None else self._seeds.getrandbits(64)):
            return self._sampler(logprobs)

    def _make(self, vocabulary: int) -> Callable[[mx.array], mx.array]:
        from mlx_lm.sample_utils import make_sampler

        s = self._sampling
        made: Callable[[mx.array], mx.array] = make_sampler(
            temp=s.temperature,
            top_p=s.top_p,
            min_p=s.min_p,
            top_k=s.top_k if s.top_k < vocabulary else 0,
        )
        return made
