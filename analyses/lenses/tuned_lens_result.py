"""A trained tuned lens: one affine translator for each layer (Belrose et al. 2023)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxray.arrays import evaluate
from mlxray.display import counted
from mlxray.errors import AddressError, InputError, LoadError
from mlxray.results.base import AnalysisResult
from mlxray.results.save import ENDINGS
from mlxray.storage.files import check_file, is_number, read_json, replace_files
from mlxray.storage.npz import fingerprint, read_npz, write_npz

_FORMAT = "mlxray-tuned-lens"


@dataclass(eq=False)
class TunedLens(AnalysisResult):
    """Maps residual streams of each layer to where the model's tail reads them best.

    It starts as the identity, which makes it the logit lens. ``lens(residual, layer_idx)``
    translates.

    Attributes:
        num_layers: Layers of the model.
        hidden_dim: Width D of the residual stream.
        losses: Training loss after each step: nats per token, mean over the trained layers.
        translators: One ``nn.Linear`` for each layer, float32.

    Raises:
        InputError: if a size is not positive.
    """

    result_type: ClassVar[str] = "tuned_lens"

    num_layers: int
    hidden_dim: int
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.num_layers < 1 or self.hidden_dim < 1:
            raise InputError(
                f"a tuned lens has at least one layer and one dimension; got {self.num_layers} "
                f"and {self.hidden_dim}."
            )
        self.translators = [_identity(self.hidden_dim) for _ in range(self.num_layers)]

    def __call__(self, residual: mx.array, layer_idx: int) -> mx.array:
        """Translate a layer's residual stream, (…, D) → (…, D) of the same dtype.

        Raises:
            AddressError: if the lens has no such layer.
            InputError: if the residual stream has another width.
        """
        if not -self.num_layers <= layer_idx < self.num_layers:
            raise AddressError(f"the tuned lens has {self.num_layers} layers, no {layer_idx}.")
        if residual.shape[-1] != self.hidden_dim:
            raise InputError(
                f"the tuned lens is {self.hidden_dim} wide, the residual stream "
                f"{residual.shape[-1]}."
            )
        translated: mx.array = self.translators[layer_idx](residual.astype(mx.float32))
        return translated.astype(residual.dtype)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the lens, to be read by `load`: weights to ``.npz``, the rest to ``.json``.

        Args:
            path: With either ending, or without; both files are written. ``.png``, ``.svg``,
                ``.pdf``, ``.html`` and ``.md`` write what every result writes instead.
            options: Options of a picture.

        Returns:
            The path of the weights.

        Raises:
            SaveError: if a file cannot be written; both are then as they were. A process that is
                killed while the second one is put in place leaves a pair that `load` refuses.
        """
        if Path(path).suffix.lower() in set(ENDINGS) - {".json"}:
            return super().save(path, **options)
        weights, facts = _files(path)
        arrays = {f"{i}.weight": t.weight for i, t in enumerate(self.translators)}
        arrays |= {f"{i}.bias": t.bias for i, t in enumerate(self.translators)}
        content = {"format": _FORMAT, "version": 1, **self.data}
        with replace_files(weights, facts) as (new_weights, new_facts):
            write_npz(new_weights, arrays)
            content["weights"] = fingerprint(new_weights)
            new_facts.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return weights

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """Read what `save` wrote.

        Args:
            path: With or without ``.npz`` or ``.json``.

        Raises:
            LoadError: if a file is missing, broken, something else, or of another save than the
                other one.
        """
        weights, facts = _files(path)
        for file in (weights, facts):
            if not file.exists() and not file.is_symlink():
                raise LoadError(f"there is no {str(file)!r}; a tuned lens is a .npz and a .json.")
            check_file(file)
        layers, width, losses, expected = _facts(facts)
        if expected is not None and expected != fingerprint(weights):
            raise LoadError(
                f"{str(weights)!r} and {str(facts)!r} are of different saves: save the lens again."
            )
        shapes = {"weight": (width, width), "bias": (width,)}
        arrays = read_npz(
            weights, 2 * layers, lambda name: shapes.get(_part_of_layer(name, layers))
        )
        lens = cls(layers, width, losses)
        for index, translator in enumerate(lens.translators):
            for name in shapes:
                translator[name] = mx.array(arrays[f"{index}.{name}"].astype("float32"))
        evaluate([translator.parameters() for translator in lens.translators])
        return lens

    def summary(self) -> str:
        shape = f"tuned lens of {counted(self.num_layers, 'layer')}, width {self.hidden_dim}"
        if not self.losses:
            return f"{shape}: not trained"
        return (
            f"{shape}: {self.losses[0]:.3g} to {self.losses[-1]:.3g} nats per token "
            f"in {counted(len(self.losses), 'step')}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        every = max(1, len(self.losses) // 20)
        shown = sorted({*range(0, len(self.losses), every), len(self.losses) - 1} - {-1})
        return ["step", "nats per token"], [[i, self.losses[i]] for i in shown]

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    layer.weight = mx.eye(width)
    layer.bias = mx.zeros((width,))
    return layer


def _files(path: str | Path) -> tuple[Path, Path]:
    """The weights' and the facts' file; a name may hold dots of its own."""
    text = str(Path(path).expanduser())
    for ending in (".npz", ".json"):
        text = text.removesuffix(ending)
    return Path(text + ".npz"), Path(text + ".json")


def _facts(path: Path) -> tuple[Any, Any, list[float], Any]:
    """Layers, width, losses and the fingerprint of the weights, which old files do not have."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise LoadError(f"{str(path)!r} is no tuned lens.")
    if content.get("version") != 1:
        raise LoadError(
            f"{str(path)!r} is of version {content.get('version')!r:.80}; this mlxray reads 1."
        )
    layers, width, losses = (content.get(n) for n in ("num_layers", "hidden_dim", "losses"))
    for name, size in (("num_layers", layers), ("hidden_dim", width)):
        if type(size) is not int or size < 1:
            raise LoadError(f"{str(path)!r} is broken: {name} is {size!r:.80}.")
    if not isinstance(losses, list) or not all(map(is_number, losses)):
        raise LoadError(f"{str(path)!r} is broken: losses is a list of finite numbers.")
    return layers, width, [float(loss) for loss in losses], content.get("weights")


def _part_of_layer(name: str, layers: int) -> str:
    """``"weight"`` of ``"3.weight"`` where there is such a layer."""
    index, _, part = name.partition(".")
    known = index.isascii() and index.isdigit() and str(int(index[:12])) == index
    return part if known and int(index) < layers else ""
