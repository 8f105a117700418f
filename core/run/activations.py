"""What a trace answers by address, in its block and after it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..points.vocabulary import AddressLike

if TYPE_CHECKING:
    from .trace import Trace


@dataclass(slots=True)
class Walk:
    """What a walk over the modules has not passed yet.

    Attributes:
        values: By canonical address; lazy until `output` is None.
        output: What the run returned, to be compared with the trace's own.
    """

    values: dict[str, Any]
    output: Any


class _Items(ItemsView[str, Any]):
    """Ends its walk, and so lets go of what it holds, when it is ended itself."""

    def __init__(self, activations: Activations) -> None:
        super().__init__(activations)
        self._activations = activations

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        with closing(self._activations.trace.walk()) as names:
            for name in names:
                yield name, self._activations[name]


class _Values(ValuesView[Any]):
    """The same for values alone."""

    def __init__(self, activations: Activations) -> None:
        super().__init__(activations)
        self._activations = activations

    def __iter__(self) -> Iterator[Any]:
        with closing(self._activations.trace.walk()) as names:
            for name in names:
                yield self._activations[name]


class Activations(Mapping[str, Any]):
    """The activations of a trace by address: every module path, and every point.

    Iterating lists the paths of the modules that the run called; each spelling of an address
    finds its value. A module that was called several times has a tuple, call by call.

    After the block a single address costs a run, and so does `fetch`, whatever number of addresses
    it gets. ``for name, value in trace.activations.items()`` is one run too; at its first value it
    holds every module's output at once (as ``run_with_cache(…)`` without addresses does, points
    left out), and lets go of each as it is passed.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @property
    def layout(self) -> Any:
        """The layout of the traced model."""
        return self.trace.model.layout

    def __getitem__(self, address: AddressLike) -> Any:
        return self.fetch([address])[0]

    def fetch(self, addresses: Sequence[AddressLike]) -> list[Any]:
        """Several activations at the cost of one run."""
        if not self.trace.replayable:
            return [self.trace.read(a) for a in addresses]
        found = self.trace.replay(addresses)
        return [found[self.layout.site(a).key] for a in addresses]

    def get(self, address: AddressLike, default: Any = None) -> Any:
        """The activation, or `default` if the model has nothing at `address`."""
        return self[address] if address in self else default

    def __iter__(self) -> Iterator[str]:
        return self.trace.walk()

    def items(self) -> ItemsView[str, Any]:
        """(path, value) of each module that the run called."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """The value of each module that the run called."""
        return _Values(self)

    def __len__(self) -> int:
        return len(self.trace.names())

    def __contains__(self, address: object) -> bool:
        try:
            self.layout.site(address)
        except (LookupError, TypeError):
            return False
        return True
