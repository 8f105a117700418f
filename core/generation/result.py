"""What a model wrote, and what was watched while it did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from ..display import counted
from ..errors import AddressError, nearest
from ..points.attached import same_value
from ..points.vocabulary import AddressLike
from ..results.base import AnalysisResult
from ..seams.edits import EditReport


@dataclass
class GenerationResult(AnalysisResult):
    """One continuation.

    Step n gives token n. Step 0 runs the prompt, each later step the token before it, so what
    is watched covers the prompt in step 0 and one token in each later step.

    Attributes:
        text: The continuation, whole characters only, without the stop token or stop string.
            Empty for a model without a tokenizer.
        tokens: Ids of the continuation; the last one may be a stop token, or part of a stop string.
        logprobs: Natural logarithm of each token's probability under the model's own (edited)
            logits, before penalties and temperature.
        finish_reason: ``"stop"`` (a stop token or string), ``"length"`` (`max_tokens`),
            ``"context"`` (the model has no more positions) or ``"callback"``.
        prompt: The prompt as text, as the model received it; empty without a tokenizer.
        prompt_tokens: Its ids.
        pieces: Each token of the continuation as text.
        token_logits: (n, V), the logits of each step before penalties; None unless asked for.
        activations: Canonical address → one value for each step.
        edits: What each edit did over all steps.
    """

    result_type: ClassVar[str] = "generation"

    text: str
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str
    prompt: str
    prompt_tokens: list[int]
    pieces: list[str] = field(default_factory=list)
    token_logits: mx.array | None = None
    activations: dict[str, list[Any]] = field(default_factory=dict)
    edits: list[EditReport] = field(default_factory=list)

    def activation(self, address: AddressLike, step: int) -> Any:
        """What was watched at `address` in one step; negative steps count from the end.

        Raises:
            AddressError: if it was not watched, or there is no such step.
        """
        key = address if isinstance(address, str) else f"layers.{address[1]}.{address[0]}"
        if key not in self.activations:
            kept = same_value(address, self.activations)
            if kept is None:
                raise AddressError(f"{key!r} was not watched. {nearest(key, self.activations)}")
            key = kept
        count = len(self.tokens)
        if not -count <= step < count:
            raise AddressError(f"there is no step {step}: the generation has {count}.")
        return self.activations[key][step]

    @property
    def mean_logprob(self) -> float:
        """Mean of `logprobs`, in nats per token."""
        return math.fsum(self.logprobs) / len(self.logprobs)

    def summary(self) -> str:
        count = counted(len(self.tokens), "token")
        shown = repr(self.text if len(self.text) <= 60 else self.text[:59] + "…")
        return f"{shown} ({count}, {self.finish_reason}, {self.mean_logprob:.3f} nats per token)"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Step by step: the token and its probability."""
        table = [
            [step, token, self.pieces[step] if self.pieces else "", f"{math.exp(logprob):.1%}"]
            for step, (token, logprob) in enumerate(zip(self.tokens, self.logprobs, strict=True))
        ]
        return ["step", "id", "token", "probability"], table
