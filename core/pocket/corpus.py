"""Packs the generators' documents into rows of tokens; a batch is a function of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .tasks import TASKS, induction, lists, prose
from .tasks.example import NOISE, Segment
from .tokenizer import BOS, SPECIAL

REPEATED = 1.0
"""Loss weight of the tokens that repeat an earlier random sequence."""

ECHO = 0.06
"""Chance that a row repeats one of its own documents."""

Weighted = tuple[list[int], list[float]]
"""Token ids of a document and the loss weight of each."""


@dataclass(frozen=True)
class Batch:
    """``rows`` of ``length`` inputs and the positions whose next token counts in the loss.

    ``tokens`` (rows, length + 1); ``positions`` (rows, counted) index the inputs of each row;
    ``weights`` (rows, counted) are the loss weights there, zero for padding.
    """

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def size(self) -> int:
        """How many input tokens the batch has."""
        rows, length = self.tokens.shape
        return int(rows * (length - 1))


class Corpus:
    """Endless training text. The same seed and step give the same batch on every machine."""

    def __init__(self, tokenizer: Tokenizer, seed: int = 0) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        vocabulary = tokenizer.get_vocab()
        self.bos = vocabulary[BOS]
        hidden = {vocabulary[f"Ġ{word}"] for word in induction.word_pool("held_out")}
        hidden |= {vocabulary[token] for token in SPECIAL}
        self.random_pool = [index for index in range(len(vocabulary)) if index not in hidden]
        self._draws: list[Callable[[Random], list[Segment]]] = [
            task.training_document for name, task in TASKS.items() if name != "induction"
        ]
        shares = [task.share for name, task in TASKS.items() if name != "induction"]
        self._draws += [prose.document, lists.document]
        shares += [prose.SHARE, lists.SHARE]
        self._induction_share = TASKS["induction"].share
        self._kind_weights = self._document_weights(shares)
        self._cache: dict[str, list[int]] = {}

    def _document_weights(self, shares: list[float]) -> list[float]:
        """Weights of each kind of document, from shares of tokens and measured mean lengths."""
        rng = Random("lengths")
        weights = []
        for draw, share in zip(self._draws, shares, strict=True):
            lengths = [
                len(self.tokenizer.encode("".join(t for t, _ in draw(rng))).ids) for _ in range(64)
            ]
            weights.append(share / (sum(lengths) / len(lengths)))
        mean = 45.0  # of a repeated sequence
        weights.append(self._induction_share / mean)
        return weights

    def _encode(self, text: str) -> list[int]:
        known = self._cache.get(text)
        if known is None:
            known = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(text) < 24:
                self._cache[text] = known
        return known

    def _document(self, rng: Random, first: bool) -> Weighted:
        kind = rng.choices(range(len(self._kind_weights)), weights=self._kind_weights)[0]
        if kind == len(self._draws):
            return self.repeated(rng, rng.randint(8, 90))
        segments = self._draws[kind](rng)
        if not first and not segments[0][0].startswith("<|"):
            text, weight = segments[0]
            segments[0] = (("\n" if rng.random() < 0.7 else " ") + text, weight)
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in segments:
            part = self._encode(text)
            ids += part
            weights += [weight] * len(part)
        return ids, weights

    def repeated(self, rng: Random, length: int) -> Weighted:
        """``length`` tokens: a random block again and again, sometimes with other tokens between.

        Drawn from all tokens but the held-out words; blocks of the held-out lengths do not occur.
        """
        longest = max(4, min(induction.MAX_LENGTH, length // 2))
        block = rng.randint(3, longest)
        while block in induction.HELD_OUT_LENGTHS:
            block = rng.randint(3, longest)
        chosen = rng.choices(self.random_pool, k=block)
        gap = rng.choice((0, 0, 0, rng.randint(1, 12)))
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < length:
            again = bool(ids)
            ids += chosen
            weights += [NOISE] + [REPEATED if again else NOISE] * (block - 1)
            if again and gap == 0:
                weights[-block] = REPEATED * (len(ids) > 2 * block)
            ids += rng.choices(self.random_pool, k=gap)
            weights += [NOISE] * gap
        return ids[:length], weights[:length]

    def row(self, rng: Random, length: int) -> Weighted:
        """``length`` tokens that start with ``<|bos|>``: documents one after another."""
        ids, weights = [self.bos], [NOISE]
        earlier: list[list[int]] = []
        while len(ids) < length:
            if earlier and rng.random() < ECHO:
                more = rng.choice(earlier)
                more_weights = [NOISE] * 2 + [REPEATED / 2] * (len(more) - 2)
            else:
                more, more_weights = self._document(rng, first=len(ids) == 1)
                earlier.append(more)
            if len(ids) + len(more) > length and len(ids) > length * 3 // 4:
                more, more_weights = self.repeated(rng, length - len(ids))
            ids += more
            weights += more_weights
        return ids[:length], weights[:length]

    def batch(self, step: int, rows: int, length: int, counted: int) -> Batch:
        """The batch of a step, with ``counted`` positions of each row in the loss.

        Answers count always; other words are a random choice, which spares most of the head's work.
        """
        rng = Random(f"{self.seed}/{step}")
        tokens = np.zeros((rows, length + 1), np.int32)
        weights = np.zeros((rows, length + 1), np.float32)
        for index in range(rows):
            tokens[index], weights[index] = self.row(rng, length + 1)
        targets = weights[:, 1:]
        noise = np.random.default_rng((self.seed, step)).random(targets.shape)
        rank = np.where(targets >= REPEATED, 2.0, np.where(targets > 0, 1.0, 0.0)) + noise
        positions = np.sort(np.argsort(-rank, axis=1, kind="stable")[:, :counted], axis=1)
        chosen = np.take_along_axis(targets, positions, axis=1)
        return Batch(tokens, positions.astype(np.int32), chosen)
