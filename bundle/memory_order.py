"""Arrays in the order of memory that a library wants."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_rows"]

_ROWS, _COLUMNS = 64, 256
"""Of a tile; each fits into the processor's nearest memory, source and target together."""


def in_rows(array: NDArray[Any]) -> NDArray[Any]:
    """``np.ascontiguousarray``, which takes three times as long to turn a large picture that lies in columns.

    The array itself where it lies in rows already.
    """
    turned = array.T
    if array.ndim != 2 or array.flags.c_contiguous or abs(array.strides[0]) >= abs(array.strides[1]):
        return np.ascontiguousarray(array)
    result = np.empty(array.shape, array.dtype)
    for top in range(0, turned.shape[0], _ROWS):
        for left in range(0, turned.shape[1], _COLUMNS):
            tile = turned[top : top + _ROWS, left : left + _COLUMNS]
            result[left : left + _COLUMNS, top : top + _ROWS] = tile.T
    return result
