"""A wrapped model: the module, its tokens and its layout, which every run needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..checks.arguments import checked
from ..errors import InputError
from ..interventions import Interventions, as_pairs
from ..loading.context import context_of
from ..loading.load import evaluate_parameters
from ..points.adapter import Adapter
from ..points.layout import Layout
from ..points.status import PointStatus
from ..points.vocabulary import AddressLike, addresses
from ..seams.edits import Edit
from ..tokens import Tokens
from .sizes import Sizes


class WrappedModel:
    """A module with its tokenizer and its layout: what runs, traces and generation work on.

    Args:
        model: The module that maps token ids to logits; its parameters are evaluated.
        tokenizer: Any object with ``encode`` and ``decode``, or None.
        adapter: The roles in use, or a function that chooses them.
        name: Shown to people.

    Attributes:
        model, tokenizer, name: As given.
        resolved: The layout as of the last look at the modules; `layout` looks whether they are
            still the same.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Adapter | Callable[[], Adapter],
        name: str,
    ) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.resolved = Layout(model, adapter)
        self._version = 0
        self._follow()

    @property
    def layout(self) -> Layout:
        """Resolves addresses; as if wrapped just now, whatever modules were replaced since.

        Raises:
            AdapterError: if the model can no longer be understood.
        """
        layout = self.resolved.current()
        if layout.version != self._version:
            self._follow()
        return layout

    def _follow(self) -> None:
        layout, adapter = self.resolved, self.resolved.adapter
        evaluate_parameters(self.model)
        table = layout.rows(adapter.positions)
        self._tokens = Tokens(self.tokenizer, layout.rows(adapter.embed), table)
        self._context = context_of(self.model, table)
        self._version = layout.version

    @property
    def adapter(self) -> Adapter:
        """The roles in use."""
        return self.layout.adapter

    @property
    def tokens(self) -> Tokens:
        """From text to token ids and back."""
        _ = self.layout
        return self._tokens

    @property
    def context(self) -> int | None:
        """Most tokens that it has positions for or was trained on; None if it does not tell."""
        _ = self.layout
        return self._context

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens added once; every method encodes this way."""
        return self._tokens.encode(text)

    @checked()
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Sequence[int] | mx.array) -> str:
        """Text of token ids."""
        return self._tokens.decode(tokens)

    @checked()
    def token_to_str(self, token_id: int) -> str:
        """One token as text, with the space that it carries."""
        return self._tokens.piece(token_id)

    @checked()
    def to_str_tokens(self, input: Any, prepend_bos: bool = False) -> list[str]:  # noqa: A002
        """The tokens of a text, or of ids, each as text.

        Args:
            input: Text, ids, or an array (S,) or (1, S).
            prepend_bos: Begin with the beginning-of-sequence token if the text's tokens do not.

        Raises:
            InputError: for several prompts.
        """
        rows = self.tokens.batch(input).rows()
        if len(rows) > 1:
            raise InputError(f"to_str_tokens takes one prompt; got {len(rows)}.")
        (ids,) = rows
        bos = self.tokens.bos_id
        if prepend_bos and isinstance(input, str) and bos is not None and ids[0] != bos:
            ids = [bos, *ids]
        return [self.token_to_str(i) for i in ids]

    @checked()
    def to_tokens(self, input: Any, prepend_bos: bool | None = None) -> mx.array:  # noqa: A002
        """Token ids (B, S) of a text, or of texts of equally many tokens.

        Args:
            input: Text, or texts.
            prepend_bos: Whether they begin with the beginning-of-sequence token; None leaves that
                to the tokenizer.

        Raises:
            InputError: if the texts have different numbers of tokens, which one array cannot
                hold; or for a beginning-of-sequence token that the tokenizer does not have.
        """
        rows = self.tokens.batch(input).rows()
        if prepend_bos is not None:
            bos = self.tokens.bos_id
            if bos is None and prepend_bos:
                raise InputError("the tokenizer has no beginning-of-sequence token to prepend.")
            rows = [row[1:] if row[0] == bos else row for row in rows]
            rows = [[bos, *row] for row in rows] if prepend_bos and bos is not None else rows
        if len({*map(len, rows)}) > 1:
            raise InputError(
                f"the texts have {', '.join(map(str, map(len, rows)))} tokens, which one array "
                "holds only with padding. Give the texts themselves to the method that runs them."
            )
        if not rows[0]:
            raise InputError("nothing is left of the text without its first token.")
        return mx.array(rows, dtype=mx.int32)

    def to_string(self, tokens: Any) -> Any:
        """Text of ids (S,), or a list of texts for ids (B, S).

        Raises:
            InputError: if they are no token ids.
        """
        if hasattr(tokens, "__index__") and not hasattr(tokens, "shape"):
            return self.decode([tokens])
        nested = getattr(tokens, "ndim", 1) > 1 or (
            isinstance(tokens, (list, tuple)) and any(hasattr(row, "__len__") for row in tokens)
        )
        rows = [self.decode(row) for row in self.tokens.batch(tokens).rows()]
        return rows if nested else rows[0]

    @checked()
    def to_single_token(self, text: str) -> int:
        """The id of a text that is one token after another text: ``" Paris"``.

        Raises:
            InputError: if it is several; the message shows them.
        """
        ids = self.tokens.continuation(text)
        if len(ids) > 1:
            pieces = [self.token_to_str(i) for i in ids]
            raise InputError(f"{text!r} is {len(ids)} tokens here: {pieces} (ids {ids}).")
        return ids[0]

    @property
    def cfg(self) -> Sizes:
        """Layers, heads, widths, vocabulary and context."""
        return Sizes.of(self.layout, self.name, self._context)

    #: The same under the name of other libraries.
    config = cfg

    def available_hooks(self) -> list[str]:
        """Every address that can be watched and edited: the points, then the modules."""
        layout = self.layout
        points = [layout.site(s.address).key for s in layout.statuses() if s.available]
        return [*points, *(layout.short(path) for path in layout.modules if path)]

    @checked()
    def find_hooks(self, pattern: str) -> list[str]:
        """Those of `available_hooks` that have `pattern` in them."""
        return [name for name in self.available_hooks() if pattern in name]

    def chosen_hooks(
        self, hooks: AddressLike | Sequence[AddressLike] | Callable[[str], bool]
    ) -> list[AddressLike]:
        """Addresses as a list; of a function, those of `available_hooks` that it accepts.

        Raises:
            InputError: if it accepts none.
        """
        if not callable(hooks):
            return addresses(hooks)
        names = self.available_hooks()
        found: list[AddressLike] = [name for name in names if hooks(name)]
        if not found:
            raise InputError(
                "the filter accepts no address here. They look like 'layers.0.resid_post' and "
                "'layers.0.self_attn.q_proj'; model.available_hooks() has them all."
            )
        return found

    @property
    def vocab_size(self) -> int | None:
        """Size of the tokenizer's vocabulary; None without a tokenizer, or if it does not tell."""
        if self.tokenizer is None:
            return None
        size = getattr(self.tokenizer, "vocab_size", None)
        if isinstance(size, int):
            return size
        return len(self.tokenizer) if hasattr(self.tokenizer, "__len__") else None

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module with its path, the root's being empty."""
        return iter(self.layout.modules.items())

    def points(self) -> list[PointStatus]:
        """Which hook points the model has, at each layer, and why the others are absent."""
        return self.layout.statuses()

    @checked()
    def layer_indices(self, layers: Sequence[int] | None) -> list[int]:
        """`layers` checked and counted from the front; None is all of them.

        Raises:
            InputError: if the list is empty, or no list of integers, or names a layer twice.
            AddressError: if a layer does not exist.
        """
        if layers is None:
            return list(range(self.layout.n_layers))
        wanted: list[int] = []
        for layer in layers:
            index = self.layout.index(layer)
            if index in wanted:
                raise InputError(f"layer {index} is named twice.")
            wanted.append(index)
        if not wanted:
            raise InputError("the list of layers is empty; leave it out for all layers.")
        return wanted


def planned_edits(
    layout: Layout, interventions: Interventions | None, *, allow_unchanged: bool
) -> list[Edit]:
    """The edits that a user wrote as address → function, each at its canonical address."""
    return [
        Edit(layout.site(address).key, fn, allow_unchanged=allow_unchanged)
        for address, fn in as_pairs(interventions)
    ]
