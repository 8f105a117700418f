"""Training dictionaries into a folder: checked before it begins, resumed where it was stopped."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from mlxray import registry
from mlxray.errors import InputError, SaveError

from .estimate import TrainingEstimate, estimate_training
from .files import save_dictionary
from .places import recognised
from .train import train_dictionaries
from .training.batches import Batches
from .training.config import TOP_K_KINDS, DictionaryConfig
from .training.training_result import TrainingResult
from .types.cross_layer import CrossLayerTranscoder

CHECKPOINT = "training.safetensors"


def train_into(
    folder: Path,
    data: Batches,
    configs: Mapping[str, DictionaryConfig],
    *,
    format: str | None = None,  # noqa: A002
    batch_size: int = 4096,
    epochs: int = 1,
    steps: int | None = None,
    data_seed: int = 0,
    checkpoint_every: int = 1000,
    verbose: bool = True,
) -> dict[Path, TrainingResult]:
    """Train dictionaries and write them.

    The same call again goes on from the checkpoint in `folder`, which is removed when all
    dictionaries are written.

    Args:
        folder: Made if it is not there.
        data: Such as an `ActivationStore`.
        configs: Name → settings. Each is written into the folder of its name in `folder`; one
            without a name into `folder` itself.
        format: Of the files; where it is left out, ``saelens`` if it can hold what is trained,
            ``circuit-tracer`` for cross-layer transcoders, and ``mlxray`` for the others.
        batch_size, epochs, steps, data_seed, checkpoint_every: As in `train_dictionaries`.
        verbose: Say how long it will take and show a progress bar, on stderr.

    Returns:
        The folder of each dictionary → its training.

    Raises:
        InputError: if the format cannot hold a dictionary; if one is there already; or as
            `train_dictionaries`.
        SaveError: if it cannot be written, or the disk has too little room.
        AnalysisError: if a loss stops being finite; the last checkpoint is kept.
    """
    formats = check_target(folder, configs, data.widths, format)
    places = {name: folder.expanduser() / name for name in configs}
    checkpoint = folder.expanduser() / CHECKPOINT
    estimate = estimate_training(
        data, list(configs.values()), batch_size=batch_size, epochs=epochs, steps=steps
    )
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        shown = str(checkpoint.parent)
        raise SaveError(f"cannot write into {shown!r}: {error.strerror}.") from error
    _check_room(checkpoint, estimate)
    if verbose:
        from tqdm import tqdm

        more = "; it goes on from the checkpoint" if checkpoint.exists() else ""
        tqdm.write(f"training: {estimate}{more}", file=sys.stderr)
    results = train_dictionaries(
        data,
        list(configs.values()),
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        data_seed=data_seed,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        verbose=verbose,
    )
    for name, result in zip(configs, results, strict=True):
        save_dictionary(result.dictionary, places[name], formats[name])
    checkpoint.unlink(missing_ok=True)
    return {places[name]: result for name, result in zip(configs, results, strict=True)}


def check_target(
    folder: Path,
    configs: Mapping[str, DictionaryConfig],
    widths: Mapping[str, int],
    format: str | None = None,  # noqa: A002
) -> dict[str, str]:
    """See that what is going to be trained can be written; nothing is made yet.

    Args:
        folder, configs, format: As in `train_into`.
        widths: Address → D.

    Returns:
        Name → the format of its files.

    Raises:
        PluginError: if there is no format of that name.
        InputError: if it cannot hold a dictionary, or settings do not fit the data; if a
            dictionary is there already, and no checkpoint to go on from.
    """
    formats = {name: _format_of(config, widths, format) for name, config in configs.items()}
    if (folder.expanduser() / CHECKPOINT).exists():
        return formats
    for name in configs:
        place = folder.expanduser() / name
        if place.is_dir() and recognised(place, registry.all("dictionary_format")):
            raise InputError(f"{str(place)!r} holds a dictionary already: choose another folder.")
    return formats


def _format_of(config: DictionaryConfig, widths: Mapping[str, int], asked: str | None) -> str:
    """The format that a dictionary will be written in, tried with a small one of its kind."""
    few = min(config.n_features, 4)
    small = replace(
        config,
        n_features=few,
        k=min(config.k or 1, few) if config.kind in TOP_K_KINDS else None,
        target_l0=None if config.target_l0 is None else 1.0,
        prefixes=(few,) if config.kind == "matryoshka" else None,
    )
    rows = {p: mx.random.normal((4, w), key=mx.random.key(0)) for p, w in widths.items()}
    (tried,) = train_dictionaries(rows, [small], batch_size=4, steps=1, verbose=False)
    crossing = isinstance(tried.dictionary, CrossLayerTranscoder)
    known = ["circuit-tracer"] if crossing else ["saelens", "mlxray"]
    *first, last = [asked] if asked else known
    with tempfile.TemporaryDirectory() as scratch:
        for name in first:
            with suppress(InputError):
                save_dictionary(tried.dictionary, scratch, name)
                return name
        save_dictionary(tried.dictionary, scratch, last)
    return last


def _check_room(checkpoint: Path, estimate: TrainingEstimate) -> None:
    """See that the disk has room for a new checkpoint beside the old one, and the dictionaries.

    Raises:
        SaveError: if it has not.
    """
    free = shutil.disk_usage(checkpoint.parent).free
    copies = 1 if checkpoint.exists() else 2
    needed = copies * estimate.checkpoint_bytes + estimate.bytes
    if free < needed:
        raise SaveError(
            f"training needs {needed / 1e9:.3g} GB for checkpoints and dictionaries, and the disk "
            f"of {str(checkpoint.parent)!r} has {free / 1e9:.3g} GB left. Free some, or train "
            "fewer or smaller dictionaries."
        )
