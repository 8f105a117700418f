"""Attaching derived points, such as the features of a dictionary, to a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from ..arrays import arrays_of, evaluate
from ..checks.arguments import checked
from ..errors import EditError, InputError, MlxrayError, nearest
from ..plugins.registry import registry
from ..points.attached import FEATURES, Attachment, checked_name
from ..points.derived import DerivedPoint
from ..points.derived_site import DerivedSite
from ..points.layout import Layout
from ..points.together import held_as_it_is
from ..seams.edits import Edit
from .run import Run
from .wrapped import WrappedModel


@checked("source")
def attach(model: WrappedModel, source: Any, *, name: str = FEATURES) -> list[str]:
    """Make the features of a dictionary points of the model, until they are detached.

    They are then addresses like any other: ``"layers.3.resid_post.features"`` has all features
    (B, S, F) of a dictionary that reads there, and ``"layers.3.resid_post.features.42"`` one of
    them, (B, S). Short forms are ``("features", 3)`` and ``("feature", 3, 42)`` where they can
    mean one dictionary only. An edit adds what the changed features write to the activation, so
    what the dictionary does not explain stays. A run that names no feature is as it was before.

    Args:
        model: The model.
        source: What has a method ``derived_points()``: a dictionary, a transcoder, a crosscoder.
            Or a folder, file or hub id to read one from.
        name: The last part of the address; two dictionaries at one point need two names.

    Returns:
        The addresses: one, or one for each layer of a cross-layer transcoder.

    Raises:
        InputError: if `source` cannot be attached, its width is not that of the model's
            activations there, or something else has that address.
        AddressError: if the model does not have a point that it reads or writes.
        EditError: if it writes what the model computes before all that it reads.
        LoadError: if a file cannot be read.

    Example::

        model.attach(dictionary)                     # reads layers.3.resid_post
        features = model.watch("Hello", "resid_post.features", [3])[3]
        model.generate("Hello", interventions={("feature", 3, 42): lambda f: f + 8})
        model.detach(dictionary)
    """
    return _attach(model, source, name, lasting=True)


@checked("source")
def detach(model: WrappedModel, source: Any = None) -> list[str]:
    """Take away what was attached.

    What a block of `attached` holds stays until the block ends.

    Args:
        model: The model.
        source: What was attached, its address, or its name; None for everything.

    Returns:
        The addresses that mean nothing any more, if no block holds them.

    Raises:
        InputError: if nothing like that is attached.
    """
    layout = model.layout
    known = layout.attached.all
    found = [each for each in known.values() if source is None or _is(each, source)]
    if not found and source is not None:
        shown = source if isinstance(source, str) else repr(source)
        raise InputError(f"{shown!r} is not attached. {nearest(str(shown), known)}")
    layout.attached.remove(found)
    layout.forget_addresses()
    return [each.address for each in found]


@contextmanager
def attached(model: WrappedModel, source: Any, *, name: str = FEATURES) -> Iterator[list[str]]:
    """`attach` for the length of a block: ``with model.attached(dictionary) as addresses: …``.

    The same dictionary may be attached under the same name already; it then stays.
    """
    addresses = _attach(model, source, name, lasting=False)
    try:
        yield addresses
    finally:
        model.resolved.attached.release(addresses)
        model.resolved.forget_addresses()


def _is(each: Attachment, source: Any) -> bool:
    if isinstance(source, str):
        return source in (each.address, each.name)
    return each.source is source


def _attach(model: WrappedModel, source: Any, name: str, *, lasting: bool) -> list[str]:
    layout = model.layout
    name = checked_name(name)
    if isinstance(source, (str, os.PathLike)):
        source = _loaded(os.fspath(source))
    made = [_attachment(layout, point, source, name) for point in _points(source)]
    evaluate(arrays_of(source))  # it may be used in another thread
    for each in made:
        if each.address not in layout.attached.all:
            _check(layout, each)
    layout.attached.add(made, lasting=lasting)
    layout.forget_addresses()
    return [each.address for each in made]


def _loaded(source: str) -> Any:
    known = registry.all("attachable")
    fitting = known if len(known) == 1 else [each for each in known if each.recognises(source)]
    if len(fitting) != 1:
        names = ", ".join(repr(each.name) for each in fitting or known)
        raise InputError(
            f"{source!r} may be any of {names}: load it first, and attach that."
            if fitting
            else f"{source!r} is nothing that can be attached. Known: {names or 'nothing'}."
        )
    return fitting[0].load(source)


def _points(source: Any) -> Sequence[DerivedPoint]:
    derived = getattr(source, "derived_points", None)
    if not callable(derived):
        raise InputError(
            f"{type(source).__name__} cannot be attached: it has no method derived_points(). "
            "Attach a dictionary, such as load_dictionary(path) gives."
        )
    points: Sequence[DerivedPoint] = derived()
    if not points:
        raise InputError(f"{source!r} has nothing to attach.")
    return points


def _attachment(layout: Layout, point: DerivedPoint, source: Any, name: str) -> Attachment:
    address = name
    if len(point.reads) == 1:
        address = f"{layout.site(point.reads[0]).key}.{name}"
    if address not in layout.attached.all:
        try:
            layout.site(address)
        except MlxrayError:
            pass
        else:
            raise InputError(f"{address!r} is something else in this model: choose another name.")
    return Attachment(address, name, point, source)


def _check(layout: Layout, new: Attachment) -> None:
    """See that a derived point fits, by a run of one token."""
    point, site = new.point, layout.derived_site(new)
    tokens = mx.array([[0]])
    run = Run(layout, watch=[*point.reads, *point.writes])
    run.execute(tokens)
    inputs = [_array(run, address) for address in point.reads]
    try:
        values = point.read(inputs)
    except (InputError, ValueError) as error:
        raise InputError(
            f"{new.source!r} does not fit {', '.join(map(repr, point.reads))}: {error}"
        ) from error
    if values.shape != (1, 1, point.count):
        raise InputError(
            f"{new.source!r} says that it has {point.count} values a token; of one token it gave "
            f"shape {values.shape}."
        )
    evaluate(values)
    if point.fixed is None:
        _check_edit(layout, site, tokens, [_array(run, address) for address in point.writes])


def _check_edit(
    layout: Layout, site: DerivedSite, tokens: mx.array, written: Sequence[mx.array]
) -> None:
    trial = Run(layout)
    site.plan_edit(trial, Edit(site.key, held_as_it_is, allow_unchanged=True))
    try:
        evaluate(trial.execute(tokens))
    except (EditError, InputError):
        raise
    except ValueError as error:
        shapes = ", ".join(str(tuple(each.shape)) for each in written)
        raise InputError(
            f"{site.key!r} cannot be written into {', '.join(site.point.writes)} of shape "
            f"{shapes}: {error}"
        ) from error


def _array(run: Run, address: str) -> mx.array:
    value = run.read(address)
    if not isinstance(value, mx.array):
        raise InputError(
            f"{address!r} is {type(value).__name__}, not one array: attach at a point, such as "
            f"'layers.N.resid_post', or at one call of the module, {address + '#0'!r}."
        )
    return value
