"""The sweep engine: many patched runs as rows of few forward passes.

A cell is one patched run. Cells are sorted by the layer at which their first patch sits, and run
together in one pass whose batch grows: before its first patch a cell is the base run, so its row
joins at that layer with the base run's residual stream, or behind that layer where nothing in the
block reads the patched value. What lies before the first row's layer is skipped, positions before
the first patched one are reused, and the head sees only the positions that are asked for. The
numbers are those of one full forward pass per cell, up to the rounding of sums and of differently
shaped matrix products.

On CUDA batches have few different sizes, for MLX plans fused attention there anew for every shape
that it meets. A plan takes longer than several blocks of a large model, and only 256 are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, nested, start_evaluating
from mlxray.errors import AddressError, InputError
from mlxray.points.sites import first_argument
from mlxray.run.run import Run
from mlxray.run.tail import execute_at
from mlxray.seams.edits import Edit
from mlxray.tokens import Batch

from .dense import unpack, unpacked_bytes
from .patches import Cell, Dictionary, Patch, Values, patch_edit
from .plan import Plan
from .reuse import (
    BEFORE_MLP,
    Prefixes,
    adds_itself,
    append_rows,
    derived_width,
    reads_the_text,
    resumable,
    reusable,
    trim_last_mlp,
    trimmable,
    writes_later,
)

#: Memory that a pass may take where the caller sets no budget.
DEFAULT_BUDGET = 1 << 30

#: Rows × tokens of one pass beyond which larger batches no longer run faster.
ENOUGH_TOKENS = 4096

#: Prefixes are reused in multiples of at least this many positions, so that passes stay large.
PREFIX_STEP = 4

#: Where each new shape costs time: how many prefixes a sweep has, and sizes the batch of a pass.
FEW = 8


def shapes_cost() -> bool:
    """Whether each new shape of an array costs the device time."""
    return bool(mx.cuda.is_available() and mx.default_device() == mx.gpu)


class Sweep:
    """Patched runs of one base prompt.

    Args:
        model: The model.
        base: One prompt; what a cell does not patch is its run.
        positions: Positions whose logits are wanted.
        budget: Bytes that the activations of one pass may take.
        dictionary: Units of patches are its features instead of the activation's own.

    Raises:
        InputError: if `base` holds several prompts, or a position does not exist.
    """

    def __init__(
        self,
        model: InterpretableModel,
        base: Batch,
        *,
        positions: Sequence[int] = (-1,),
        budget: int = DEFAULT_BUDGET,
        dictionary: Dictionary | None = None,
    ) -> None:
        if len(base.lengths) != 1:
            raise InputError("a sweep has one base prompt; run one sweep for each.")
        self.model = model
        self.layout = model.layout
        self.ids = base.ids
        self.positions = [base.index(0, p) for p in positions]
        self.budget = budget
        self.dictionary = dictionary
        self._few_shapes = shapes_cost()
        self._own: dict[str, mx.array] = {}
        self._prefixes: Prefixes | None = None

    def sources(self, other: Batch, addresses: Sequence[str]) -> dict[str, mx.array]:
        """Activations of another prompt of the same length, to take patched values from.

        Both prompts run in one pass, which also gives the base run's residual stream.

        Raises:
            InputError: if the lengths differ.
        """
        if other.ids.shape != self.ids.shape:
            raise InputError(
                f"the prompts have {other.ids.shape[1]} and {self.ids.shape[1]} tokens; "
                "patching by position needs prompts of equal length."
            )
        wanted = dict.fromkeys([*addresses, *self._stream()])
        both = Batch(mx.concatenate([other.ids, self.ids]), (self.ids.shape[1],) * 2)
        cache = self.model.activations(both, list(wanted))
        self._own |= {address: cache[address][1:] for address in wanted}
        return {address: cache[address][:1] for address in addresses}

    def _stream(self) -> list[str]:
        """Where rows join: before each layer, and behind the last one."""
        if not resumable(self.layout):
            return []
        layers = self.layout.n_layers
        before = [f"layers.{layer}.resid_pre" for layer in range(layers)]
        return [*before, f"layers.{layers - 1}.resid_post"]

    def own(self, address: str) -> mx.array:
        """What the base run has at an address."""
        if address not in self._own:
            base = Batch(self.ids, (self.ids.shape[1],))
            missing = [a for a in [address, *self._stream()] if a not in self._own]
            cache = self.model.activations(base, missing)
            self._own |= {a: cache[a] for a in missing}
        return self._own[address]

    # The plain way

    def naive(self, cell: Cell, values: Values) -> mx.array:
        """One full forward pass with the cell's patches: logits (P, V). For checking."""
        run = Run(self.layout, edits=self._edits([(0, patch) for patch in cell], values))
        logits: mx.array = run.execute(self.ids)
        return logits[0, mx.array(self.positions)]

    # The fast way

    def passes(self, cells: Sequence[Cell]) -> list[tuple[int, list[int]]]:
        """Which cells share a pass: (positions reused, indices into `cells` by joining layer)."""
        if not all(cells):
            raise InputError("a cell needs at least one patch.")
        groups: dict[tuple[int, int], list[int]] = {}
        for index, cell in enumerate(cells):
            # A change that is written into later layers goes with the rows that it was made of.
            alone = self._joins(cell)[0] if any(writes_later(self.layout, p) for p in cell) else -1
            groups.setdefault((self._prefix(cell), alone), []).append(index)
        units = derived_width(self.layout, cells)
        found = []
        for (prefix, _), indices in sorted(groups.items()):
            order = sorted(indices, key=lambda i: self._joins(cells[i]))
            # In equal parts: a last pass of a few rows costs nearly as much as a full one.
            rows = -(-len(order) // -(-len(order) // self.rows_per_pass(prefix, units)))
            found += [(prefix, order[i : i + rows]) for i in range(0, len(order), rows)]
        return found

    def _prefix(self, cell: Cell) -> int:
        """How many leading positions the cell's row need not compute, in steps."""
        first = min(-1 if p.position is None else p.position for p in cell)
        wanted = min([first, *self.positions])
        step = max(PREFIX_STEP, -(-self.ids.shape[1] // FEW) if self._few_shapes else 0)
        if wanted < step or not all(reusable(self.layout, p.component) for p in cell):
            return 0
        if any(reads_the_text(self.layout, p) for p in cell):
            return 0
        return wanted - wanted % step

    def rows_per_pass(self, prefix: int = 0, units: int = 0) -> int:
        """Rows that fit the budget and still make a pass faster."""
        tokens = self.ids.shape[1] - prefix
        fit = max(1, (self.budget - self._base_bytes()) // self.row_bytes(prefix, units))
        return int(min(fit, max(1, ENOUGH_TOKENS // tokens)))

    def _base_bytes(self) -> int:
        """Bytes that stay beside the rows: the base run's keys and values, and a weight."""
        return self.row_bytes() + unpacked_bytes(self.layout)

    def row_bytes(self, prefix: int = 0, units: int = 0) -> int:
        """Bytes that one row of a pass takes at most, from the widths of the model.

        Sixteen arrays of the stream's width, four of the widest projection's, and three of the
        attention scores' live at once, and with a prefix its keys and values for each row;
        measured peaks stay below. Scores and logits count as float32, which they may become. Of
        features that are patched, `units` of a token, six arrays count.
        """
        block = self.layout.modules[self.layout.block(0)]
        sizes = [m.weight.shape[0] for m in block.modules() if "weight" in m]
        width, size = max(sizes), 4
        if resumable(self.layout):
            stream = self.own("layers.0.resid_pre")
            width, size = stream.shape[-1], stream.itemsize
        widest = max(sizes, default=width)
        whole = self.ids.shape[1]
        tokens = whole - prefix
        vocabulary = self.model.tokens.vocabulary or width
        features = 6 * tokens * units
        hidden = tokens * (16 * width + 4 * max(widest, width)) + 2 * prefix * width
        scores = 3 * self._heads() * tokens * whole
        return int(size * hidden + 4 * (scores + features + len(self.positions) * vocabulary))

    def _heads(self) -> int:
        try:
            return self.layout.heads(0)
        except AddressError:
            return 1

    def _joins(self, cell: Cell) -> tuple[int, str]:
        """Where the cell's row joins a pass: the layer, and what is patched before that.

        The number of layers stands for the final norm.
        """
        added = self._added(cell)
        first = min(patch.layer for patch in cell)
        if added is None:
            return first, ""
        return first + (added.component != "resid_pre"), added.component

    def _added(self, cell: Cell) -> Patch | None:
        """The cell's first patch, where its row can join with it done."""
        first = min(patch.layer for patch in cell)
        patch, *others = [patch for patch in cell if patch.layer == first]
        return patch if not others and adds_itself(self.layout, patch) else None

    def _joining(self, cells: Sequence[Cell], values: Values) -> mx.array:
        """The residual stream with which rows that join at one place do so, (n, S, D)."""
        layer, component = self._joins(cells[0])
        behind = layer == self.layout.n_layers
        stream = self.own(f"layers.{layer - behind}.resid_{'post' if behind else 'pre'}")
        if not component:
            return mx.broadcast_to(stream, (len(cells), *stream.shape[1:]))
        patches = [(i, p) for i, cell in enumerate(cells) if (p := self._added(cell)) is not None]
        address, factor = patches[0][1].address, adds_itself(self.layout, patches[0][1])
        is_stream = component in ("resid_pre", "resid_post")
        own = stream if is_stream else self.own(address)
        own = mx.broadcast_to(own, (len(cells), *own.shape[1:]))
        new = patch_edit(patches, values[address], 0, self.dictionary)(own)
        if is_stream:
            return new
        change = new.astype(mx.float32) - own.astype(mx.float32)
        return (stream.astype(mx.float32) + factor * change).astype(stream.dtype)

    def plan(self, cells: Sequence[Cell]) -> Plan:
        """What running these cells will take."""
        passes = self.passes(cells)
        layers = self.layout.n_layers
        units = derived_width(self.layout, cells)
        sizes = (len(rows) * self.row_bytes(prefix, units) for prefix, rows in passes)
        largest = max(sizes, default=0)
        return Plan(
            len(cells),
            len(passes),
            largest + self._base_bytes(),
            sum(layers - self._joins(cells[i])[0] for _, indices in passes for i in indices),
        )

    def effects(
        self,
        cells: Sequence[Cell],
        values: Values,
        measure: Callable[[mx.array], mx.array],
        *,
        naive: bool = False,
        progress: str | None = None,
    ) -> list[float]:
        """One number for each cell.

        Under ``mlx.launch`` each process runs its share of the passes and all get all numbers.

        Args:
            cells, values, naive: See `logits`.
            measure: Logits (n, V) of the wanted position, or (n, P, V) of several, → (n,).
            progress: Title of a progress bar; None for no bar.
        """
        group = mx.distributed.init()
        found = mx.zeros(len(cells))
        with tqdm(total=len(cells), desc=progress, disable=progress is None, unit="run") as bar:
            for indices, logits in self.logits(cells, values, naive=naive, group=group):
                seen = logits[:, 0] if len(self.positions) == 1 else logits
                found[mx.array(indices)] = measure(seen)
                evaluate(found)
                bar.update(len(indices))
        if group.size() > 1:
            found = mx.distributed.all_sum(found, group=group)
        numbers: list[float] = nested(found)
        return numbers

    def logits(
        self,
        cells: Sequence[Cell],
        values: Values,
        *,
        naive: bool = False,
        group: Any = None,
    ) -> Iterator[tuple[list[int], mx.array]]:
        """Run all cells.

        Args:
            cells: The patched runs; each has at least one patch.
            values: Address → activation to take patched values from, (1, …) like the base's.
            naive: One full forward pass for each cell.
            group: Run this process's share only.

        Yields:
            Indices into `cells` and their logits (n, P, V), evaluated, one pass at a time.
        """
        share = slice(group.rank(), None, group.size()) if group is not None else slice(None)
        if naive or not resumable(self.layout):
            for index, cell in list(enumerate(cells))[share]:
                logits = self.naive(cell, values)[None]
                evaluate(logits)
                yield [index], logits
            return
        waiting: tuple[list[int], mx.array] | None = None
        for prefix, indices in self.passes(cells)[share]:
            # Built, not evaluated, while the device still works on the pass before.
            logits = self._pass([cells[i] for i in indices], values, prefix)
            if waiting is not None:
                evaluate(waiting[1])
                yield waiting
            start_evaluating(logits)
            waiting = indices, logits
        if waiting is not None:
            evaluate(waiting[1])
            yield waiting

    def _pass(self, cells: Sequence[Cell], values: Values, prefix: int) -> mx.array:
        """Logits of cells sorted by joining layer, in one pass with a growing batch."""
        places = [self._joins(cell) for cell in cells]
        run = Run(self.layout)
        unpack(run, len(cells) * (self.ids.shape[1] - prefix))
        first, _ = places[0]
        for layer in range(first):
            run.skip(self.layout.block(layer), first_argument)
        present, step = 0, -(-len(cells) // FEW) if self._few_shapes else 1
        for layer, together in groupby(sorted(set(places)), key=itemgetter(0)):
            groups = [[c for c, at in zip(cells, places, strict=True) if at == p] for p in together]
            rows = mx.concatenate([self._joining(group, values) for group in groups])[:, prefix:]
            count = present + rows.shape[0]
            size = min(len(cells), -(-count // step) * step)
            grow = append_rows(rows, present=present, size=size)
            behind = layer == self.layout.n_layers
            path = self.layout.adapter.final_norm if behind else self.layout.block(layer)
            run.handler(path).changes.before.append(grow)
            present = count
        patches = [
            (row, patch)
            for row, cell in enumerate(cells)
            for joined in [self._added(cell)]
            for patch in cell
            if patch is not joined
        ]
        run.plan_edits(self._edits(patches, values, prefix))
        positions = [p - prefix for p in self.positions]
        layers = self.layout.n_layers
        reaching = {
            p.component for _, p in patches if p.layer == layers - 1 or writes_later(self.layout, p)
        }
        if reaching <= set(BEFORE_MLP) and first < layers and trimmable(self.layout):
            trim_last_mlp(run, positions)
        return execute_at(run, self.ids[:, prefix:], positions, self._caches(prefix))

    def _caches(self, prefix: int) -> Any:
        if not prefix:
            return None
        if self._prefixes is None:
            self._prefixes = Prefixes(self.layout, self.ids)
        return self._prefixes.caches(prefix)

    def _edits(
        self, rows: Sequence[tuple[int, Patch]], values: Values, prefix: int = 0
    ) -> list[Edit]:
        sites: dict[str, list[tuple[int, Patch]]] = {}
        for row, patch in rows:
            sites.setdefault(patch.address, []).append((row, patch))
        return [
            Edit(
                address,
                patch_edit(patches, values[address], prefix, self.dictionary),
                allow_unchanged=True,
            )
            for address, patches in sites.items()
        ]
