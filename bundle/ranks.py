"""The processes of a training over several GPUs; one process alone is rank 0 of 1."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, distributed

__all__ = ["gather", "is_main_rank", "rank", "summed", "world_size"]

T = TypeVar("T")


def rank() -> int:
    """Number of this process among all of the run."""
    return distributed.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """Number of processes of the run."""
    return distributed.get_world_size() if _is_distributed() else 1


def is_main_rank() -> bool:
    """Whether this process writes files: rank 0, or the only one."""
    return rank() == 0


def gather(value: T) -> list[T]:
    """The values of all ranks in their order, the same on every rank. All ranks have to call this."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, the same on every rank. All have to call this; none waits for its device."""
    if not _is_distributed():
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
