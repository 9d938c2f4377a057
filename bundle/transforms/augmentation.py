"""One random map for all images of an item."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor
from torch.nn import functional

from bundle.transforms.items import Item, Keys, modes, plain, with_pixels

__all__ = ["RandSharedAffined"]


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

    def randomize(self, data: Any = None) -> None:
        """Draw one map: ``theta``, the (2, 3) matrix above in (x, y) order, or None where nothing was drawn.

        As many numbers are drawn whatever comes out, so one component's probability leaves the others' values alone.
        """
        self.theta: Tensor | None = None
        chosen = self.R.uniform(size=4) < self.prob
        angle, shift_x, shift_y, zoom = self.R.uniform(-1.0, 1.0, size=4)
        if not (chosen[:3].any() or (chosen[3] and self.flip)):
            return
        angle = math.radians(self.rotate * angle) if chosen[0] else 0.0
        shift = 2 * self.shift * np.array([shift_x, shift_y]) * chosen[1]
        factor = 1 + self.zoom * zoom if chosen[2] else 1.0
        mirror = -1.0 if chosen[3] and self.flip else 1.0
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        self.theta = torch.tensor([[mirror * cos, -mirror * sin, -shift[0]], [sin, cos, -shift[1]]]).float()

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` moved by one random map."""
        item = dict(data)
        self.randomize()
        if self.theta is None:
            return item
        shapes = {tuple(item[key].shape) for key in self.key_iterator(item)}
        if len(shapes) != 1:
            raise ValueError(f"images of shapes {sorted(shapes)} in one item, expected one shape. Fit them first.")
        grid = self._grid(self.theta, *shapes.pop()[-2:])
        for mode in dict.fromkeys(self.mode):
            keys = [key for key, one in self.key_iterator(item, self.mode) if one == mode]
            images = torch.cat([plain(item[key]).to(torch.float32) for key in keys])  # (K, W, H)
            if mode == "bilinear" or images.any():  # a case without a lesion has nothing to move
                images = functional.grid_sample(images[None], grid.to(images.device), mode=mode, align_corners=False)[0]
            for key, pixels in zip(keys, images.tensor_split(len(keys)), strict=True):
                item[key] = with_pixels(item[key], pixels)
        return item

    @staticmethod
    def _grid(theta: Tensor, width: int, height: int) -> Tensor:
        """Sampling positions (1, W, H, 2). Torch calls the last axis x, here it is y, hence the exchange of axes."""
        return functional.affine_grid(theta.flip(0)[:, [1, 0, 2]][None], [1, 1, width, height], align_corners=False)
