"""A dataset whose augmentation can be repeated exactly, and the order of its items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.data.dataset import CacheDataset
from monai.transforms.compose import Compose
from monai.transforms.transform import Randomizable
from monai.utils.misc import MAX_SEED
from torch.utils.data import Sampler

from bundle import ranks

__all__ = ["EpochDataset", "EpochSampler"]


class EpochDataset(CacheDataset):
    """A MONAI CacheDataset whose random transforms depend on (seed, epoch, index) and on nothing else.

    ``dataset[(epoch, index)]`` seeds the transforms, then gives item ``index``: the same with any number of worker
    processes, in any order, and after a resume. ``dataset[index]`` is epoch 0. The results of the transforms before
    the first random one are kept in memory (see ``CacheDataset`` for ``cache_rate`` and the other arguments).

    Args:
        data: the cases.
        transform: a ``Compose`` or a sequence of transforms.
        seed: seed of the augmentation.
        kwargs: arguments of ``CacheDataset``.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.seed = int(seed)
        self._stream = np.random.RandomState(0)
        super().__init__(data=data, transform=transform, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        """Item ``index`` of epoch 0, or item ``(epoch, index)``; a slice or a list gives a ``Subset``."""
        if isinstance(index, (int, np.integer)):
            index = (0, index)
        if not isinstance(index, tuple):
            return super().__getitem__(index)
        epoch, position = (int(number) for number in index)
        position = range(len(self))[position]  # counts negative positions from the end
        if isinstance(self.transform, Compose):
            stream = np.random.SeedSequence([self.seed, epoch, position])
            self._set_random_state(self.transform, int(stream.generate_state(1)[0]))
        return self._transform(position)

    def _set_random_state(self, transform: Compose, seed: int) -> None:
        """``transform.set_random_state(seed)``, which makes a generator anew each time: as long as moving an image."""
        if type(transform) is not Compose:  # a kind of it may draw numbers itself
            transform.set_random_state(seed)
            return
        self._stream.seed(seed)
        for one in transform.transforms:
            if isinstance(one, Randomizable):
                one.set_random_state(int(self._stream.randint(MAX_SEED, dtype="uint32")))

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        return _Kept(item) if isinstance(item, dict) else item


class _Kept(dict[Any, Any]):
    """An item in memory, of which MONAI takes a deep copy each time: tensors quickly, and what never changes shared."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: _copied(value, memo) for key, value in self.items()}


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) is torch.Tensor and not value.requires_grad:
        return value.clone()
    return value if type(value) in (str, int, float, bool, type(None)) else deepcopy(value, memo)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)`` for an ``EpochDataset``, in an order that depends on (seed, epoch) only.

    When ``torch.distributed`` is initialised each process takes every n-th index; the list is filled up from its
    start so that all processes have equally many. Call ``set_epoch`` before each epoch.

    Args:
        data: what is sampled; only its length is used.
        seed: seed of the order.
        shuffle: False keeps the order of the data.
        num_replicas: number of processes; None asks ``torch.distributed`` each time.
        rank: number of this process; None asks ``torch.distributed`` each time.
    """

    def __init__(
        self,
        data: Sized,
        seed: int = 0,
        shuffle: bool = True,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self.data, self.seed, self.shuffle = data, int(seed), shuffle
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration over this sampler."""
        self.epoch = int(epoch)

    def _shares(self) -> int:
        return self.num_replicas or ranks.world_size()

    def __len__(self) -> int:
        """Number of items of this process in one epoch."""
        return math.ceil(len(self.data) / self._shares())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The (epoch, index) pairs of this process; the epoch is fixed when the iteration begins."""
        order = np.arange(len(self.data))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        shares, rank = self._shares(), ranks.rank() if self.rank is None else self.rank
        filled = np.resize(order, len(self) * shares) if len(order) else order
        return iter([(self.epoch, int(index)) for index in filled[rank::shares]])
