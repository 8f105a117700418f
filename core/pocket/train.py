"""Train the pocket model: ``python -m mlxray.pocket.train``.

Half an hour on two CPU cores, some minutes on a GPU. A run that was stopped goes on from its last
checkpoint when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path

import mlx.core as mx
from tqdm import tqdm

from ..storage.files import write_text
from .model import Shape, count_parameters, save_model
from .tokenizer import build_tokenizer, save_tokenizer
from .trainer import Recipe, Trainer


def train(
    recipe: Recipe, out: Path, *, lanes: int = 1, save_every: int = 500, resume: bool = True
) -> Trainer:
    """Run a recipe to its end and write the model folder ``out``; returns the trainer.

    ``out/checkpoint.safetensors`` is written every ``save_every`` steps and removed at the end.
    """
    tokenizer = build_tokenizer()
    trainer = Trainer(recipe, tokenizer, lanes)
    checkpoint = out / "checkpoint.safetensors"
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
    mean = None
    with (
        ThreadPoolExecutor(1) as ahead,
        tqdm(total=recipe.steps, initial=trainer.done, unit="step", mininterval=2) as bar,
    ):
        coming = ahead.submit(trainer.batch, trainer.done)
        while trainer.done < recipe.steps:
            batch = coming.result()
            coming = ahead.submit(trainer.batch, trainer.done + 1)
            loss = trainer.step(batch)
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            bar.update()
            if trainer.done % 20 == 0:
                speed = trainer.tokens / trainer.seconds
                bar.set_postfix_str(f"loss {mean:.3f}, {speed:.0f} tokens/s", refresh=False)
            if trainer.done % save_every == 0:
                trainer.save(checkpoint)
    save_model(trainer.trained_model(), recipe.shape, out)
    save_tokenizer(tokenizer, out)
    facts = {
        "recipe": asdict(recipe),
        "parameters": count_parameters(trainer.model),
        "tokens": trainer.tokens,
        "final_loss": mean,
        "device": "GPU" if mx.default_device() == mx.Device(mx.gpu) else "CPU",
        "lanes": lanes,
        "seconds": round(trainer.seconds, 1),
        "cpu_seconds": round(trainer.cpu_seconds, 1),
        "tokens_per_second": round(trainer.tokens / trainer.seconds),
    }
    write_text(out / "training.json", json.dumps(facts, indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)
    return trainer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlxray.pocket.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("pocket"), help="folder to write")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: MLX's own choice")
    parser.add_argument("--lanes", type=int, help="streams to split a batch over (CPU: 2)")
    parser.add_argument("--fresh", action="store_true", help="ignore a checkpoint in --out")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    for kind, default in ((Recipe, Recipe()), (Shape, Shape())):
        for item in fields(kind):
            if item.name != "shape":
                value = getattr(default, item.name)
                name = "--" + item.name.replace("_", "-")
                parser.add_argument(name, type=type(value), default=value, help=f"default {value}")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = vars(_parser().parse_args(arguments))
    if given["device"]:
        mx.set_default_device(mx.Device(mx.cpu if given["device"] == "cpu" else mx.gpu))
    shape = Shape(**{item.name: given[item.name] for item in fields(Shape)})
    names = [item.name for item in fields(Recipe) if item.name != "shape"]
    recipe = replace(Recipe(shape=shape), **{name: given[name] for name in names})
    on_cpu = mx.default_device() == mx.Device(mx.cpu)
    lanes = given["lanes"] or (2 if on_cpu else 1)
    train(
        recipe, given["out"], lanes=lanes, save_every=given["save_every"], resume=not given["fresh"]
    )


if __name__ == "__main__":
    main()
