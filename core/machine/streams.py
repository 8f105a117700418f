"""One stream of work on a GPU, whichever thread asks for it.

MLX gives each thread a stream of its own. On a GPU each comes with an encoder and a worker thread,
and several threads can neither use theirs side by side nor end while others compute. So threads
other than the main one queue their work on one stream, of which `mlxray.arrays.evaluate` lets one
at a time compute.
"""

from __future__ import annotations

import threading
from functools import cache

import mlx.core as mx

_lock = threading.Lock()
_here = threading.local()


def share_stream() -> None:
    """On a GPU, let this thread queue its work on the stream that all threads share.

    The main thread keeps its own. Once for each thread; what it queued before stays as it was.
    """
    if getattr(_here, "asked", False):
        return
    if threading.current_thread() is not threading.main_thread():
        if mx.default_device().type != mx.DeviceType.gpu:
            return
        with _lock:
            stream = _shared()
        mx.set_default_stream(stream)
    _here.asked = True


@cache
def _shared() -> mx.Stream:
    return mx.new_thread_unsafe_stream(mx.gpu)
