"""What the transforms share: keys of an item, and tensors with or without metadata."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

__all__ = ["Item", "Keys", "modes", "one_of", "plain", "with_pixels"]

Keys = str | Sequence[str]
Item = dict[Hashable, Any]


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}. Correct it in the config.")


def modes(keys: Sequence[Hashable], mode: str | Sequence[str]) -> tuple[str, ...]:
    """A mode of interpolation for each key, ``bilinear`` or ``nearest``."""
    found: tuple[str, ...] = tuple(mode) if not isinstance(mode, str) else (mode,) * len(keys)
    if len(found) != len(keys):
        raise ValueError(f"{len(found)} modes for {len(keys)} keys. Give one mode, or one for each key.")
    for one in found:
        one_of("mode", one, ("bilinear", "nearest"))
    return found


def with_pixels(source: Any, pixels: Tensor) -> Any:
    """``pixels`` as the kind of tensor ``source`` is, with a copy of its metadata and its record of transforms."""
    if isinstance(source, MetaTensor):
        return MetaTensor(pixels, meta=dict(source.meta), applied_operations=list(source.applied_operations))
    return pixels


def plain(value: Any) -> Tensor:
    """The tensor without its metadata."""
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
