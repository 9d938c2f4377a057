"""Pools of threads that begin only where memory suffices for them."""

from __future__ import annotations

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
        bytearray(workers * _BYTES)
    except MemoryError:
        raise MemoryError(
            f"no memory for {workers} threads ({workers * _BYTES >> 20} MB); close other programs, or use a machine "
            "with more memory"
        ) from None
    return ThreadPoolExecutor(workers, name)
