"""A trace: one run, written as a block. Reads in the block see the edits written above them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any
from weakref import ref

import mlx.core as mx

from ..arrays import arrays_of, held, nested
from ..errors import TraceError
from ..interventions import replace_with
from ..points.vocabulary import AddressLike
from ..seams.edits import Edit, EditReport
from .run import Run
from .wrapped import WrappedModel

# Weak: Ctrl-C can strike between a block and its __exit__, and must leave nothing open.
_open: ContextVar[tuple[ref[Trace], ...]] = ContextVar("mlxray_open_traces", default=())


def in_code(name: str) -> str:
    """A name of an activation as it stands in code: ``model.layers[3].output``."""
    return re.sub(r"\.(\d+)", r"[\1]", f"model.{name}")


def current_trace(model: WrappedModel, name: str) -> Trace:
    """The innermost open trace of `model` in this thread.

    Raises:
        TraceError: if there is none; `name` is the activation that was asked for.
    """
    for opened in reversed(_open.get()):
        trace = opened()
        if trace is not None and trace.model is model:
            return trace
    what = in_code(name)
    raise TraceError(
        f"{what} exists only during a run. Write:\n"
        "    with model.trace(prompt):\n"
        f"        value = {what}.save()"
    )


class Trace:
    """One run of a model, opened by ``with model.trace(…)``.

    The forward pass is built when something is first read, and computed at the end of the block:
    the output and what was saved. Other activations are not held; `activations` answers for them
    afterwards by running again, and checks that the second run gives the very same output.

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

    def __enter__(self) -> Trace:
        if self._outer is not None:
            raise TraceError("this trace was entered before; start a new one.")
        for address, _ in self._edits:
            self.model.layout.site(address)
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
                run = self._forward()
        finally:
            self._over = True
            output, self._run, self._logits = self._logits, None, None
        if kind is None:
            run.forget()
            kept = [*self.saved_values.values(), *self._final.values()]
            self._reports = run.settle(output, *arrays_of(kept))
            self._output = output

    # In the block

    def read(self, address: AddressLike) -> Any:
        """The activation at `address`; lazy, so looking at its shape costs nothing.

        Raises:
            AddressError: if nothing matches.
            TraceError: after the block (use `activations`) or before it.
        """
        site = self.model.layout.site(address)
        run = self._forward()
        if not run.keeps(site):
            self._also.append(site.key)
            self._run = self._logits = None
            run = self._forward()
        return held(site.read(run))

    def save(self, address: AddressLike, name: str | None = None) -> Any:
        """Read the activation and keep it past the block, under `name`."""
        value, key = self.read(address), self.model.layout.site(address).key
        self.saved_values[name or key] = held(value)
        self._final[key] = held(value)
        return value

    def edit(self, address: AddressLike, change: Any) -> None:
        """Edit the run from here on: reads below this line see it.

        Args:
            address: A point or a module path, ``.input`` included.
            change: A function of the activation, or the value to put there.
        """
        key = self.model.layout.site(address).key
        if self._outer is None or self._over:
            raise TraceError("edits are made inside the block of a trace.")
        self._edits.append((key, change if callable(change) else replace_with(change)))
        self._run = self._logits = None
        self._final.clear()

    def _forward(self) -> Run:
        if self._outer is None:
            raise TraceError("open the trace first: `with model.trace(prompt) as trace:`.")
        self._refuse_if_broken_off()
        if self._over:
            raise TraceError(
                "the trace is over. Save inside the block, or read trace.activations[…] after it."
            )
        if self._run is None:
            self._run, self._logits = self._start(everything=True, watch=self._also)
        return self._run

    def _refuse_if_broken_off(self) -> None:
        if self._over and self._reports is None:
            raise TraceError("an error ended this trace's block: it has no output and no values.")

    def _start(self, *, everything: bool, watch: Sequence[AddressLike] = ()) -> tuple[Run, Any]:
        edits = [Edit(a, f, allow_unchanged=self._allow_unchanged) for a, f in self._edits]
        run = Run(self.model.layout, edits=edits, everything=everything, watch=watch)
        if edits and self._random is None:
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
            self._forward()
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
        """An activation by module path or point; see `activations`."""
        return self.activations[name]

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
        run = self._start(everything=True)[0] if self.replayable else self._forward()
        return list(called_names(run))

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
            self._forward()
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
        keys = [self.model.layout.site(a).key for a in addresses]
        missing = [k for k in dict.fromkeys(keys) if k not in self._final]
        if missing:
            run, output = self._start(everything=False, watch=missing)
            values = {key: run.read(key) for key in missing}
            self._check_same(output, arrays_of(list(values.values())))
            self._final.update(values)
        return {k: held(self._final[k]) for k in keys}

    def _check_same(self, output: Any, others: list[mx.array]) -> None:
        same = mx.array_equal(output, self._output, equal_nan=True)
        mx.eval(same, *others)
        if not same.item():
            raise TraceError(
                "running again gave another output than this trace recorded: parameters "
                "changed since, or an edit is not a function of its input. "
                "Save what you need inside the block."
            )


class Activations(Mapping[str, Any]):
    """The activations of a trace by address: every module path, and every point.

    Iterating lists the paths of the modules that the run called; each spelling of an address
    finds its value. A module that was called several times has a tuple, call by call.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @property
    def layout(self) -> Any:
        """The layout of the traced model."""
        return self.trace.model.layout

    def __getitem__(self, address: AddressLike) -> Any:
        return self.fetch([address])[0]

    def fetch(self, addresses: Sequence[AddressLike]) -> list[Any]:
        """Several activations at the cost of one run."""
        if not self.trace.replayable:
            return [self.trace.read(a) for a in addresses]
        found = self.trace.replay(addresses)
        return [found[self.layout.site(a).key] for a in addresses]

    def __iter__(self) -> Iterator[str]:
        return iter(self.trace.names())

    def __len__(self) -> int:
        return len(self.trace.names())

    def __contains__(self, address: object) -> bool:
        try:
            self.layout.site(address)
        except (LookupError, TypeError):
            return False
        return True


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
