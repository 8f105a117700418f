"""``mlxray generate``: write on from a prompt."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..display import show_text
from .edits import Attach, Edits, edits, load_attached
from .options import PANEL, POCKET, PROMPT, Json, ModelName, Prompt, Save
from .show import show_result
from .terminal import output, working

Steps = Annotated[
    bool,
    typer.Option(
        "--steps",
        help="Show each token with its probability instead.",
        metavar="",
        rich_help_panel=PANEL,
    ),
]


def generate(
    prompt: Prompt = PROMPT,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="Most tokens to write.")
    ] = 50,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", min=0, help="0 takes the most probable token.")
    ] = 0.0,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="Choose among the k most probable; 0 for all.")
    ] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Choose among those that hold this share.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option("--min-p", help="Least probability, as a share of the top one's.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float | None,
        typer.Option("--repetition-penalty", help="Above 1, recent tokens become less likely."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Same seed, same text.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="A text that ends it; may be given several times."),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="The prompt is what a user says in the model's chat.", metavar=""
        ),
    ] = False,
    edit: Edits = None,
    model: ModelName = POCKET,
    attach: Attach = None,
    steps: Steps = False,
    json: Json = False,
    save: Save = None,
) -> None:
    """Write on from a prompt, and show how sure the model was."""
    changes = edits(edit)
    loaded = load_attached(model, attach)
    said = [{"role": "user", "content": prompt}] if chat else prompt
    with working("writing"):
        result = loaded.generate(
            said,
            max_tokens,
            temperature,
            top_k,
            top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop_strings=stop or (),
            interventions=changes,
        )
    if json or steps:
        show_result(result, json=json, save=save, drawing={})
        return
    lines = result.text if chat else prompt + result.text
    for line in lines.split("\n"):
        sys.stdout.write(show_text(line) + "\n")
    console = output()
    console.print(
        f"\n{len(result.tokens)} tokens, {result.finish_reason}, "
        f"{result.mean_logprob:.3f} nats per token",
        style="dim",
    )
    if save is not None:
        from .terminal import errors

        errors().print(f"wrote {show_text(str(result.save(save)))}", soft_wrap=True)
