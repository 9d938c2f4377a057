"""One random map for all images of an item, applied item by item or to a whole batch on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.engines.utils import PrepareBatch, default_prepare_batch
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.misc import MAX_SEED
from torch import Tensor
from torch.nn import functional

from bundle.transforms.items import Item, Keys, modes, plain, with_pixels

__all__ = ["MoveOnDevice", "RandSharedAffined"]

_THETA = "theta"
"""Key of the map that an item, or a batch, is still to be moved by."""


class RandSharedAffined(Randomizable, MapTransform):
    """Random rotation, shift, zoom and flip, drawn once and applied alike to all images and masks of an item.

    Each of the four is drawn by itself with probability ``prob``; together they form one affine map, so the pixels
    are interpolated once. What comes from outside the picture is 0. An item for which nothing is drawn is returned
    as it is. ``laterality`` is left alone: it names the breast, not the side of the augmented picture.

    The map from output to input positions, with both axes in [-1, 1] around the picture's middle, is
    ``p_in = F R(angle) p_out / zoom - t``: content is first shifted by ``t``, then zoomed, rotated and flipped.

    Args:
        keys: the images, (1, S, S) each and all of one shape.
        mode: ``"bilinear"`` or ``"nearest"``, one or one per key (masks: nearest).
        prob: probability of each of rotation, shift, zoom and flip.
        rotate: largest angle, in degrees, drawn uniformly from both signs.
        shift: largest shift along each axis, as a share of the picture's side.
        zoom: the zoom factor is drawn uniformly from ``[1 - zoom, 1 + zoom]``.
        flip: whether pictures may be mirrored left to right.
        defer: draw the map, and leave moving the images to ``MoveOnDevice``.

    Raises:
        ValueError: a parameter out of its range, or images of different shapes in one item.

    Source of the ranges: the CycleGAN code of Rofena et al. (github.com/cosbidev/VCE_CESM).
    """

    def __init__(
        self,
        keys: Keys,
        mode: str | Sequence[str] = "bilinear",
        prob: float = 0.3,
        rotate: float = 15.0,
        shift: float = 0.1,
        zoom: float = 0.1,
        flip: bool = True,
        defer: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.mode = modes(self.keys, mode)
        for name, value, limit in (
            ("prob", prob, 1),
            ("rotate", rotate, 180),
            ("shift", shift, 1),
            ("zoom", zoom, 0.9),
        ):
            if not 0 <= value <= limit:
                raise ValueError(f"{name} is {value}, expected a number from 0 to {limit}. Correct it in the config.")
        self.prob, self.rotate, self.shift, self.zoom, self.flip = prob, rotate, shift, zoom, flip
        self.defer = defer
        self._own: np.random.RandomState | None = None

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandSharedAffined:
        """As MONAI's; but its own generator is seeded anew, since making one takes a hundred times as long."""
        if seed is not None and self.R is self._own:
            self._own.seed(seed % MAX_SEED)
            return self
        super().set_random_state(seed, state)
        self._own = self.R if state is None else None
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw one map: ``theta``, the (2, 3) matrix above in (x, y) order, or None where nothing was drawn.

        As many numbers are drawn whatever comes out, so one component's probability leaves the others' values alone.
        """
        self.theta: Tensor | None = None
        turned, shifted, zoomed, mirrored = (self.R.uniform(size=4) < self.prob).tolist()
        angle, shift_x, shift_y, zoom = self.R.uniform(-1.0, 1.0, size=4).tolist()
        mirrored = mirrored and self.flip
        if not (turned or shifted or zoomed or mirrored):
            return
        angle = math.radians(self.rotate * angle) if turned else 0.0
        x, y = (2 * self.shift * shift if shifted else 0.0 for shift in (shift_x, shift_y))
        factor = 1 + self.zoom * zoom if zoomed else 1.0
        mirror = -1.0 if mirrored else 1.0
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        self.theta = torch.tensor([[mirror * cos, -mirror * sin, -x], [sin, cos, -y]])

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` moved by one random map."""
        item = dict(data)
        self.randomize()
        if self.defer:
            return item | {_THETA: torch.eye(2, 3) if self.theta is None else self.theta}
        if self.theta is None:
            return item
        grid = _grid(self.theta[None], *_one_shape({key: item[key] for key in self.key_iterator(item)}))
        for mode in dict.fromkeys(self.mode):
            keys = [key for key, one in self.key_iterator(item, self.mode) if one == mode]
            images = torch.cat([plain(item[key]).to(torch.float32) for key in keys])  # (K, W, H)
            if mode == "bilinear" or _any(images):  # a case without a lesion has nothing to move
                images = functional.grid_sample(images[None], grid.to(images.device), mode=mode, align_corners=False)[0]
            for key, pixels in zip(keys, images.tensor_split(len(keys)), strict=True):
                item[key] = with_pixels(item[key], pixels)
        return item


