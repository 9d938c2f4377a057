"""Pools of threads that begin only where memory suffices for them."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor

__all__ = ["thread_pool"]

_BYTES = 16 << 20
"""What a thread takes as it starts: its stack, and a little more."""


def thread_pool(workers: int, name: str = "") -> ThreadPoolExecutor:
    """A pool of ``workers`` threads, which take tasks as ``concurrent.futures`` says.

    Python waits for ever for a thread that finds no memory as it starts (``Thread.start`` up to 3.12), so what threads
    need is asked for before.

    Raises:
        MemoryError: it is not there.
    """
    try:
        mmap.mmap(-1, workers * _BYTES).close()  # from the system, as a thread's; malloc may have some left over
    except (OSError, MemoryError):
        raise MemoryError(
            f"no memory for {workers} threads ({workers * _BYTES >> 20} MB); close other programs, or use a machine "
            "with more memory"
        ) from None
    return ThreadPoolExecutor(workers, name)
