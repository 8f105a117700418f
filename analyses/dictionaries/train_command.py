"""``mlxray train-dictionary``: sparse dictionaries from a store of activations, or from texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlxray.analyses.activations import ActivationStore, harvest
from mlxray.analyses.activations.sound import SoundShards
from mlxray.analyses.activations.texts import documents
from mlxray.cli.options import PANEL, POCKET, Json, load
from mlxray.cli.readers import reader_for
from mlxray.cli.terminal import output, print_json

from .choices import choices, in_words_of, points_of
from .estimate import Expected, TrainingEstimate, estimate_training, widths_of
from .evaluate import evaluate_dictionary
from .into_folder import check_target, train_into
from .report_result import DictionaryReport
from .training.training_result import TrainingResult

_TRAINING, _TEXTS = "Training", "Texts"


def train_command(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A store that mlxray harvest made; or texts: a text file, JSON lines (.jsonl), "
            "or datasets:NAME[:SPLIT].",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="To write into; a training there goes on.")
    ],
    features: Annotated[
        list[int],
        typer.Option("--features", "-f", metavar="INT", help="Features. May be repeated."),
    ],
    reads: Annotated[
        list[str] | None,
        typer.Option(
            "--reads",
            "-r",
            metavar="ADDRESS",
            help="Such as layers.3.resid_post; several make a crosscoder. The store's only point "
            "if left out.",
        ),
    ] = None,
    writes: Annotated[
        list[str] | None,
        typer.Option(
            "--writes",
            "-w",
            metavar="ADDRESS",
            help="What a transcoder reconstructs: as many as are read.",
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each", metavar="", help="A dictionary for each --reads, instead of one for all."
        ),
    ] = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="NAME",
            help="relu, gated, jumprelu, topk (if left out), batch_topk or matryoshka. May be "
            "repeated, and so may the next ones: every combination is trained, in one pass.",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", metavar="INT", help="Features per token of the top-k kinds."),
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option("--sparsity", metavar="NUMBER", help="Penalty of the other kinds."),
    ] = None,
    target_l0: Annotated[
        list[float] | None,
        typer.Option("--target-l0", metavar="NUMBER", help="Features per token of jumprelu."),
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option("--learning-rate", metavar="NUMBER", help="Peak rate of AdamW."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option("--seed", metavar="INT", help="Of the first parameters."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another setting of DictionaryConfig: skip=true."
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", metavar="INT", help="Tokens of a step.", rich_help_panel=_TRAINING
        ),
    ] = 4096,
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", metavar="INT", help="How often a token comes.", rich_help_panel=_TRAINING
        ),
    ] = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="INT",
            help="Steps, in place of --epochs.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    data_seed: Annotated[
        int,
        typer.Option(
            "--data-seed",
            metavar="INT",
            help="Of the order of the data.",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
    checkpoint_every: Annotated[
        int,
        typer.Option(
            "--checkpoint-every",
            metavar="INT",
            help="Steps between two checkpoints.",
            rich_help_panel=_TRAINING,
        ),
    ] = 1000,
    skip_corrupt: Annotated[
        bool,
        typer.Option(
            "--skip-corrupt",
            metavar="",
            help="Leave out damaged shards of the store.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    context: Annotated[
        int,
        typer.Option(
            "--context", metavar="INT", help="Tokens of a row of text.", rich_help_panel=_TEXTS
        ),
    ] = 128,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="INT",
            help="Harvest no more.",
            show_default=False,
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    field: Annotated[
        str,
        typer.Option(
            "--field", metavar="NAME", help="Field with the text.", rich_help_panel=_TEXTS
        ),
    ] = "text",
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="NAME",
            help="What a document is: paragraph, line or document.",
            rich_help_panel=_TEXTS,
        ),
    ] = "paragraph",
    evaluate: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            "-e",
            metavar="TEXTS",
            help="Measure the finished dictionaries on these texts.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None,
    skip_first: Annotated[
        int,
        typer.Option(
            "--skip-first",
            metavar="INT",
            help="Tokens at the start of each of them that are neither counted nor replaced.",
            rich_help_panel=PANEL,
        ),
    ] = 1,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of the files; saelens if left out, where it can hold the dictionary.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            metavar="",
            help="Say how much it would be, and stop.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            metavar="",
            help="No estimate and no progress bar.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="pocket (the embedded model), a local folder, or a hub id; the store's own if "
            "left out.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train sparse dictionaries on a model's activations, in one pass over them, and write them.

    Stopped or killed, the same command goes on where it was. With --evaluate it then tells how
    sparse each is, what it explains, and what the model loses with it.
    """
    axes: dict[str, list[Any]] = {
        "n_features": features,
        "k": k or [],
        "sparsity": sparsity or [],
        "target_l0": target_l0 or [],
        "learning_rate": learning_rate or [],
        "seed": seed or [],
    }
    configs = choices(
        kinds or ["topk"], axes, reads or [], writes or [], each=each, more=_settings(more)
    )
    if evaluate is not None:
        documents(evaluate)  # before the work, see that it is there
    training: Any = {"batch_size": batch_size, "epochs": epochs, "steps": steps}
    harvesting: Any = {"context": context, "max_tokens": max_tokens, "field": field, "split": split}
    if Path(data).expanduser().is_dir():
        store = ActivationStore(data)
        # A store knows its model, which is needed to measure.
        name = model or (None if evaluate is None else store.manifest.plan.name)
        loaded = None if name is None else load(name)
        if loaded is not None:
            store.check_model(loaded)
    else:
        loaded = load(model or POCKET)
        points = points_of(configs)
        check_target(folder, configs, widths_of(loaded, points), layout)
        if estimate:
            expected = Expected.of(loaded, data, points, harvesting)
            _tell(estimate_training(expected, [*configs.values()], **training), expected, json)
            return
        place = folder / "activations"
        store = harvest(loaded, data, points, place, verbose=not quiet, **harvesting)
    configs = in_words_of(store, configs)
    rows = SoundShards(store) if skip_corrupt else store
    if estimate:
        _tell(estimate_training(rows, [*configs.values()], **training), None, json)
        return
    results = train_into(
        folder,
        rows,
        configs,
        format=layout,
        data_seed=data_seed,
        checkpoint_every=checkpoint_every,
        verbose=not quiet,
        **training,
    )
    reports: dict[Path, DictionaryReport] = {}
    if evaluate is not None and loaded is not None:
        for place, result in results.items():
            reports[place] = evaluate_dictionary(
                loaded,
                result.dictionary,
                evaluate,
                skip_first=skip_first,
                context=context,
                field=field,
                split=split,
                verbose=not quiet,
            )
    _show(results, reports, json)


