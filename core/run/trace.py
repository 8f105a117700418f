"""A trace: one run, written as a block. Reads in the block see the edits written above them."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any
from weakref import ref

import mlx.core as mx

from ..arrays import arrays_of, evaluate, held, nested, truth
from ..checks.finite import NaNCheck
from ..errors import TraceError
from ..interventions import replace_in_block
from ..points.layout import Layout
from ..points.vocabulary import AddressLike
from ..seams.edits import Edit, EditReport
from .activations import Activations, Walk
from .run import Run
from .wrapped import WrappedModel

# Weak: Ctrl-C can strike between a block and its __exit__, and must leave nothing open.
_open: ContextVar[tuple[ref[Trace], ...]] = ContextVar("mlxray_open_traces", default=())


def in_code(name: str) -> str:
    """A name of an activation as it stands in code: ``model.layers[3].output``."""
    return re.sub(r"\.(\d+)", r"[\1]", f"model.{name}")


def open_trace(model: WrappedModel) -> Trace | None:
    """The innermost open trace of `model` in this thread."""
    for opened in reversed(_open.get()):
        trace = opened()
        if trace is not None and trace.model is model:
            return trace
    return None


def current_trace(model: WrappedModel, name: str, owner: ref[Trace] | None = None) -> Trace:
    """The trace that an activation belongs to: `owner`, or the innermost open one of `model`.

    Raises:
        TraceError: if it is not open in this thread; `name` is the activation that was asked for.
    """
    what = in_code(name)
    if owner is None:
        trace = open_trace(model)
    else:
        trace = owner() if owner in _open.get() else None
        if trace is None and open_trace(model) is not None:
            raise TraceError(
                f"this {what} was taken in another trace, which is over, and was not saved there. "
                "Save it in its own block and use what that returns:\n"
                "    with model.trace(prompt):\n"
                f"        value = {what}.save()\n"
                f"Or write {what} again for the activation of this trace."
            )
    if trace is not None:
        return trace
    raise TraceError(
        f"{what} exists only during a run. Write:\n"
        "    with model.trace(prompt):\n"
        f"        value = {what}.save()"
    )


def resolved_in_block(model: WrappedModel) -> Layout:
    """The layout of `model`: in a block of its traces, as it was when the run began."""
    traces = [opened() for opened in _open.get()]
    inside = any(trace is not None and trace.model is model for trace in traces)
    return model.resolved if inside else model.layout


class Trace:
    """One run of a model, opened by ``with model.trace(…)``.

    The forward pass is built when something is first read, and computed at the end of the block:
    the output and what was saved. Other activations are not held; `activations` answers for them
    afterwards by running again, and checks that the second run gives the very same output.

    What is read in one trace should come from one pass, and the pass is built before the second
    read is known. So the layout remembers what was read in earlier traces after the same first
    read (``layout.read_together``), and the pass keeps just that. A first read that is new keeps
    everything, which costs time in Python (about as much again as building the pass) and no
    computation. Where a remembered plan lacks what is read, the pass is built again with
    everything: the values are the same, and what was read before is computed a second time, once
    for each such combination.

    Attributes:
        model: The model that runs.
        batch: The tokens, right-padded, with the length of each prompt.
        saved_values: What ``.save()`` was called on, by name (``"layers.3.output"``).
    """

    def __init__(
        self,
        model: WrappedModel,
        inputs: Any,
        edits: Sequence[Edit],
        *,
        allow_unchanged: bool,
    ) -> None:
        self.model = model
        self.batch = model.tokens.batch(inputs)
        self.saved_values: dict[str, Any] = {}
        self._edits: list[tuple[str, Callable[..., Any]]] = [(e.address, e.fn) for e in edits]
        self._allow_unchanged = allow_unchanged
        self._run: Run | None = None
        self._logits: Any = None
        self._output: Any = None
        self._over = False
        self._reports: list[EditReport] | None = None
        self._random: int | None = None
        self._outer: tuple[ref[Trace], ...] | None = None
        self._final: dict[str, Any] = {}
        self._also: list[str] = []
        self._first: str | None = None
        self._walk: Walk | None = None
        self._names: list[str] | None = None

    def __enter__(self) -> Trace:
        if self._outer is not None:
            raise TraceError("this trace was entered before; start a new one.")
        for address, _ in self._edits:
            self.model.resolved.site(address)
        self._outer = _open.get()
        try:
            _open.set((*self._outer, ref(self)))
        except KeyboardInterrupt:
            _open.set(self._outer)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._outer is not None
        _open.set(self._outer)
        try:
            if kind is None:
                self._check_open()
                run = self._run or self._begin()
        finally:
            self._over = True
            output, self._run, self._logits = self._logits, None, None
        if kind is None:
            run.forget()
            kept = [*self.saved_values.values(), *self._final.values()]
            check = NaNCheck(self.saved_values, output, edited=bool(self._edits))
            self._reports = run.settle(output, *arrays_of(kept), *check.pending)
            self._output = output
            check.warn(stacklevel=3)

    # In the block

    def read(self, address: AddressLike) -> Any:
        """The activation at `address`; lazy, so looking at its shape costs nothing.

        Raises:
            AddressError: if nothing matches.
            TraceError: after the block (use `activations`) or before it.
        """
        site = self.model.resolved.site(address)
        run = self._run_for(site.key)
        if not run.keeps(site):
            self._also.append(site.key)
            run = self._begin(everything=True)
        value = held(site.read(run))
        self._remember(site.key)
        return value

    def save(self, address: AddressLike, name: str | None = None) -> Any:
        """Read the activation and keep it past the block, under `name`."""
        value, key = self.read(address), self.model.resolved.site(address).key
        self.saved_values[name or key] = held(value)
        self._final[key] = held(value)
        return value

    def edit(self, address: AddressLike, change: Any) -> None:
        """Edit the run from here on: reads below this line see it.

        Args:
            address: A point or a module path, ``.input`` included.
            change: A function of the activation, or the value to put there.
        """
        key = self.model.resolved.site(address).key
        if self._outer is None or self._over:
            raise TraceError("edits are made inside the block of a trace.")
        self._edits.append((key, change if callable(change) else replace_in_block(change)))
        self._run = self._logits = self._first = None
        self._final.clear()

    def _check_open(self) -> None:
        if self._outer is None:
            raise TraceError("open the trace first: `with model.trace(prompt) as trace:`.")
        self._refuse_if_broken_off()
        if self._over:
            raise TraceError(
                "the trace is over. Save inside the block, or read trace.activations[…] after it."
            )

    def _run_for(self, key: str) -> Run:
        """The pass since the last edit; if `key` begins it, with what was read after it before."""
        self._check_open()
        if self._run is not None:
            return self._run
        self._first = key
        plan = self.model.resolved.read_together.get(key)
        return self._begin(everything=plan is None, watch=plan or ())

    def _begin(self, *, everything: bool = False, watch: Iterable[str] = ()) -> Run:
        run, self._logits = self._start(everything=everything, watch=[*watch, *self._also])
        self._run = run
        return run

    def _remember(self, key: str) -> None:
        together = self.model.resolved.read_together
        if self._first is not None:
            known = together.get(self._first, frozenset())
            if key not in known:
                together[self._first] = known | {key}

    def _refuse_if_broken_off(self) -> None:
        if self._over and self._reports is None:
            raise TraceError("an error ended this trace's block: it has no output and no values.")

    def _start(self, *, everything: bool, watch: Sequence[AddressLike] = ()) -> tuple[Run, Any]:
        edits = [Edit(a, f, allow_unchanged=self._allow_unchanged) for a, f in self._edits]
        # In the block the model is the one that the trace began with, which was looked at then.
        layout = self.model.layout if self._over else self.model.resolved
        run = Run(layout, edits=edits, everything=everything, watch=watch)
        if self._random is None:
            self._random = random_state()
            return run, run.execute(self.batch.ids, lengths=self.batch.lengths)
        with random_from(self._random):
            return run, run.execute(self.batch.ids, lengths=self.batch.lengths)

    # After the block

    @property
    def output(self) -> Any:
        """What the model returned: logits (B, S, V). In the block, lazy."""
        self._refuse_if_broken_off()
        if not self._over:
            self._run_for("logits")
            self._remember("logits")
        return held(self._output if self._over else self._logits)

    @property
    def reports(self) -> list[EditReport]:
        """What each edit did, in order; after the block."""
        if self._reports is None:
            raise TraceError("reports are there after the block.")
        return self._reports

    def get(self, name: str) -> Any:
        """A saved value by its name, or None."""
        return held(self.saved_values.get(name))

    def get_activation(self, name: AddressLike) -> Any:
        """An activation by module path or point, or None if there is none; see `activations`."""
        return self.activations.get(name)

    @property
    def activations(self) -> Activations:
        """Every activation by address, in the block and after it."""
        return Activations(self)

    @property
    def replayable(self) -> bool:
        """Whether the block is over and ended well."""
        return self._reports is not None

    def names(self) -> list[str]:
        """Paths of the modules that the run called."""
        if not self.replayable:
            self._check_open()
            if self._run is None or not self._run.everything:
                self._begin(everything=True)
            assert self._run is not None
            return list(called_names(self._run))
        if self._names is None:
            self._names = list(called_names(self._outputs()[0]))
        return self._names

    def _outputs(self) -> tuple[Run, Any]:
        paths = [path for path in self.model.layout.modules if path]
        return self._start(everything=False, watch=paths)

    def walk(self) -> Generator[str, None, None]:
        """`names`, one after the other, with the value of the current one at hand.

        After the block that takes one run. The first value that is asked for computes them all
        together; each is let go of when the walk has passed it.
        """
        if not self.replayable:
            yield from self.names()
            return
        run, output = self._outputs()
        site = self.model.layout.site
        self._names = list(called_names(run))
        values = {(key := site(name).key): run.read(key) for name in self._names}
        run.forget()
        walk = self._walk = Walk(values, output)
        del values, output
        try:
            for name in self._names:
                yield name
                walk.values.pop(site(name).key, None)
        finally:
            if self._walk is walk:
                self._walk = None

    @property
    def edit_count(self) -> int:
        """How many edits the run has: what was read before another one is out of date."""
        return len(self._edits)

    def again(self, addresses: Sequence[AddressLike]) -> Run:
        """The same run with its edits once more, lazy, keeping these: to be reduced, then let go.

        Unlike `replay` it holds no value after the caller does.

        Raises:
            TraceError: as `replay` does.
        """
        if not self.replayable:
            self._check_open()
        run, output = self._start(everything=False, watch=addresses)
        if self.replayable:
            self._check_same(output, [])
        return run

    def replay(self, addresses: Sequence[AddressLike]) -> dict[str, Any]:
        """Run again to fetch activations that were not saved, all in one pass.

        Raises:
            TraceError: if the second run's output differs from the first: the parameters changed
                since, or an edit depends on something else than its input.
        """
        layout = self.model.layout
        keys = [layout.site(a).key for a in addresses]
        passing = self._passing(keys)
        missing = [k for k in dict.fromkeys(keys) if k not in self._final and k not in passing]
        if missing:
            run, output = self._start(everything=False, watch=missing)
            values = {key: run.read(key) for key in missing}
            check = NaNCheck(values)
            self._check_same(output, [*arrays_of(list(values.values())), *check.pending])
            self._final.update(values)
            check.warn(stacklevel=3)
        return {k: held(self._final[k] if k in self._final else passing[k]) for k in keys}

    def _passing(self, keys: Sequence[str]) -> dict[str, Any]:
        """Those of `keys` whose values a walk has at hand, computed."""
        walk = self._walk
        if walk is None or not any(key in walk.values for key in keys):
            return {}
        if walk.output is not None:
            self._check_same(walk.output, arrays_of(list(walk.values.values())))
            walk.output = None
        return {key: walk.values[key] for key in keys if key in walk.values}

    def _check_same(self, output: Any, others: list[mx.array]) -> None:
        same = mx.array_equal(output, self._output, equal_nan=True)
        evaluate(same, *others)
        if not truth(same):
            raise TraceError(
                "running again gave another output than this trace recorded: parameters "
                "changed since, or an edit is not a function of its input. "
                "Save what you need inside the block."
            )


def called_names(run: Run) -> Iterator[str]:
    """Paths of the modules whose output a run kept, the root's left out."""
    for path, module in run.layout.modules.items():
        if path and run.handlers[id(module)].count:
            yield path


@contextmanager
def random_from(state: int | None) -> Iterator[None]:
    """Draw MLX's random numbers from `state` in the block, and go on as before after it."""
    if state is None:
        yield
        return
    now = random_state()
    mx.random.seed(state)
    try:
        yield
    finally:
        mx.random.seed(now)


def random_state() -> int:
    """MLX's random state as the seed that leads to it."""
    state: Any = mx.random.state
    high, low = (int(word) for word in nested(state[0]))
    return high << 32 | low
