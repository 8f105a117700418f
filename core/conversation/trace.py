"""A trace of a whole conversation, read turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import mlx.core as mx

from ..arrays import evaluate, held
from ..checks.arguments import whole_number
from ..errors import InputError, PointAbsent
from ..points.vocabulary import AddressLike, tokens_axis
from ..run.trace import Trace
from ..run.wrapped import WrappedModel, planned_edits
from .attention import between_turns, mean_of_heads
from .dialogue import describe, model_dialogue
from .messages import Messages
from .result import ConversationResult
from .turns import TurnList


class ConversationTrace:
    """One run of a model on a conversation; opened by ``with model.conversation_trace(…)``.

    Everything can be read in the block, and after it (which runs the model once more).

    Attributes:
        dialogue: The conversation as text and tokens.
        trace: The trace underneath: edits, saved values, any activation.
    """

    def __init__(
        self,
        model: WrappedModel,
        conversation: Messages,
        interventions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        allow_unchanged: bool = False,
    ) -> None:
        self.dialogue = model_dialogue(
            model, conversation, add_generation_prompt=add_generation_prompt
        )
        self.model = model
        self._matrices: dict[tuple[int, str, bool, int], mx.array] = {}
        self.trace: Trace = Trace(
            model,
            list(self.dialogue.ids),
            planned_edits(model.layout, interventions, allow_unchanged=allow_unchanged),
            allow_unchanged=allow_unchanged,
        )

    def __enter__(self) -> ConversationTrace:
        self.trace.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.trace.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        roles, tokens = ", ".join(self.turns.roles), len(self.dialogue.ids)
        return f"<ConversationTrace of {self.model.name}: {tokens} tokens; turns {roles}>"

    @property
    def turns(self) -> TurnList:
        """Which tokens each message became."""
        return self.dialogue.turns

    def tokens(self, turn_idx: int, content_only: bool = True) -> list[str]:
        """A turn's tokens as text."""
        turn = self.turns[self.turns.position(turn_idx)]
        ids = self.dialogue.ids[turn.positions(content_only)]
        return [self.model.token_to_str(i) for i in ids]

    def get_turn_activation(
        self, turn_idx: int, component: AddressLike, content_only: bool = True
    ) -> mx.array:
        """An activation at the tokens of one turn.

        Args:
            turn_idx: Which turn; negative ones count from the end.
            component: An address, such as ``"layers.5"``, ``"layers.5.mlp_out"`` or ``("z", 5)``.
            content_only: Leave the template's tokens out.

        Returns:
            The activation with that turn's tokens on its axis of tokens: (1, n, D) of a stream,
            (1, H, n, d) of ``z``, (1, H, n, S) of ``pattern``, whose queries are meant.

        Raises:
            TurnIndexError: (an IndexError) if there is no such turn.
            AddressError: if nothing matches the address.
            InputError: if what is there has no axis of tokens.
        """
        turn = self.turns[self.turns.position(turn_idx)]
        value = self.trace.activations[component]
        key = self.model.layout.site(component).key
        if isinstance(value, (tuple, list)) and value and isinstance(value[0], mx.array):
            value = value[0]
        axis = tokens_axis(key)
        shape = tuple(getattr(value, "shape", ()))
        if len(shape) <= axis or shape[axis] != len(self.dialogue.ids):
            raise InputError(
                f"{key!r} cannot be divided among turns: it is {type(value).__name__} of shape "
                f"{shape}, without an axis of {len(self.dialogue.ids)} tokens. Choose a point."
            )
        found: mx.array = value[(slice(None),) * axis + (turn.positions(content_only),)]
        if self.trace.replayable:  # in the block everything is lazy
            evaluate(found)
        return found

    def turn_attention(
        self,
        layers: Sequence[int] | None = None,
        *,
        keys: str = "sum",
        content_only: bool = False,
    ) -> dict[int, mx.array]:
        """Attention between turns of every head: layer → (H, T, T); see `cross_turn_attention`.

        Raises:
            PointAbsent: if a layer has no attention that can be seen.
        """
        wanted = self._attention_layers(layers)
        edits = self.trace.edit_count
        known = {layer: (layer, keys, content_only, edits) for layer in wanted}
        missing = [layer for layer in wanted if known[layer] not in self._matrices]
        if missing:
            run = self.trace.again([("pattern", layer) for layer in missing])
            found = {}
            for layer in missing:
                pattern = run.read(("pattern", layer))[0]
                found[known[layer]] = between_turns(
                    pattern, self.turns, keys=keys, content_only=content_only
                )
            run.forget()
            del pattern
            for matrix in found.values():  # one pattern in memory at a time
                evaluate(matrix)
            self._matrices.update(found)
        return {layer: held(self._matrices[known[layer]]) for layer in wanted}

    def cross_turn_attention(
        self,
        layer: int | Sequence[int] | None = None,
        head: int | Sequence[int] | None = None,
        *,
        keys: str = "sum",
        content_only: bool = False,
    ) -> mx.array:
        """How much each turn attends to each: entry [i, j] is the attention from turn i to turn j.

        That is the share of its attention that a token of turn i gives to all tokens of turn j
        together, averaged over the tokens of turn i. Turns after i get 0; what a row lacks to 1
        goes to tokens of no turn (the beginning of the sequence), or to a sink.

        With ``keys="mean"`` it is the average over the keys too: the probability that a token of
        i gives to one token of j, which does not grow with the length of j.

        Args:
            layer: One, or several to average over; None for all that have attention.
            head: One, or several to average over; None for all.
            keys: "sum" or "mean" over the tokens of turn j.
            content_only: Leave the template's tokens out, as queries and as keys.

        Returns:
            (T, T) float32; NaN in the row (and with "mean" the column) of a turn without tokens.

        Raises:
            AddressError: for a layer that does not exist.
            InputError: for a head that does not, an empty list, or other `keys`.
            PointAbsent: if a layer has no attention that can be seen.
        """
        layers, heads = _several(layer, "a layer"), _several(head, "a head")
        found = self.turn_attention(layers, keys=keys, content_only=content_only)
        mean = mx.stack([mean_of_heads(matrix, heads) for matrix in found.values()]).mean(axis=0)
        evaluate(mean)
        return mean

    def to_result(
        self,
        layer: int | Sequence[int] | None = None,
        head: int | Sequence[int] | None = None,
        *,
        keys: str = "sum",
        content_only: bool = False,
    ) -> ConversationResult:
        """Turns and their attention as a result, to print, keep and draw.

        The matrix is that of `cross_turn_attention` with the same arguments: of all layers and
        heads where none is named.
        """
        wanted = self._attention_layers(_several(layer, "a layer"))
        heads = _several(head, "a head")
        matrix = self.cross_turn_attention(wanted, heads, keys=keys, content_only=content_only)
        return ConversationResult(
            describe(self.dialogue),
            matrix,
            layers=wanted,
            heads=heads,
            keys=keys,
            content_only=content_only,
            metadata={"model": self.model.name, "tokens": len(self.dialogue.ids)},
        )

    def _attention_layers(self, layers: Sequence[int] | None) -> list[int]:
        if layers is not None:
            return self.model.layer_indices(layers)
        statuses = [s for s in self.model.points() if s.point == "pattern"]
        found = [s.layer for s in statuses if s.available and s.layer is not None]
        if not found:
            raise PointAbsent("pattern", statuses[0].detail)
        return found


def _several(value: Any, name: str) -> list[int] | None:
    """One integer or a list of them as a list."""
    if value is None:
        return None
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [whole_number(each, name) for each in value]
    return [whole_number(value, name)]


def conversation_trace(
    model: WrappedModel,
    conversation: Messages,
    interventions: Mapping[str, Callable[..., Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
    allow_unchanged: bool = False,
) -> ConversationTrace:
    """Open a run on a conversation: ``with model.conversation_trace(messages) as ct: …``.

    Args:
        model: The model, with a tokenizer that has a chat template.
        conversation: Messages (``{"role": …, "content": …}``), or the path of a JSON file.
        interventions: Address → edit, in force during the run.
        add_generation_prompt: End where the assistant's answer begins.
        allow_unchanged: Accept edits that change no number.

    Raises:
        InputError: for a conversation that cannot be run, or whose turns cannot be told apart.
        TokenizerMissing: without a tokenizer.
    """
    return ConversationTrace(
        model,
        conversation,
        interventions,
        add_generation_prompt=add_generation_prompt,
        allow_unchanged=allow_unchanged,
    )
