"""How certain the virtual DES is, pixel by pixel: the spread over augmented images, and over several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.transforms import RandSharedAffined
from scripts.explaining.attribution import batch_size_for

__all__ = ["augmented_std", "draw_maps", "ensemble_std"]

_LEAST_MEMBERS = 3
_INSIDE = 1 - 1e-5
"""Interpolated share of a pixel that must come from inside the picture."""


def draw_maps(count: int, ranges: Mapping[str, Any], seed: int) -> Tensor:
    """Random affine maps ``(count, 2, 3)`` as the training draws them, but each of their parts half the time.

    Args:
        count: number of maps; none of them is the identity.
        ranges: ``rotate``, ``shift``, ``zoom`` and ``flip`` of `bundle.transforms.RandSharedAffined`.
        seed: of the random numbers.
    """
    augmentation = RandSharedAffined("image", prob=0.5, **ranges).set_random_state(seed)
    maps: list[Tensor] = []
    while len(maps) < count:
        augmentation.randomize()
        if augmentation.theta is not None:
            maps.append(augmentation.theta)
    return torch.stack(maps)


def augmented_std(network: nn.Module, image: Tensor, maps: Tensor) -> Tensor:
    """Standard deviation of the virtual DES over augmented images (Wang et al. 2019, section 2.2).

    A member is ``G(x) + T^-1 G(T x) - T^-1 T G(x)``: the last two are interpolated alike, so that what interpolation
    blurs is no uncertainty, and a network that moves with its image has none. ``G(x)`` itself is one more member.

    Args:
        network: G.
        image: x, ``(1, 1, W, H)``.
        maps: T, ``(K, 2, 3)``, see `draw_maps`.

    Returns:
        ``(1, 1, W, H)`` in units of output intensity. NaN where fewer than three members lie inside the picture.
    """
    maps = maps.to(image)
    back = _inverse(maps)
    changes, inside = [], []
    with torch.no_grad():
        pred = network(image).float()
        for some, some_back in zip(*(one.split(batch_size_for(image)) for one in (maps, back)), strict=True):
            there = network(_moved(image.expand(len(some), -1, -1, -1), some)).float()
            alike = _moved(pred.expand(len(some), -1, -1, -1), some)
            changes.append(_moved(there - alike, some_back))
            inside.append(_moved(_moved(torch.ones_like(there), some), some_back) >= _INSIDE)
    valid = torch.cat([torch.ones_like(pred, dtype=torch.bool), *inside])
    return _std(torch.cat([torch.zeros_like(pred), *changes]), valid)


def ensemble_std(networks: Sequence[nn.Module], image: Tensor) -> Tensor:
    """Standard deviation over the virtual DES of several networks (Lakshminarayanan et al. 2017), ``(1, 1, W, H)``.

    Raises:
        ValueError: fewer than two networks.
    """
    if len(networks) < 2:
        raise ValueError(f"{len(networks)} networks have no spread; give at least two")
    with torch.no_grad():
        return torch.cat([network(image).float() for network in networks]).std(dim=0, keepdim=True)


def _std(values: Tensor, valid: Tensor) -> Tensor:
    """Sample standard deviation over the first axis of those that are valid, ``(1, 1, W, H)``."""
    count = valid.sum(dim=0, keepdim=True)
    mean = torch.where(valid, values, 0.0).sum(dim=0, keepdim=True) / count
    square = torch.where(valid, (values - mean).square(), 0.0).sum(dim=0, keepdim=True) / (count - 1).clamp(min=1)
    return torch.where(count >= _LEAST_MEMBERS, square.sqrt(), torch.nan)


def _inverse(maps: Tensor) -> Tensor:
    """The maps ``(K, 2, 3)`` back: ``p = A q + t`` gives ``q = A^-1 p - A^-1 t``."""
    turned = torch.linalg.inv(maps[:, :, :2])
    return torch.cat([turned, -turned @ maps[:, :, 2:]], dim=2)


def _moved(images: Tensor, maps: Tensor) -> Tensor:
    """Images ``(K, 1, W, H)`` moved by one map each; torch calls the last axis x, here it is y, hence the swap."""
    swapped = maps.flip(1)[:, :, [1, 0, 2]]
    grid = functional.affine_grid(swapped, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
