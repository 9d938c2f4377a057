"""Stored pixel values to [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from torch import Tensor

from bundle.mammogram_meta import WINDOW
from bundle.transforms.items import Item, Keys, one_of, plain, with_pixels

__all__ = ["ScaleMammogramd"]


def _window_limits(window: Sequence[float], name: str) -> tuple[float, float]:
    """Lowest and highest pixel value of a window (centre, width)."""
    values = [float(value) for value in window]
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[1] <= 0:
        raise ValueError(f"{name} is {window}, expected [centre, width > 0]. Correct it in the datalist or config.")
    return values[0] - values[1] / 2, values[0] + values[1] / 2


def _window_of_file(image: Any) -> Sequence[float] | None:
    return image.meta.get(WINDOW) if isinstance(image, MetaTensor) else None


class ScaleMammogramd(MapTransform):
    """Scale stored pixel values ``v`` to [0, 1], float32.

    With a window of centre ``c`` and width ``w`` (stored pixel values), which is ``data[f"{key}_window"]`` where the
    item has one, else that of the image's file (``bundle.mammogram_meta``), else ``window``:

    - ``minmax``: ``v`` is clipped to ``[c - w/2, c + w/2]``, then ``(v - min v) / (max v - min v)`` per image. Without
      a window nothing is clipped. The relation between grey value and iodine differs from image to image.
    - ``window``: ``clip((v - (c - w/2)) / w, 0, 1)``: equal iodine is equally bright in all images of one window.
      Without a window this is ``minmax``, which the data check reports.

    A constant image gives zeros under ``minmax``. Shapes: any, kept.

    Args:
        keys: images to scale; a missing key is an error unless ``allow_missing_keys``.
        scaling: ``"minmax"`` or ``"window"``.
        window: (c, w) of the items that have no window of their own; None: they have none.
        allow_missing_keys: pass over keys the item lacks.

    Raises:
        ValueError: unknown ``scaling``, or a window that is not two finite numbers with a positive width.
    """

    def __init__(
        self,
        keys: Keys,
        scaling: Literal["minmax", "window"] = "minmax",
        window: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        one_of("scaling", scaling, ("minmax", "window"))
        self.scaling = scaling
        self.limits = None if window is None else _window_limits(window, "window")

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` in [0, 1]."""
        item = dict(data)
        for key in self.key_iterator(item):
            pixels = plain(item[key]).to(torch.float32)
            own = item.get(f"{key}_window", _window_of_file(item[key]))
            limits = self.limits if own is None else _window_limits(own, f"{key}_window")
            item[key] = with_pixels(item[key], self._scaled(pixels, limits))
        return item

    def _scaled(self, pixels: Tensor, limits: tuple[float, float] | None) -> Tensor:
        if limits is not None:
            pixels = pixels.clamp(*limits)
        if limits is None or self.scaling == "minmax":
            low, high = torch.aminmax(pixels) if pixels.numel() else (pixels, pixels)
            limits = low.item(), high.item()
        if limits[1] <= limits[0]:
            return torch.zeros_like(pixels)
        return (pixels - limits[0]).div_(limits[1] - limits[0])