class MoveOnDevice(PrepareBatch):
    """Brings a batch to the device and moves all of its items there at once, by the maps they carry.

    ``RandSharedAffined(defer=True)`` draws the maps, from the same random numbers as without ``defer``, so the images
    are the same up to the rounding of interpolation. Nothing is read back from the device. A batch without maps is
    brought to the device as it is. For the argument ``prepare_batch`` of a MONAI trainer.

    Args:
        keys: the images to move, (B, 1, W, H) each and all of one shape; the others of the batch stay.
        mode: ``"bilinear"`` or ``"nearest"``, one or one per key.

    Raises:
        ValueError: from a call, images of different shapes.
    """

    def __init__(self, keys: Keys, mode: str | Sequence[str] = "bilinear") -> None:
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.mode = modes(self.keys, mode)

    def __call__(self, batchdata: dict[str, Any], device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        """``image`` and ``label`` on the device; the moved images, masks too, take the places of those of the batch."""
        if isinstance(batchdata, dict) and _THETA in batchdata:
            theta = plain(batchdata.pop(_THETA)).to(device, non_blocking=non_blocking)
            images = {
                key: plain(batchdata[key]).to(device=device, dtype=torch.float32, non_blocking=non_blocking)
                for key in self.keys
                if key in batchdata
            }
            batchdata.update(self._moved(images, theta))
        return default_prepare_batch(batchdata, device, non_blocking, **kwargs)

    def _moved(self, images: dict[str, Tensor], theta: Tensor) -> dict[str, Tensor]:
        grid = _grid(theta, *_one_shape(images))
        for mode in dict.fromkeys(self.mode):
            keys = [key for key, one in zip(self.keys, self.mode, strict=True) if one == mode and key in images]
            if keys:
                together = torch.cat([images[key] for key in keys], dim=1)  # (B, K, W, H)
                moved = functional.grid_sample(together, grid, mode=mode, align_corners=False)
                images |= dict(zip(keys, moved.tensor_split(len(keys), dim=1), strict=True))
        return images


def _one_shape(images: Mapping[Any, Any]) -> tuple[int, int]:
    """(W, H) of images that must agree in it."""
    shapes = {tuple(image.shape) for image in images.values()}
    if len(shapes) != 1:
        raise ValueError(f"images of shapes {sorted(shapes)} in one item, expected one shape. Fit them first.")
    width, height = shapes.pop()[-2:]
    return width, height


def _any(images: Tensor) -> bool:
    """``images.any()``, which takes torch five times as long."""
    return any(map(bool, torch.aminmax(images)))


def _grid(theta: Tensor, width: int, height: int) -> Tensor:
    """Sampling positions (B, W, H, 2) of the maps (B, 2, 3). Torch calls the last axis x, here it is y: hence the flip.

    These are the numbers of ``torch.nn.functional.affine_grid``, whose matrix product of three columns takes five times
    as long and would lose digits where products are allowed in half precision.
    """
    across, down = (torch.linspace(-1, 1, n, device=theta.device) * (n - 1) / n for n in (width, height))
    by_x, by_y, shift = theta.flip(1)[..., None].unbind(2)  # (B, 2, 1) each
    grid = (by_x * across)[..., None] + (by_y * down)[:, :, None]
    grid += shift[..., None]
    return grid.permute(0, 2, 3, 1)
