"""From what is asked for on the command line to settings of dictionaries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlxray.analyses.activations import ActivationStore
from mlxray.errors import InputError

from .train import make_config
from .training.config import KINDS, TOP_K_KINDS, DictionaryConfig

#: Settings that may have several values, and the kinds that have them.
AXES: dict[str, tuple[str, ...]] = {
    "n_features": KINDS,
    "k": TOP_K_KINDS,
    "sparsity": ("relu", "gated", "jumprelu"),
    "target_l0": ("jumprelu",),
    "learning_rate": KINDS,
    "seed": KINDS,
}
#: What a value is called in the name of a dictionary's folder.
_SHORT = {"n_features": "", "k": "k", "sparsity": "s", "target_l0": "l", "learning_rate": "r"}


def choices(
    kinds: Sequence[str],
    axes: Mapping[str, Sequence[Any]],
    reads: Sequence[str],
    writes: Sequence[str],
    *,
    each: bool = False,
    more: Mapping[str, Any] | None = None,
) -> dict[str, DictionaryConfig]:
    """Settings of every combination of what was given several times, each with a name.

    Args:
        kinds: Of dictionaries.
        axes: Setting → its values. Where several kinds are given, a setting is left out of those
            that do not have it.
        reads, writes: Addresses.
        each: One dictionary for each address in `reads` (with the one at the same place in
            `writes`), instead of one for all.
        more: Further settings, the same for all.

    Returns:
        Name → settings. The name has what differs, such as ``topk-k16``; it is empty if there is
        only one.

    Raises:
        InputError: if a setting is out of range or does not belong to a kind.

    Example:
        >>> list(choices(["topk"], {"n_features": [64], "k": [4, 8]}, ["layers.0.mlp_out"], []))
        ['k4', 'k8']
    """
    found: dict[str, DictionaryConfig] = {}
    places = _places(reads, writes, each=each)
    for (where, own), kind in itertools.product(places, dict.fromkeys(kinds)):
        mine = {n: v for n, v in axes.items() if v and _has(kind, n, kinds)}
        for values in itertools.product(*mine.values()):
            chosen = dict(zip(mine, values, strict=True))
            words = [where, kind if len(set(kinds)) > 1 else ""]
            words += [_word(n, v) for n, v in chosen.items() if len(set(mine[n])) > 1]
            name = "-".join(filter(None, words))
            found[name] = make_config({"kind": kind, **own}, chosen, more)
    return found


def _has(kind: str, name: str, kinds: Sequence[str]) -> bool:
    """Whether a kind is given a setting; one that no kind has is refused with its reason."""
    return kind in AXES[name] or not set(kinds) & set(AXES[name])


def _word(name: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{_SHORT.get(name, name)}{text}"


def _places(
    reads: Sequence[str], writes: Sequence[str], *, each: bool
) -> list[tuple[str, dict[str, Any]]]:
    if writes and len(writes) != len(reads):
        raise InputError(
            f"{len(reads)} addresses are read and {len(writes)} written: give as many of both, or "
            "leave out what is written."
        )
    if len(reads) > 1 and each:
        pairs = zip(reads, writes or reads, strict=True)
        return [(a, {"reads": a, "writes": b if writes else None}) for a, b in pairs]
    joined = {"reads": _one_or_all(reads), "writes": _one_or_all(writes)}
    return [("", joined)]


def _one_or_all(addresses: Sequence[str]) -> Any:
    if len(addresses) < 2:
        return addresses[0] if addresses else None
    return tuple(addresses)


def points_of(configs: Mapping[str, DictionaryConfig]) -> list[str]:
    """All addresses that are read or written.

    Raises:
        InputError: if one does not say what it reads.
    """
    found: list[str] = []
    for config in configs.values():
        if config.reads is None:
            raise InputError("name what is read, such as --reads layers.3.resid_post.")
        for given in (config.reads, config.writes or ()):
            found += [given] if isinstance(given, str) else given
    return list(dict.fromkeys(found))


def in_words_of(
    store: ActivationStore, configs: Mapping[str, DictionaryConfig]
) -> dict[str, DictionaryConfig]:
    """The same settings, with the addresses as a store writes them.

    Raises:
        AddressError: if the store does not have one.
    """

    def canonical(given: str | tuple[str, ...] | None) -> Any:
        if given is None or isinstance(given, str):
            return given and store.key(given)
        return tuple(map(store.key, given))

    return {
        name: replace(config, reads=canonical(config.reads), writes=canonical(config.writes))
        for name, config in configs.items()
    }
