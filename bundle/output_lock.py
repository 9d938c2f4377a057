"""One process at a time writes an output folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bundle import ranks
from bundle.files import naming

__all__ = ["FolderInUseError", "OutputLock"]

logger = logging.getLogger("cesm")
_NAME = ".output.lock"


class FolderInUseError(ValueError):
    """Another process writes the folder."""


class OutputLock:
    """Keeps other processes from writing a folder while this one does.

    The lock is the operating system's: it ends with this object or the process, however that ends, and the file
    ``.output.lock`` that stays behind means nothing. Of the processes of one distributed training rank 0 holds it. All
    objects of one process and folder share one lock. On a file system without locks a warning is logged in its place.

    Args:
        folder: the output folder; made when it is missing.
        patience: seconds to wait: the workers of a process that was killed take a moment to end.
    """

    def __init__(self, folder: str | Path, patience: float = 10.0) -> None:
        self.folder = Path(folder)
        self.patience = patience
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Take the lock, or keep it.

        Raises:
            FolderInUseError: another process holds it.
            UnwritableError: there is no room on the disk.
        """
        if not ranks.is_main_rank():
            return
        with naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder.resolve() / _NAME, thread_local=False, is_singleton=True)
            try:
                lock.acquire(timeout=self.patience)
            except Timeout:
                raise FolderInUseError(
                    f"another process is writing {self.folder.resolve()}, expected none; wait until it has ended, or "
                    "give another --output_dir"
                ) from None
            except NotImplementedError:
                logger.warning(f"{self.folder} is on a file system without locks: start nothing else that writes there")
                return
        self._lock = lock

    def release(self) -> None:
        """Let other processes write the folder."""
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the body of the ``with``; a full disk met there is reported with the folder's name."""
        self.acquire()
        try:
            with naming(self.folder):
                yield
        finally:
            self.release()
