"""Activations of a run, by address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..arrays import held
from ..checks.elsewhere import CACHE
from ..errors import AddressError, nearest
from ..points.attached import same_value
from ..points.layout import Layout
from ..points.vocabulary import AddressLike
from .decompose import accumulated_resid, decompose_resid, logit_attrs, stack_head_results


class ActivationCache(Mapping[str, Any]):
    """What a run kept. Every spelling of an address finds its entry.

    Attributes:
        activations: Canonical address → array (a module that returns a tuple keeps it whole).
        metadata: Facts about the run, such as the tokens of each prompt.
        layout: Of the model that ran.
    """

    def __init__(
        self,
        activations: dict[str, Any],
        layout: Layout,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.activations = activations
        self.metadata = metadata
        self.layout = layout

    def _key(self, address: AddressLike) -> str:
        if isinstance(address, str) and address in self.activations:
            return address
        try:
            key = self.layout.site(address).key
        except AddressError:
            # What was attached when the run was made may be detached by now.
            if (kept := same_value(address, self.activations)) is None:
                raise
            return kept
        if key in self.activations or self._calls(key):
            return key
        return same_value(address, self.activations) or key

    def __getitem__(self, address: AddressLike) -> Any:
        """The activation at `address`; a tuple where a module was called several times.

        Raises:
            AddressError: (a KeyError's sibling, both LookupError) if the run did not keep it.
        """
        key = self._key(address)
        if key in self.activations:
            return held(self.activations[key])
        calls = self._calls(key)
        if not calls:
            raise AddressError(
                f"the run did not keep {key!r}. {nearest(key, self.activations)} "
                "Ask for it when you start the run."
            )
        return tuple(held(self.activations[call]) for call in calls)

    def _calls(self, key: str) -> list[str]:
        return [k for k in self.activations if k.startswith(key + "#")]

    def __contains__(self, address: object) -> bool:
        try:
            key = self._key(address)  # type: ignore[arg-type]
        except LookupError:
            return False
        return key in self.activations or bool(self._calls(key))

    def get(self, address: AddressLike, default: Any = None) -> Any:
        """The activation, or `default` if the run did not keep it."""
        return self[address] if address in self else default

    # Parts of the stream; `cache` in these functions is this object

    decompose_resid = decompose_resid
    accumulated_resid = accumulated_resid
    stack_head_results = stack_head_results
    logit_attrs = logit_attrs

    def __getattr__(self, name: str) -> Any:
        line = f": {CACHE[name]}" if name in CACHE else "."
        raise AttributeError(f"a cache has no {name!r}{line}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        names = list(self)
        more = ", …" if len(names) > 8 else ""
        return f"<ActivationCache of {len(names)}: {', '.join(names[:8])}{more}>"
