"""Work that is done behind the caller's back, in order and not too much of it at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bundle.threads import thread_pool

__all__ = ["WriteBehind"]


class WriteBehind:
    """A thread that does one task after the other while the caller goes on.

    Args:
        waiting: tasks that may be unfinished, the one under way included: what bounds the memory that they hold.
    """

    def __init__(self, waiting: int = 2) -> None:
        self.waiting = waiting
        self._tasks: deque[Future[None]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def add(self, task: Callable[[], None]) -> None:
        """Have a task done; wait first while there are too many. What an earlier task has raised is raised here."""
        while self._tasks and (len(self._tasks) >= self.waiting or self._tasks[0].done()):
            self._tasks.popleft().result()
        if self._pool is None:
            self._pool = thread_pool(1, "write-behind")
        self._tasks.append(self._pool.submit(task))

    def finish(self) -> None:
        """Wait until all tasks are done; raise what the first that failed has raised."""
        tasks, pool = list(self._tasks), self._pool
        self._tasks.clear()
        self._pool = None
        if pool is not None:
            pool.shutdown()
        for task in tasks:
            task.result()
