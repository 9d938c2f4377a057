"""Images are read while the network is at work on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from monai.data import DataLoader

from bundle.threads import thread_pool

__all__ = ["ReadAheadLoader"]

_END = object()


class ReadAheadLoader(DataLoader):
    """A MONAI data loader that reads the next batches in a thread while the caller uses one.

    With ``num_workers`` above 0 torch's own processes read ahead, and this is the plain loader. The batches, their
    order and an error in reading, which is raised where its batch would have come, are the same.

    Args:
        ahead: batches that are read, or being read, while one is in use: what bounds the memory; at least 1.
        kwargs: all arguments of ``monai.data.DataLoader``.

    Raises:
        ValueError: ``ahead`` is below 1.
    """

    def __init__(self, *, ahead: int = 1, **kwargs: Any) -> None:
        if ahead < 1:
            raise ValueError(f"ahead is {ahead}, expected 1 or more. Correct it in the config.")
        super().__init__(**kwargs)
        self._ahead = ahead

    def __iter__(self) -> Any:
        """The batches, in order."""
        batches = super().__iter__()
        return batches if self.num_workers > 0 else _read_ahead(batches, self._ahead)


def _read_ahead(batches: Iterator[Any], count: int) -> Iterator[Any]:
    with thread_pool(1, "read-ahead") as pool:
        coming: deque[Future[Any]] = deque(pool.submit(next, batches, _END) for _ in range(count))
        while (batch := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, batches, _END))
            yield batch
            del batch  # one less in memory while the next is awaited
