"""What the data card tells of one case: sizes, framing, lesions, grey values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.image_facts import pixel_digest

__all__ = ["cut_lesions", "digest", "histogram", "mask_facts"]

BINS = 64
_LEAST_KEPT = 0.9
"""Part of a lesion that must be left; what is lost of others is told."""


def digest(values: NDArray[Any]) -> str:
    """The same text as ``pixel_digest`` for an image given as (H, W)."""
    return pixel_digest(values.T)


def cut_lesions(mask: NDArray[np.bool_], field: tuple[slice, slice]) -> list[str]:
    """What of the lesions lies outside a field of their image, in words; nothing where they keep nine tenths."""
    if mask.sum() == mask[field].sum():
        return []
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    whole, left = (np.bincount(part.ravel(), minlength=count + 1)[1:] for part in (labels, labels[field]))
    gone, cut = int((left == 0).sum()), int(((left > 0) & (left < _LEAST_KEPT * whole)).sum())
    found = ((gone, "outside"), (cut, "partly outside"))
    return [f"{number} of {count} lesions {where} what LE and DES both show" for number, where in found if number]


def histogram(values: NDArray[Any], breast: NDArray[np.bool_], window: list[float] | None) -> list[int]:
    """Counts of the pixels inside the breast, over the window (what lies beyond it counts at its ends) or min..max."""
    inside = values[breast] if breast.any() else values.ravel()
    if window is None:
        limits = float(inside.min()), float(inside.max())
    else:
        limits = window[0] - window[1] / 2, window[0] + window[1] / 2
    counts, _ = np.histogram(inside.clip(*limits), BINS, limits)
    return [int(count) for count in counts]


def mask_facts(key: str, mask: NDArray[np.bool_] | None, breast: NDArray[np.bool_]) -> Mapping[str, Any]:
    """Pixels, separate regions and share of the breast, in percent, of one mask; zeros without a mask."""
    if mask is None:
        return {f"{key}_pixels": 0, f"{key}_regions": 0, f"{key}_percent": 0.0}
    pixels, area = int(mask.sum()), int(breast.sum())
    regions = int(ndimage.label(mask, np.ones((3, 3)))[1])
    percent = round(100 * pixels / area, 3) if area else 0.0
    return {f"{key}_pixels": pixels, f"{key}_regions": regions, f"{key}_percent": percent}
