"""At which edge of the picture the chest wall lies, found from the pixels."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.neighbourhoods import all_around, any_around, filled

__all__ = ["Edge", "chest_wall_edge"]

#: Blocks of the longer side: enough for an outline.
_BLOCKS = 128
#: Rows of a breast that end within this share of its width from the chest wall are cut off there.
_NEAR = 0.06
#: Levels, as shares of the grey-value range.
_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3)
#: Mean difference of the shares of rows from which on the side is beyond doubt.
_CERTAIN = 0.2


class Edge(NamedTuple):
    """The edge of the chest wall, and whether the picture leaves no doubt."""

    side: Literal["left", "right"]
    certain: bool


def chest_wall_edge(values: NDArray[Any]) -> Edge:
    """The side at which the breast is cut off in a straight line, since the chest wall lies beyond it.

    The breast is the largest bright region that survives an opening, which removes letters, lead markers and the
    rims of films. At the chest wall most of its rows end in one column; at the other side it is round. Blank
    columns beside it do not matter.

    Args:
        values: (H, W), dense tissue bright, background dark.
    """
    small = _reduced(values)
    found = [_straightness(_without_rims(small > level)) for level in _levels(small)]
    straight = float(np.mean(found)) if found else 0.0
    return Edge("left" if straight >= 0 else "right", certain=abs(straight) > _CERTAIN)


def _straightness(bright: NDArray[np.bool_]) -> float:
    """Share of the breast's rows that end at its left side, less that at its right side; 0 without a breast."""
    breast = _largest_region(bright)
    rows = breast.any(axis=1)
    if rows.sum() < 3 or breast.sum() < 0.7 * bright.sum() or not 0.03 < breast.mean() < 0.95:
        return 0.0
    first = breast[rows].argmax(axis=1)
    last = breast.shape[1] - 1 - breast[rows][:, ::-1].argmax(axis=1)
    outer_left, outer_right = np.percentile(first, 5), np.percentile(last, 95)
    near = max(1.0, _NEAR * float(outer_right - outer_left))
    return float((first <= outer_left + near).mean() - (last >= outer_right - near).mean())


def _reduced(values: NDArray[Any]) -> NDArray[np.float32]:
    """Block means, about 128 blocks for the longer side, without the outermost 2 %, where films have rims."""
    height, width = values.shape
    top, side = height // 50, width // 50
    inner = values[top : height - top or None, side : width - side or None]
    step = max(1, max(inner.shape) // _BLOCKS)
    rows, columns = inner.shape[0] // step, inner.shape[1] // step
    blocks = inner[: rows * step, : columns * step].reshape(rows, step, columns, step)
    if blocks.dtype.kind in "bui" and blocks.dtype.itemsize <= 2:  # exact, and a third of the time
        return np.asarray(blocks.sum(axis=1, dtype=np.int32).sum(axis=2) / step**2, dtype=np.float32)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _levels(small: NDArray[np.float32]) -> list[float]:
    """Grey values between the background and the breast: fat may be hardly brighter, a film's background not dark."""
    low, high = (float(one) for one in np.percentile(small, (1, 99)))
    return [low + share * (high - low) for share in _SHARES] if high > low else []


def _without_rims(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without bright strips along the whole length of an edge, up to a tenth of the picture wide."""
    rimless = bright.copy()
    for view in (rimless, rimless[::-1], rimless.T, rimless.T[::-1]):
        strips = view.mean(axis=1) > 0.9
        width = len(strips) if strips.all() else int(strips.argmin())
        if width <= len(strips) // 10:
            view[:width] = False
    return rimless


def _largest_region(bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest region after gaps (dark fat) are closed and thin things (letters, rims) are opened."""
    size = max(1, min(bright.shape) // 16)
    before, after = size // 2, size - 1 - size // 2
    closed = all_around(any_around(np.pad(bright, size), after, before), before, after)[size:-size, size:-size]
    labels, count = ndimage.label(any_around(all_around(filled(closed), before, after), after, before))
    if count == 0:
        return np.zeros_like(bright)
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == 1 + int(sizes.argmax()))
