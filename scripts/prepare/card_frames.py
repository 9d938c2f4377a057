"""What the data card counts, as pandas frames: the cases, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from scripts.prepare.view import LeftOut

__all__ = ["NOT_GIVEN", "case_frame", "csv_frame", "left_out_frame"]

NOT_GIVEN = "not given"
"""Stands for a text that a case lacks."""
_TEXTS = ("name", "patient_id", "laterality", "view", "label", "density", "vendor")
_SIZES = ("image_width", "image_height", "label_width", "label_height", "width", "height")
_REGISTRATION = ("scale", "shift_x", "shift_y", "overlap_before", "overlap_after")
_MASKS = tuple(f"{mask}_{what}" for mask in ("mask", "label_mask") for what in ("pixels", "regions", "percent"))
_COUNTS = ("fold", *_SIZES, *(name for name in _MASKS if not name.endswith("percent")))
_WINDOWS = ("image_window", "label_window")
_HISTOGRAMS = ("image_histogram", "label_histogram")
_COLUMNS = (
    *_TEXTS[:4],
    "fold",
    *_TEXTS[4:],
    *_SIZES,
    "pixel_mm",
    "registered",
    *_REGISTRATION,
    *_MASKS,
    *(f"{window}_{part}" for window in _WINDOWS for part in ("centre", "width")),
    "image_digest",
    "label_digest",
)


def csv_frame(facts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per case as ``cases.csv`` has it: all facts but the histograms, in a fixed order of columns."""
    rows = [_with_windows(one) for one in facts]
    more = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in _COLUMNS]
    frame = pd.DataFrame(rows, columns=[*_COLUMNS, *more])
    return frame.astype(dict.fromkeys(_COUNTS, "Int64"))


def _with_windows(facts: Mapping[str, Any]) -> dict[str, Any]:
    """One case without its histograms, each window as two numbers."""
    row = {key: value for key, value in facts.items() if key not in _WINDOWS + _HISTOGRAMS}
    for window in _WINDOWS:
        row[f"{window}_centre"], row[f"{window}_width"] = facts.get(window) or (None, None)
    return row


def case_frame(facts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per case for counting: no text is missing, numbers are floats (NaN: unknown), ``lesion`` is added."""
    frame = pd.DataFrame([dict(one) for one in facts], columns=[*_COLUMNS, *_HISTOGRAMS])
    for name in _TEXTS:
        frame[name] = [NOT_GIVEN if pd.isna(value) or not str(value).strip() else str(value) for value in frame[name]]
    for name in (*_COUNTS, "pixel_mm", *_REGISTRATION, *_MASKS):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    frame["registered"] = [value is True for value in frame["registered"]]
    frame["lesion"] = (frame["mask_pixels"] > 0) | (frame["label_mask_pixels"] > 0)
    return frame


def left_out_frame(left_out: Sequence[LeftOut]) -> pd.DataFrame:
    """One row per file or view as ``excluded.csv`` has it: what a pair needed comes first, then by name and file."""
    frame = pd.DataFrame([asdict(one) for one in left_out], columns=[field.name for field in fields(LeftOut)])
    frame["needed"] = frame["needed"].astype(bool)
    order = {"needed": False, "name": True, "file": True, "reason": True}
    return frame.sort_values(list(order), ascending=list(order.values()), kind="stable", ignore_index=True)
