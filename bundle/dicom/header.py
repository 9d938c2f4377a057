"""Attributes of a DICOM header as plain values: a missing, empty or unreadable one is None, never an error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

__all__ = ["first_item", "floats", "is_big_endian", "items", "number", "text", "values"]


def values(header: Dataset, keyword: str) -> list[Any]:
    """All values of an attribute; none where it is missing, empty or cannot be converted."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom converts a raw value on access, and says what it likes about rubbish
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, Sequence, list, tuple)) else [value]


def text(header: Dataset, keyword: str) -> str:
    """The attribute in capitals without surrounding blanks; several values are joined with a backslash."""
    return "\\".join(str(value).strip(" \0") for value in values(header, keyword)).strip().upper()


def floats(header: Dataset, keyword: str) -> list[float]:
    """The attribute's numbers; none at all if one of them is not a finite number."""
    try:
        numbers = [float(value) for value in values(header, keyword)]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def number(header: Dataset, keyword: str) -> float | None:
    """The first number of the attribute."""
    found = floats(header, keyword)
    return found[0] if found else None


def items(header: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence."""
    for item in values(header, keyword):
        if isinstance(item, Dataset):
            yield item


def first_item(header: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence."""
    return next(items(header, keyword), None)


def is_big_endian(header: Dataset) -> bool:
    """Whether the object was stored in the retired big endian transfer syntax."""
    return header.original_encoding[1] is False
