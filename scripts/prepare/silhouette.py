"""Where the breast is in an LE or a DES image. Arrays are (H, W), row 0 on top."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bundle.neighbourhoods import all_around, any_around, filled

__all__ = ["background_level", "reduced", "silhouette"]

WORKING_SIZE = 512
"""Longer side at which a silhouette is found: finer detail is noise."""
_NEAR_BACKGROUND = 0.006
"""Part of the grey-value range that noise and compression add to the background."""
_CLOSING = 0.025
"""Radius, as part of the longer side, up to which dark fat is closed that is as black as the air."""
_OPENING = 0.012
"""Radius, as part of the longer side, below which a bridge or a strip is not breast."""
_HALF = 2
"""Pixels to each side of the one that a majority is taken for."""
_LARGE = 0.05
"""A region of this part of the largest one is breast too: a skin fold can cut off the axilla."""


def reduced(values: NDArray[Any], factor: float) -> NDArray[np.float32]:
    """The image shrunk by area averages to pixels ``1 / factor`` wide; as it is for a factor of 1 or more.

    What is left at the right and the bottom and does not fill a pixel is dropped.
    """
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    if factor < 1:
        width, height = (max(1, math.floor(length * factor)) for length in image.size)
        box = 0, 0, min(image.width, width / factor), min(image.height, height / factor)
        image = image.resize((width, height), Image.Resampling.BOX, box)
    return np.asarray(image, dtype=np.float32)


def silhouette(values: NDArray[Any]) -> NDArray[np.bool_]:
    """The breast: what is brighter than the background, without labels and border strips, holes filled.

    Args:
        values: (H, W) grey values of any number type, dense tissue bright.

    Returns:
        (H, W) bool; all False for an image of one value.
    """
    small = reduced(values, WORKING_SIZE / max(values.shape))
    breast = _breast(small)
    if breast.shape == values.shape:
        return breast
    enlarged = Image.fromarray(breast.astype(np.float32)).resize(values.shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(enlarged) > 0.5


def background_level(values: NDArray[Any]) -> float:
    """The grey value of the air beside the breast: the median along the edge away from the chest wall."""
    return _air(reduced(values, WORKING_SIZE / max(values.shape)))[0]


def _range(values: NDArray[np.float32]) -> float:
    low, high = np.percentile(values, (0.0, 99.0))
    return float(high - low)


def _peeled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the border rows and columns of one value: padding says nothing about the air."""
    uneven = 0.02 * _range(values)
    rows = np.flatnonzero(np.ptp(values, axis=1) > uneven)
    columns = np.flatnonzero(np.ptp(values, axis=0) > uneven)
    if not len(rows) or not len(columns):
        return values
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _air(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median grey value of the air and how far its noise reaches above."""
    content = _peeled(values)
    strip = max(1, round(0.02 * content.shape[1]))
    left, right = content[:, :strip], content[:, -strip:]
    far = left if np.median(left) < np.median(right) else right
    level = float(np.median(far))
    noise = 1.4826 * float(np.median(np.abs(far - level)))
    return level, max(4 * noise, _NEAR_BACKGROUND * _range(values))


def _breast(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    level, noise = _air(values)
    # By majority: JPEG rings around the skin, in single pixels.
    bright = _majority(values > level + noise)
    if not bright.any() or bright.all():
        return np.zeros_like(bright) if not bright.any() else bright
    longer = max(values.shape)
    closed = _closed(bright, round(_CLOSING * longer))
    radius = max(1, round(_OPENING * longer))
    kept = _large_regions(_opened(closed, radius))
    return _filled(closed & any_around(kept, radius + 1, radius + 1))


def _majority(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where most of the 5 x 5 pixels around are True; beyond the image it goes on as at its border."""
    counts = np.pad(bright, _HALF, mode="edge").astype(np.uint8)
    for axis in (0, 1):
        shifted = (counts.take(range(start, counts.shape[axis] - 2 * _HALF + start), axis) for start in range(5))
        counts = np.add.reduce(list(shifted))
    return np.asarray(counts > (2 * _HALF + 1) ** 2 // 2)


def _opened(region: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Opening; beyond the image is nothing, so that strips along a border go too."""
    return any_around(all_around(region, radius, radius), radius, radius)


def _closed(region: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Closing; beyond the image the region goes on as at its border."""
    padded = np.pad(region, radius, mode="edge")
    closed = all_around(any_around(padded, radius, radius, "nearest"), radius, radius, "nearest")
    return closed[radius : len(closed) - radius, radius : closed.shape[1] - radius]


def _large_regions(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(region)
    if count < 2:
        return region
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return np.asarray((areas >= _LARGE * areas.max())[labels], dtype=np.bool_)


def _filled(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes filled, also those that the chest wall closes."""
    left = region[:, 0].sum() > region[:, -1].sum()
    wall = np.zeros((len(region), 1), dtype=np.bool_)
    rows = np.flatnonzero(region.any(axis=1))
    if len(rows):
        wall[rows[0] : rows[-1] + 1] = True
    closed = np.hstack([wall, region] if left else [region, wall])
    whole = filled(closed)
    return whole[:, 1:] if left else whole[:, :-1]
