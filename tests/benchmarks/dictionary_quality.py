"""What a model loses with dictionaries trained on it: of each layer's stream, and of each MLP.

Run ``python tests/benchmarks/dictionary_quality.py MODEL TEXTS.json [--features 512 2048]``. Where
two numbers are given, the first is of autoencoders of the residual stream, the second of
transcoders of MLPs. TEXTS.json is a list of texts. Nine tenths of them are trained on, and some of
the rest measured. Loss recovered is (zeros − spliced) / (zeros − clean); dead are features that no
measured token turns on. The last line says whether all recover 90 % of the loss with at most 20
features per token, and have less than a tenth of dead ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from mlxray import InterpretableModel
from mlxray.analyses.activations import harvest
from mlxray.analyses.dictionaries import DictionaryConfig, train_dictionaries

POINTS = ("resid_post", "mlp.input", "mlp_out")


def configs(layers: list[int], options: argparse.Namespace) -> list[DictionaryConfig]:
    """An autoencoder and a transcoder of each layer."""
    forms = (("resid_post", None), ("mlp.input", "mlp_out"))
    return [
        DictionaryConfig(
            kind="batch_topk",
            n_features=features,
            k=k,
            reads=f"layers.{layer}.{reads}",
            writes=writes and f"layers.{layer}.{writes}",
            skip=options.skip and writes is not None,
            learning_rate=options.learning_rate,
        )
        for layer in layers
        for (reads, writes), features, k in zip(forms, options.features, options.k, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", help="only these layers")
    parser.add_argument("--skip", action="store_true", help="transcoders with a linear map beside")
    parser.add_argument("--features", type=int, nargs=2, default=(512, 2048))
    parser.add_argument("--k", type=int, nargs=2, default=(16, 20))
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=750_000)
    parser.add_argument("--measured", type=int, default=30, help="texts to measure on")
    options = parser.parse_args()
    texts = json.loads(options.texts.read_text(encoding="utf-8"))
    cut = len(texts) * 9 // 10
    model = InterpretableModel(options.model)
    layers = options.layers or list(range(len(model.layers)))
    points = [f"layers.{layer}.{point}" for layer in layers for point in POINTS]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = harvest(
            model,
            texts[:cut],
            points,
            folder,
            context=options.context,
            max_tokens=options.max_tokens,
            verbose=False,
        )
        tokens = store.tokens
        results = train_dictionaries(
            store,
            configs(layers, options),
            batch_size=options.batch_size,
            epochs=options.epochs,
            verbose=False,
        )
    print(
        f"{Path(options.model).name}: {len(results)} dictionaries, {tokens} tokens × "
        f"{options.epochs}, {time.perf_counter() - began:.0f} s",
        flush=True,
    )
    good = True
    for result in results:
        report = model.evaluate_dictionary(
            result.dictionary,
            texts[cut : cut + options.measured],
            skip_first=1,
            context=options.context,
        )
        recovered, mean = report.loss_recovered or 0.0, report.loss_recovered_from_mean or 0.0
        good &= recovered >= 0.9 and report.l0 <= 20 and report.dead < 0.1
        print(
            f"{result.dictionary.writes:20} {result.dictionary.n_features:4}  recovered "
            f"{recovered:6.1%} (against the mean {mean:6.1%})  "
            f"EV {report.explained_variance:.3f}  L0 {report.l0:4.1f}  dead {report.dead:5.1%}  "
            f"loss {report.loss_clean:.3f} -> {report.loss_spliced:.3f}",
            flush=True,
        )
    print("all within" if good else "NOT all within", "90 % recovered, L0 <= 20, dead < 10 %")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
