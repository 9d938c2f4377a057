"""A process that works for a command ends with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

__all__ = ["close_pool", "end_with_parent"]

_PATIENCE = 10.0
"""Seconds in which workers without work have to end."""


def close_pool(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool whose work is done.

    One that is killed as they end may hold the lock of their queue: the others, and ``shutdown(wait=True)``, would wait
    for it for ever. They are killed instead.
    """
    workers = list((pool._processes or {}).values())  # noqa: SLF001 - shutdown forgets them
    pool.shutdown(wait=False, cancel_futures=True)
    ending = workers
    while ending and (ended := wait([worker.sentinel for worker in ending], _PATIENCE)):
        ending = [worker for worker in ending if worker.sentinel not in ended]
    for worker in ending:
        worker.kill()


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, as soon as the one that started it has ended or was killed."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
