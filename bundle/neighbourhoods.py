"""Square neighbourhoods of the pixels of a binary picture, and its holes: as scipy's filters, several times as fast.

A maximum or minimum of truth values over n pixels is found with log2(n) shifted copies of the picture, each combined
with the one before, where a filter of grey values keeps a sorted window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["all_around", "any_around", "filled"]

Picture = NDArray[np.bool_]
Beyond = Literal["nothing", "nearest"]
_Combine = Callable[..., NDArray[Any]]


def any_around(picture: Picture, before: int, after: int, beyond: Beyond = "nothing") -> Picture:
    """Where any pixel from ``before`` pixels up and left to ``after`` pixels down and right is True.

    Args:
        picture: (H, W).
        before: 0 or more.
        after: 0 or more.
        beyond: what is outside the picture: ``nothing`` (False) or the value of the ``nearest`` pixel.
    """
    return _around(picture, before, after, beyond, np.logical_or)


def all_around(picture: Picture, before: int, after: int, beyond: Beyond = "nothing") -> Picture:
    """Where all pixels from ``before`` pixels up and left to ``after`` pixels down and right are True; see above."""
    return _around(picture, before, after, beyond, np.logical_and)


def filled(picture: Picture) -> Picture:
    """The picture with its holes filled: what is False and not connected to the outside, by the four neighbours."""
    regions = ndimage.label(np.pad(~picture, 1, constant_values=True))[0]
    return np.asarray(regions[1:-1, 1:-1] != regions[0, 0])


def _around(picture: Picture, before: int, after: int, beyond: Beyond, combine: _Combine) -> Picture:
    found = np.pad(picture, (before, after), mode="edge" if beyond == "nearest" else "constant")
    length = before + after + 1
    for axis in (0, 1):
        found = np.moveaxis(found, axis, 0)
        done = 1
        while done < length:
            step = min(done, length - done)
            found = combine(found[:-step], found[step:])
            done += step
        found = np.moveaxis(found, 0, axis)
    return np.ascontiguousarray(found)
