"""The features of a dictionary at its place in a model: what they read, and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.checks.arguments import whole_numbers
from mlxray.errors import InputError, LoadError
from mlxray.points.sites import ModuleSite
from mlxray.points.vocabulary import parse

from ...dictionaries.files import load_dictionary
from ...dictionaries.placement import AnyDictionary, Placed, place
from ...dictionaries.types.cross_layer import CrossLayerTranscoder
from ...dictionaries.types.form import DictionaryForm

#: A dictionary, or where its files are.
DictionaryLike = AnyDictionary | str | Path

#: What a dictionary without an address of its own reads, if only its layer is given.
COMPONENT = "mlp"


@dataclass(frozen=True)
class FeatureReader:
    """Reads features off the activations of one model.

    Attributes:
        placed: The dictionary with the addresses of this model.
        layer: Of a cross-layer transcoder, the number of the layer whose features are meant;
            None for the other forms.
    """

    placed: Placed
    layer: int | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The addresses that the features are computed from."""
        return self.placed.reads if self.layer is None else (self.placed.reads[self.layer],)

    @property
    def writes(self) -> tuple[str, ...]:
        """The addresses that these features are decoded into."""
        return self.placed.writes[self.layer or 0 :]

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return self.placed.dictionary.n_features

    @property
    def label(self) -> str:
        """Where it stands, in short: ``"L3.resid_post"``; a feature there is ``"L3.….f42"``."""
        return ",".join(map(place_label, self.reads))

    def encode(self, activations: Mapping[str, mx.array]) -> mx.array:
        """Feature values (…, F) of activations (…, D) by address; evaluated by who uses them."""
        inputs = [activations[address] for address in self.reads]
        if self.layer is None:
            return self.placed.features(inputs)[0]
        assert isinstance(self.placed.dictionary, CrossLayerTranscoder)
        return self.placed.dictionary.layers[self.layer].encode(inputs[0])

    def check_widths(self, widths: Mapping[str, int]) -> None:
        """See that points are as wide as the dictionary reads them.

        Raises:
            InputError: if not; it names the point and both widths.
        """
        dictionary = self.placed.dictionary
        width = dictionary.d_in if isinstance(dictionary, DictionaryForm) else dictionary.d
        for address in self.reads:
            if widths[address] != width:
                raise InputError(
                    f"the dictionary reads width {width}, but {address} is {widths[address]} wide: "
                    "it belongs to another point or another model."
                )

    def chosen(self, features: Any, name: str) -> list[int]:
        """Feature numbers, checked.

        Args:
            features: One number or several.
            name: Of the argument, for messages.

        Raises:
            InputError: if there are none, one is named twice, or the dictionary lacks one.
        """
        found = whole_numbers(features, name)
        for feature in found:
            if not 0 <= feature < self.n_features:
                raise InputError(
                    f"{name}: there is no feature {feature}; the dictionary has "
                    f"{self.n_features} (0 to {self.n_features - 1})."
                )
        if len(set(found)) < len(found):
            twice = next(feature for feature in found if found.count(feature) > 1)
            raise InputError(f"{name} names feature {twice} twice.")
        return found


def feature_reader(
    model: InterpretableModel,
    sae: DictionaryLike,
    layer: int | None = None,
    component: str | None = None,
) -> FeatureReader:
    """The features of a dictionary in a model.

    A dictionary that knows its address needs neither `layer` nor `component`; where they are
    given they must name what it reads or writes. One that does not know it needs `layer`.

    Args:
        model: The model.
        sae: A dictionary of any form, or the path or hub id of one.
        layer: Where it stands; of a cross-layer transcoder, whose features are meant.
        component: The point or module in that layer; "mlp" if the dictionary has no address.

    Raises:
        InputError: if layer and component contradict the dictionary's address, or it has none
            and no layer is given; or it is no dictionary.
        LoadError: if it cannot be read from its files.
        AddressError: if the model lacks the point.
    """
    dictionary = loaded(sae, layer)
    if isinstance(dictionary, CrossLayerTranscoder):
        return _of_one_layer(model, dictionary, layer, component)
    if isinstance(dictionary, DictionaryForm) and dictionary.needs_text:
        raise InputError(
            f"features of a {dictionary.kind} dictionary depend on the tokens before, and feature "
            "analyses read tokens one by one. Attach it with model.attach(dictionary) and watch "
            "its features instead."
        )
    if isinstance(dictionary, DictionaryForm) and dictionary.reads is None:
        if layer is None:
            raise InputError(
                "the dictionary does not say where in the model it stands: give layer=… and "
                "component=…, or set its address with dataclasses.replace(dictionary, reads=…)."
            )
        address = f"layers.{layer}.{component or COMPONENT}"
        unplaced: Any = dictionary
        dictionary = replace(unplaced, reads=address, writes=dictionary.writes or address)
        layer = component = None
    placed = place(dictionary)
    _check_named(model, (*placed.reads, *placed.writes), layer, component)
    return FeatureReader(_canonical(model, placed))


