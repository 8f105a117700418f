"""Train the dictionaries of the embedded model.

Run ``python -m mlxray.analyses.dictionaries.pocket.train``; it takes some ten minutes on two CPU
cores, and 3 GB of disk for the activations, which may be deleted afterwards. Stopped or killed, it
goes on where it was when it is started again. On one machine the same files come out each time;
other processors' matrix kernels round differently.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlxray import InterpretableModel
from mlxray.analyses.activations import harvest
from mlxray.arrays import arrays_of

from ..files import load_dictionary
from ..formats.saelens.writing import write
from ..shipped import FOLDER
from ..train import train_dictionaries
from ..types.dictionary import Dictionary
from .card import write_card
from .recipe import Recipe


def train(recipe: Recipe, out: Path, work: Path, *, verbose: bool = True) -> list[str]:
    """Train all dictionaries of a recipe and write them; returns their names.

    Args:
        recipe: What to train.
        out: Folder with a folder for each dictionary.
        work: Folder of the store and the checkpoint, from which a killed training goes on.
        verbose: Show progress.
    """
    model = InterpretableModel("pocket")
    store = harvest(
        model,
        recipe.texts("training", recipe.rows),
        recipe.points(),
        work / "store",
        context=recipe.length,
        packing="documents",
        verbose=verbose,
    )
    configs = recipe.configs()
    results = train_dictionaries(
        store,
        list(configs.values()),
        batch_size=recipe.batch_size,
        data_seed=recipe.seed,
        checkpoint=work / "training.safetensors",
        verbose=verbose,
    )
    for name, result in zip(configs, results, strict=True):
        assert isinstance(result.dictionary, Dictionary)
        save(result.dictionary, recipe, out / name)
    return list(configs)


def save(dictionary: Dictionary, recipe: Recipe, folder: Path) -> None:
    """Write a dictionary in half precision, without what differs from run to run."""
    folder.mkdir(parents=True, exist_ok=True)
    # The two files of one save have the same token; here it is a hash of what they hold.
    token = sha256(b"".join(np.array(a).tobytes() for a in arrays_of(dictionary))).hexdigest()[:16]
    metadata = {
        "model_name": "pocket",
        "training": {
            "k": recipe.k,
            "learning_rate": recipe.learning_rate,
            "batch_size": recipe.batch_size,
            "tokens": dictionary.metadata["training"]["data_tokens"],
            "seed": recipe.seed,
        },
    }
    write(replace(dictionary, metadata=metadata), folder, token, mx.float16)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write")
    parser.add_argument(
        "--work", type=Path, default=Path("pocket-dictionaries"), help="store and checkpoint"
    )
    parser.add_argument("--card", action="store_true", help="only measure again what is there")
    given = parser.parse_args(arguments)
    mx.set_default_device(mx.Device(mx.cpu))
    recipe = Recipe()
    names = list(recipe.configs())
    if not given.card:
        given.work.mkdir(parents=True, exist_ok=True)
        names = train(recipe, given.out, given.work)
    dictionaries = {}
    for name in names:
        loaded = load_dictionary(given.out / name)
        assert isinstance(loaded, Dictionary)
        dictionaries[name] = loaded
    write_card(recipe, dictionaries, given.out)


if __name__ == "__main__":
    main()
