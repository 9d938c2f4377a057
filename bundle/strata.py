"""Groups of cases for which an evaluation is reported apart: view, density, label, kind and size of lesion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["STRATA", "case_strata", "size_class"]

STRATA = {"view": "view", "density": "density", "label": "label", "lesion_kind": "lesion"}
"""Stratum -> the key that gives it, in the ``info`` of a case or in the case itself."""
_FILES = ("image", "label", "mask", "label_mask")
"""Of a case these are paths; its diagnostic label is in ``info``."""
SIZE_MM = (10.0, 20.0)
"""Bounds of the size classes: the diameters that part T1b from T1c and T1 from T2 tumours (TNM)."""


def case_strata(cases: Iterable[Mapping[str, Any]], strata: Mapping[str, str] = STRATA) -> dict[str, dict[str, str]]:
    """The strata of every case of a datalist, by the path of its LE image; "" where a case does not tell.

    Args:
        cases: entries of a datalist with absolute paths.
        strata: stratum -> key of the case's ``info``, or of the case itself.
    """

    def text(case: Mapping[str, Any], key: str) -> str:
        own = {name: value for name, value in case.items() if name not in _FILES}
        value = (own | (case.get("info") or {})).get(key)
        return "" if value is None else str(value)

    return {str(case["image"]): {name: text(case, key) for name, key in strata.items()} for case in cases}


def size_class(diameter_mm: float) -> str:
    """The size class of a lesion of that equivalent diameter; "" without a lesion (NaN)."""
    if math.isnan(diameter_mm):
        return ""
    small, large = SIZE_MM
    if diameter_mm < small:
        return f"below {small:g} mm"
    return f"{small:g} to {large:g} mm" if diameter_mm < large else f"{large:g} mm and more"
