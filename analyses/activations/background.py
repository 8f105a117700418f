"""Work in the order in which it is given, in one other thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

Task = Callable[[], None]


class Background:
    """A block in which `put` hands tasks to a thread; it ends when all are done.

    What a task raises is raised by the next `put`, or at the end of the block. Tasks after it are
    dropped, and so are those that wait when the block itself fails.

    Args:
        depth: Tasks that may wait; `put` waits while there are more.
    """

    def __init__(self, depth: int) -> None:
        self._tasks: queue.Queue[Task | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlxray-writer")

    def put(self, task: Task) -> None:
        """Hand over a task."""
        self._raise()
        self._tasks.put(task)

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._dropping:
                continue
            try:
                task()
            except BaseException as error:  # noqa: BLE001  raised in the other thread
                self._error = error
                self._dropping = True

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dropping |= error is not None
        self._tasks.put(None)
        self._thread.join()
        if error is None:
            self._raise()