def loaded(source: DictionaryLike, layer: int | None) -> AnyDictionary:
    """A dictionary, from its files if need be: of several the one whose path names the layer.

    Raises:
        LoadError: if it cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return source
    try:
        return load_dictionary(source)
    except LoadError:
        if layer is None:
            raise
        return load_dictionary(source, layer=layer)


def _of_one_layer(
    model: InterpretableModel,
    dictionary: CrossLayerTranscoder,
    layer: int | None,
    component: str | None,
) -> FeatureReader:
    placed = place(dictionary)
    if layer is None:
        raise InputError(
            f"a cross-layer transcoder has features in each of its {dictionary.n_layers} layers: "
            "choose one with layer=…"
        )
    index = model.layout.index(layer)
    where = [at for at, read in enumerate(placed.reads) if parse(read).layer == index]
    if not where:
        own = ", ".join(placed.reads)
        raise InputError(f"the transcoder reads {own}: it has no features of layer {layer}.")
    named = (placed.reads[where[0]], placed.writes[where[0]])
    _check_named(model, named, layer, component)
    return FeatureReader(_canonical(model, placed), where[0])


def _canonical(model: InterpretableModel, placed: Placed) -> Placed:
    """The same with the model's own spelling of each address.

    Raises:
        AddressError: if the model lacks one.
    """
    reads, writes = (
        tuple(model.layout.site(address).key for address in addresses)
        for addresses in (placed.reads, placed.writes)
    )
    return Placed(placed.dictionary, reads, writes)


def _check_named(
    model: InterpretableModel, own: Sequence[str], layer: int | None, component: str | None
) -> None:
    """Refuse a layer or a component that is none of the dictionary's own."""
    if layer is None and component is None:
        return
    sites = [_place(model, address) for address in own]
    layers = {parse(address).layer for address in own}
    if layer is not None:
        wanted = {model.layout.index(layer)}
    else:
        wanted = {at for at in layers if at is not None}
    fits = bool(layers & wanted)
    if fits and component is not None:
        fits = any(_place(model, f"layers.{at}.{component}") in sites for at in layers & wanted)
    if not fits:
        given = [f"layer={layer}"] * (layer is not None)
        given += [f"component={component!r}"] * (component is not None)
        stands = " and ".join(dict.fromkeys(own))
        raise InputError(
            f"the dictionary stands at {stands}, which {' and '.join(given)} contradicts: leave "
            "them out, or give it another address with dataclasses.replace(dictionary, "
            "reads=…, writes=…)."
        )


def same_place(model: InterpretableModel, first: str, second: str) -> bool:
    """Whether two addresses are one place: a module's output and a point, say.

    Raises:
        AddressError: if the model lacks one.
    """
    return bool(_place(model, first) == _place(model, second))


def _place(model: InterpretableModel, address: str) -> Any:
    """Where an address is; the same for a module's output and the point that it is."""
    site = model.layout.site(address)
    return replace(site, key="", whole=False) if isinstance(site, ModuleSite) else site.key


def place_label(address: str) -> str:
    """An address in short.

    >>> place_label("layers.10.mlp"), place_label("embed")
    ('L10.mlp', 'embed')
    """
    parsed = parse(address)
    if parsed.layer is None:
        return address
    return f"L{parsed.layer}.{address.partition(f'layers.{parsed.layer}.')[2] or 'resid_post'}"
