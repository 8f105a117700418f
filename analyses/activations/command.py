"""``mlxray harvest``: a model's activations over texts, into a store on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlxray.cli.options import POCKET, Json, ModelName, load
from mlxray.cli.terminal import output, print_json

from .harvest import estimate_harvest, harvest


def harvest_command(
    texts: Annotated[
        str,
        typer.Argument(
            metavar="TEXTS", help="A text file, JSON lines (.jsonl), or datasets:NAME[:SPLIT]."
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of the store; a harvest there goes on.")
    ],
    points: Annotated[
        list[str],
        typer.Option("--point", "-p", metavar="ADDRESS", help="Such as layers.3.resid_post."),
    ],
    context: Annotated[int, typer.Option("--context", min=2, help="Tokens of a row.")] = 128,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="bfloat16, float16 or float32.")
    ] = "bfloat16",
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="INT", help="Read no more.", show_default=False),
    ] = None,
    packing: Annotated[
        str,
        typer.Option(
            "--packing", metavar="NAME", help="packed, or documents: a row for each document."
        ),
    ] = "packed",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="WHAT",
            help="Tokens that are not stored: bos, special, first, an id; none for none.",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Rows in one forward pass.")
    ] = 32,
    tokens_per_shard: Annotated[
        int, typer.Option("--tokens-per-shard", min=1, help="Tokens read for one file.")
    ] = 2**16,
    field: Annotated[
        str, typer.Option("--field", metavar="NAME", help="Field with the text.")
    ] = "text",
    split: Annotated[
        str,
        typer.Option(
            "--split", metavar="NAME", help="What a document is: paragraph, line or document."
        ),
    ] = "paragraph",
    estimate: Annotated[
        bool, typer.Option("--estimate", metavar="", help="Say how much it would be, and stop.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="No estimate and no progress bar.")
    ] = False,
    model: ModelName = POCKET,
    json: Json = False,
) -> None:
    """Write a model's activations at chosen points over many texts into a store.

    Stopped or killed, the same command goes on where it was.
    """
    words = exclude if exclude is not None else ["bos"]
    options: dict[str, Any] = {
        "context": context,
        "dtype": dtype,
        "max_tokens": max_tokens,
        "packing": packing,
        "exclude": [int(w) if w.isdecimal() else w for w in words if w != "none"],
        "batch_size": batch_size,
        "tokens_per_shard": tokens_per_shard,
        "field": field,
        "split": split,
    }
    loaded = load(model)
    if estimate:
        found = estimate_harvest(loaded, texts, points, **options)
        if json:
            print_json(vars(found))
        else:
            output().print(str(found))
        return
    store = harvest(loaded, texts, points, folder, verbose=not quiet, **options)
    if json:
        statistics = {key: vars(found) for key, found in store.statistics.items()}
        print_json({"folder": str(folder), "tokens": store.tokens, "statistics": statistics})
        return
    output().print(f"{store.tokens:,} tokens in {folder}")
    for key, norms in store.statistics.items():
        output().print(f"{key}: width {store.widths[key]}, mean norm {norms.mean_norm:.4g}")
