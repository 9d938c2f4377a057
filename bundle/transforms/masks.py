"""Lesion masks for every case, drawn or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms.transform import MapTransform

from bundle.transforms.items import Item, Keys, plain, with_pixels

__all__ = ["EnsureMasksd"]


class EnsureMasksd(MapTransform):
    """Give every item a lesion mask for each of its images, {0, 1} float32.

    The first key is the mask drawn on the LE image, the second the one drawn on the DES image. A case with one of
    them uses it for both; a case with none gets zeros of the shape of ``data[like]``. Values > 0 count as lesion.

    Args:
        keys: the two mask keys.
        like: the image whose shape an absent mask takes.
    """

    def __init__(self, keys: Keys = ("mask", "label_mask"), like: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.like = like

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with all mask keys present."""
        item = dict(data)
        given = {key: item[key] for key in self.keys if item.get(key) is not None}
        image = item[self.like]  # zeros carry its metadata: masks of one batch must all be of one kind
        spare = next(iter(given.values())) if given else with_pixels(image, torch.zeros_like(plain(image)))
        for key in self.keys:
            source = given.get(key, spare)
            item[key] = with_pixels(source, (plain(source) > 0).to(torch.float32))
        return item