def _settings(words: list[str] | None) -> dict[str, Any]:
    """What ``--set`` gives.

    Raises:
        BadParameter: if a word is no KEY=VALUE.
    """
    reader = reader_for(dict[str, Any])
    assert reader is not None
    try:
        found: dict[str, Any] = reader.value(words or [])
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--set") from None
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def _tell(training: TrainingEstimate, expected: Expected | None, json: bool) -> None:
    """The estimates."""
    if json:
        estimates = {"training": vars(training)}
        print_json({"harvest": vars(expected.harvest), **estimates} if expected else estimates)
        return
    if expected is not None:
        output().print(f"harvest: {expected.harvest}")
    output().print(f"training: {training}")


def _show(
    results: dict[Path, TrainingResult], reports: dict[Path, DictionaryReport], json: bool
) -> None:
    """What came out."""
    if json:
        print_json(
            [
                {
                    "folder": str(place),
                    "dictionary": repr(result.dictionary),
                    "steps": result.steps,
                    "tokens": result.tokens,
                    "resumed_at": result.metadata["resumed_at"],
                    "final": dict(result.final),
                    "report": _numbers(reports[place]) if place in reports else None,
                }
                for place, result in results.items()
            ]
        )
        return
    for place, result in results.items():
        output().print(f"{place}: {result.summary()}", soft_wrap=True)
        if place in reports:
            output().print(f"  measured: {reports[place].summary()}", soft_wrap=True)


def _numbers(report: DictionaryReport) -> dict[str, Any]:
    _, rows = report.rows()
    return dict(rows)
