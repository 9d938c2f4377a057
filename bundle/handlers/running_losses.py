"""Losses of a training engine summed on the device, so that nothing waits for it between two reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["RunningLosses", "scalars"]


def scalars(output: Any) -> dict[str, Tensor]:
    """The 0-dim tensors of an engine's output, by name; of a decollated output those of its first item."""
    item = output[0] if isinstance(output, (list, tuple)) and output else output
    if not isinstance(item, Mapping):
        return {}
    return {str(k): v.detach() for k, v in item.items() if isinstance(v, Tensor) and v.numel() == 1 and v.ndim <= 1}


class RunningLosses:
    """Sum of every named loss since the last `reset`, kept where the losses are. NaN or infinity stays in the sum."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0

    def update(self, output: Any) -> None:
        """Add the losses of one iteration; names that changed since the last one start a new sum."""
        losses = scalars(output)
        if not losses:
            return
        values = torch.stack([value.reshape(()).float() for value in losses.values()])
        if self._sum is None or self._names != tuple(losses):
            self._names, self._sum, self._count = tuple(losses), torch.zeros_like(values), 0
        self._sum = self._sum + values
        self._count += 1

    def means(self) -> dict[str, float]:
        """Mean of every loss since the last `reset`. This waits for the device."""
        if self._sum is None or self._count == 0:
            return {}
        return dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))

    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = None, 0
