"""Lookup tables of DICOM: the modality and the VOI LUT."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from bundle.dicom.header import values

__all__ = ["through_table"]


def through_table(pixels: NDArray[Any], table: Dataset, big_endian: bool = False) -> tuple[NDArray[np.uint16], float]:
    """Map values through one item of a ModalityLUTSequence or VOILUTSequence; values beyond its ends get the ends.

    Args:
        pixels: (H, W) values; fractions are rounded.
        table: the item, with LUTDescriptor (entries, first value mapped, bits) and LUTData.
        big_endian: the order of the bytes where LUTData are bytes.

    Returns:
        The mapped values and the largest value that the table's bits can hold.

    Raises:
        ValueError: descriptor and data do not fit.

    References:
        DICOM PS3.3 C.11.1.1.1.
    """
    descriptor = [int(value) for value in values(table, "LUTDescriptor")]
    if len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        raise ValueError(f"its descriptor is {descriptor}")
    entries, first, bits = descriptor[0] or 2**16, descriptor[1], descriptor[2]
    content = _content(table, entries, ">u2" if big_endian else "<u2")
    if len(content) < entries:
        raise ValueError(f"{len(content)} entries, expected {entries}")
    places = np.clip(np.rint(pixels).astype(np.int64) - first, 0, entries - 1)
    return content[:entries][places], float(2**bits - 1)


def _content(table: Dataset, entries: int, kind: str) -> NDArray[np.uint16]:
    data = table.get("LUTData")
    if isinstance(data, bytes):
        packed = len(data) < 2 * entries and len(data) >= entries  # 8 bits an entry
        return np.frombuffer(data, np.uint8 if packed else np.dtype(kind)).astype(np.uint16)
    return np.asarray(values(table, "LUTData"), dtype=np.uint16)
