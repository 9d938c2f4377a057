"""What the data card tells of one case: sizes, framing, lesions, grey values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["digest", "histogram", "mask_facts"]

BINS = 64


def digest(values: NDArray[Any]) -> str:
    """A text that is equal for equal pixels in equal shape and number type."""
    found = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16)
    found.update(f"{values.shape}{values.dtype}".encode())
    return found.hexdigest()


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
