"""Pixels that no X-ray has reached: the header's padding, and blank strips at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from bundle.dicom.header import number

__all__ = ["padding_mask", "with_dark_padding", "without_bright_edges"]

#: Blank strips are not believed beyond this share of the width or height, each side.
_MAX_STRIP = 0.4


def padding_mask(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    """Where ``stored`` values are PixelPaddingValue, or lie between it and PixelPaddingRangeLimit; None without."""
    value = number(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(header, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    mask = np.asarray((stored >= low) & (stored <= high))
    return mask if mask.any() else None


def with_dark_padding(values: NDArray[Any], padding: NDArray[np.bool_] | None) -> NDArray[Any]:
    """``values`` with the darkest value of the others in the padding; unchanged where the others are all equal."""
    if padding is None or padding.all():
        return values
    others = values[~padding]
    if others.min() == others.max():  # a mask whose background is declared as padding
        return values
    return np.where(padding, others.min(), values)


def without_bright_edges(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Darken whole rows and columns at the edges that have the image's brightest value throughout.

    Detector columns that were not read are stored as zero, which an inverted image shows in white from edge to edge. A
    breast never fills a whole column with the one largest value.

    Returns:
        The values and the number of pixels darkened.
    """
    if values.size == 0:
        return values, 0
    high = values.max()
    if not any((edge == high).all() for edge in (values[0], values[-1], values[:, 0], values[:, -1])):
        return values, 0
    low = values.min()
    mask = np.zeros(values.shape, dtype=bool)
    for view, flags in ((mask, (values == high).all(axis=1)), (mask.T, (values == high).all(axis=0))):
        before, after = _run(flags), _run(flags[::-1])
        if before + after < len(flags):
            view[:before] = True
            view[len(flags) - after :] = True
    count = int(mask.sum())
    return (np.where(mask, low, values), count) if count else (values, 0)


def _run(flags: NDArray[np.bool_]) -> int:
    """How many are True from the start, up to the believable share."""
    run = int(np.argmin(flags)) if not flags.all() else len(flags)
    return run if run <= _MAX_STRIP * len(flags) else 0
