"""A minimal JPEG lossless encoder (ITU-T T.81, process 14), since pydicom has none: one component, one table."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: All 17 categories of differences get 5 bits: simple, not small.
_CODE_BITS = 5
_LENGTHS = bytes([0] * (_CODE_BITS - 1) + [17] + [0] * (16 - _CODE_BITS))


def jpeg_lossless(values: NDArray[Any], bits: int, selection: int = 1) -> bytes:
    """The code stream of (H, W) unsigned values of ``bits`` bits, with predictor ``selection`` 1 to 7."""
    height, width = values.shape
    head = b"\xff\xd8"
    head += b"\xff\xc3" + struct.pack(">HBHHB3B", 11, bits, height, width, 1, 1, 0x11, 0)
    head += b"\xff\xc4" + struct.pack(">HB", 19 + 17, 0) + _LENGTHS + bytes(range(17))
    head += b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, selection, 0, 0)
    return head + _entropy_coded(values.astype(np.int64), bits, selection) + b"\xff\xd9"


def _predictions(values: NDArray[np.int64], bits: int, selection: int) -> NDArray[np.int64]:
    left, above, corner = np.zeros_like(values), np.zeros_like(values), np.zeros_like(values)
    left[:, 1:], above[1:], corner[1:, 1:] = values[:, :-1], values[:-1], values[:-1, :-1]
    rules = [left, above, corner, left + above - corner, left + ((above - corner) >> 1)]
    rules += [above + ((left - corner) >> 1), (left + above) >> 1]
    predicted = rules[selection - 1].copy()
    predicted[0], predicted[:, 0] = left[0], above[:, 0]
    predicted[0, 0] = 1 << (bits - 1)
    return predicted


def _entropy_coded(values: NDArray[np.int64], bits: int, selection: int) -> bytes:
    difference = (values - _predictions(values, bits, selection)) & 0xFFFF
    difference = np.where(difference > 32768, difference - 65536, difference)
    code = []
    for one in difference.ravel().tolist():
        category = abs(one).bit_length()
        code.append(format(category, f"0{_CODE_BITS}b"))
        if 0 < category < 16:
            code.append(format(one if one > 0 else one + (1 << category) - 1, f"0{category}b"))
    text = "".join(code)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
