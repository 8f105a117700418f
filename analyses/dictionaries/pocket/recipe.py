"""Everything that decides what the dictionaries of the embedded model become."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from mlxray.pocket import PATH
from mlxray.pocket.corpus import Corpus

from ..training.config import DictionaryConfig


@dataclass(frozen=True)
class Recipe:
    """How they are trained and measured.

    Attributes:
        layers: Of the embedded model.
        features: Of each dictionary.
        features_of_first: Of the first layer's transcoder. What that MLP reads tells little more
            than a token and the one before, and of more features many are never on.
        k: Features per token in training, on average.
        learning_rate: Peak rate.
        batch_size: Tokens of a step.
        rows: Rows of text to train on; each token is read once.
        fresh_rows: Other rows, to measure on.
        length: Tokens of a row.
        seed: Of the rows, their order and the first parameters.
    """

    layers: int = 5
    features: int = 512
    features_of_first: int = 256
    k: int = 16
    learning_rate: float = 2e-3
    batch_size: int = 1024
    rows: int = 6000
    fresh_rows: int = 400
    length: int = 128
    seed: int = 0

    def texts(self, purpose: str, rows: int) -> list[list[int]]:
        """Rows of token ids from the generators that the embedded model learnt from.

        Args:
            purpose: Rows for another purpose are other rows.
            rows: How many.
        """
        corpus = Corpus(Tokenizer.from_file(str(PATH / "tokenizer.json")))
        rng = Random(f"dictionaries/{purpose}/{self.seed}")
        return [corpus.row(rng, self.length)[0] for _ in range(rows)]

    def points(self) -> list[str]:
        """What is read or written by one of them."""
        every = ("resid_post", "mlp.input", "mlp_out")
        return [f"layers.{layer}.{point}" for layer in range(self.layers) for point in every]

    def configs(self) -> dict[str, DictionaryConfig]:
        """Name → settings, of each layer's autoencoder and transcoder."""
        found = {}
        for layer in range(self.layers):
            place = f"layers.{layer}"
            features = self.features if layer else self.features_of_first
            found[f"{place}.resid_post"] = self._config(f"{place}.resid_post", None, self.features)
            found[f"{place}.mlp"] = self._config(f"{place}.mlp.input", f"{place}.mlp_out", features)
        return found

    def _config(self, reads: str, writes: str | None, features: int) -> DictionaryConfig:
        return DictionaryConfig(
            kind="batch_topk",
            n_features=features,
            k=self.k,
            reads=reads,
            writes=writes,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
