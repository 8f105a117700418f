"""The rest of a conversation run again, from where a change is first met.

In a causal model nothing before that place can differ, so the keys and values of what stands
before are taken from one run of the whole, as mlx-lm's prompt cache holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Edit

from ..patching.reuse import PrefixCache, Prefixes, reusable
from .question import Question

#: Most tokens before the answer in one pass: edited scores are explicit, tokens × positions.
PIECE = 512


class Rest:
    """Runs of one question from any position on.

    Args:
        model: The model.
        question: The conversation and its answer.
    """

    def __init__(self, model: InterpretableModel, question: Question) -> None:
        self.model = model
        self.question = question
        self._prefixes: Prefixes | None = None

    @property
    def cached(self) -> bool:
        """Whether of what it has read the model keeps a plain cache for each layer, no more."""
        return reusable(self.model.layout, "resid_post")

    def reader(self, wanted: int) -> int:
        """The first position that meets a change: at the latest where the answer is begun."""
        return min(wanted, self.question.first)

    def caches(self, length: int) -> list[PrefixCache]:
        """Keys and values of the first `length` positions, a cache for each layer.

        Raises:
            InputError: if the model keeps something else than these.
        """
        if not self.cached:
            raise InputError(
                f"{self.model.name} does not keep one plain cache of keys and values for each "
                "layer, so a turn's cannot be exchanged."
            )
        if self._prefixes is None:
            self._prefixes = Prefixes(self.model.layout, self.question.ids)
        return self._prefixes.caches(length)

    def logits(
        self,
        reader: int,
        edits: Sequence[Edit] = (),
        caches: Sequence[PrefixCache] | None = None,
    ) -> mx.array:
        """Logits (n, V) that give the answer's tokens, evaluated.

        Args:
            reader: The first position to run; those before are as in the whole.
            edits: In force from there on.
            caches: What stands before, if not as it is.
        """
        if caches is None and self.cached:
            caches = self.caches(reader)
        ids, positions = self.question.ids, self.question.positions
        run = Run(self.model.layout, edits=list(edits))
        if caches is None:
            found = execute_at(run, ids, positions)[0]
        else:
            # The answer in one piece, whatever is before it in pieces that bound the memory.
            start, last = reader, self.question.first
            full = [_writable(cache) for cache in caches]
            while last - start > PIECE:
                run.execute(ids[:, start : start + PIECE], cache=full)
                mx.eval([cache.state[:2] for cache in full])
                run.restart()
                start += PIECE
            found = execute_at(run, ids[:, start:], [p - start for p in positions], full)[0]
        mx.eval(found)
        return found

    def write(
        self,
        reader: int,
        count: int,
        interventions: dict[str, Any] | None = None,
        caches: Sequence[PrefixCache] | None = None,
    ) -> str:
        """What the model writes, most likely tokens first, at most `count` of them.

        Arguments as in `logits`.
        """
        ids = list(self.question.dialogue.ids)
        if caches is None and self.cached:
            caches = self.caches(reader)
        options: dict[str, Any] = {"interventions": interventions, "allow_unchanged": True}
        if caches is None:
            options["use_cache"] = False
        else:
            ids = ids[reader:]
            options["prompt_cache"] = [_writable(cache) for cache in caches]
        return str(self.model.generate(ids, max_tokens=count, **options).text)


def _writable(cache: PrefixCache) -> Any:
    """mlx-lm's own cache with the same content: it keeps every position, windows or not."""
    from mlx_lm.models.cache import KVCache

    made = KVCache()
    if cache.offset:
        made.update_and_fetch(cache.keys, cache.values)
    return made
