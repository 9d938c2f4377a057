"""A mammogram the usual way round, as training has seen it, and its prediction back as the file has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform
from monai.utils.enums import TraceKeys

from bundle.mammogram_meta import LATERALITY, MIRRORED, UPSIDE_DOWN
from bundle.transforms.items import Item, Keys, plain, with_pixels

__all__ = ["TurnUprightd"]


class TurnUprightd(MapTransform, InvertibleTransform):
    """Turn an image upright and to the usual side, as its metadata ask for: see ``bundle.mammogram_meta``.

    The usual side has the chest wall of a left breast at the left edge and of a right breast at the right one; that is
    how data sets are prepared for training. ``data["laterality"]`` is set from the metadata where the item has none. An
    image without these metadata stays as it is. Shapes: (1, W, H), kept; ``MetaTensor``. The inverse (``Invertd``)
    turns a prediction back.

    Args:
        keys: images to turn.
        allow_missing_keys: pass over keys the item lacks.
    """

    def __init__(self, keys: Keys, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` turned."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if isinstance(image, MetaTensor):
                item["laterality"] = item.get("laterality") or str(image.meta.get(LATERALITY, ""))
                item[key] = self._turned(image)
        return item

    def _turned(self, image: MetaTensor) -> MetaTensor:
        axes = [axis for axis, key in ((1, MIRRORED), (2, UPSIDE_DOWN)) if image.meta.get(key)]
        turned = _flipped(image, axes)
        grid = torch.eye(3, dtype=torch.float64)
        for axis in axes:
            grid[axis - 1, axis - 1], grid[axis - 1, 2] = -1, image.shape[axis] - 1
        extra = {"axes": axes, "affine": turned.affine.tolist()}
        self.push_transform(turned, orig_size=image.shape[1:], affine=grid, extra_info=extra)  # type: ignore[no-untyped-call]
        return turned

    def inverse(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` as the files have them."""
        item = dict(data)
        for key in self.key_iterator(item):
            if isinstance(item[key], MetaTensor):
                turned = _flipped(item[key], [])
                extra = self.pop_transform(turned)[TraceKeys.EXTRA_INFO]
                item[key] = _flipped(turned, [int(axis) for axis in extra["axes"]])
                item[key].affine = torch.as_tensor(extra["affine"], dtype=torch.float64)
        return item


def _flipped(image: MetaTensor, axes: list[int]) -> MetaTensor:
    """``image`` with a copy of its metadata, mirrored along ``axes``; without axes its pixels are shared."""
    pixels = plain(image)
    copy: MetaTensor = with_pixels(image, torch.flip(pixels, axes) if axes else pixels)
    return copy
