"""Whether a predicted standard deviation is as large as the error, pixel by pixel.

In quantile bins of the predicted standard deviation its root mean square (RMV) is compared with that of the error
(RMSE); the expected normalised calibration error ENCE is the mean of ``|RMV - RMSE| / RMV`` over the bins (Levi et al.
2022, arXiv 1905.11659, equation 8): 0 is perfect. A spread that only has to be read by another scale is told from one
that says nothing by the same after recalibration: the error to expect at each spread, found on other patients.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from bundle.metrics.intervals import Resampling
from scripts.explaining.figures import Figure, known, unknown

__all__ = ["BINS", "LEAST_PIXELS", "calibration", "recalibrated", "reliability"]

Array = NDArray[np.float64]

BINS = 10
LEAST_PIXELS = 100
"""Pixels in each bin from which on there is a figure."""
_FOLDS = 5


def calibration(pixels: pd.DataFrame, method: str, resampling: Resampling) -> dict[str, Any]:
    """How well the standard deviation of one method says how large the error is, before and after recalibration.

    Args:
        pixels: ``patient_id``, ``error`` (virtual minus real DES) and a column ``method`` with the predicted standard
            deviation; pixels without one (NaN) are left out.
        method: its name.
        resampling: how intervals are made.

    Returns:
        ``pixels`` and ``patients``, ``raw`` and ``recalibrated``, see `reliability`, and ``factor``, by which the
        standard deviation is too small on the whole.
    """
    rows = pixels[["patient_id", "error", method]].dropna()
    rows = rows.rename(columns={method: "std"}).reset_index(drop=True)
    return {
        "pixels": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "raw": reliability(rows, resampling),
        "recalibrated": reliability(rows.assign(std=recalibrated(rows)), resampling),
        "factor": _scale_factor(rows),
    }


def _scale_factor(rows: pd.DataFrame) -> float:
    """The factor that makes the mean predicted variance that of the error; NaN where nothing is predicted."""
    variance = float(rows["std"].pow(2).mean()) if len(rows) else 0.0
    return math.sqrt(float(rows["error"].pow(2).mean()) / variance) if variance > 0 else math.nan


def recalibrated(rows: pd.DataFrame) -> Array:
    """The root mean square error to expect at each standard deviation, fitted on other patients.

    The fit is a rising function, without any other form (isotonic regression of the squared error on the variance).
    Patients are parted into five groups, or as many as there are patients. All is NaN with fewer than two patients.
    """
    expected = np.full(len(rows), math.nan)
    patients = rows["patient_id"].nunique()
    if patients < 2:
        return expected
    variance, square = rows["std"].to_numpy() ** 2, rows["error"].to_numpy() ** 2
    for others, own in GroupKFold(min(_FOLDS, patients)).split(rows, groups=rows["patient_id"]):
        fitted = IsotonicRegression(out_of_bounds="clip").fit(variance[others], square[others])
        expected[own] = np.sqrt(fitted.predict(variance[own]))
    return expected


def reliability(rows: pd.DataFrame, resampling: Resampling) -> dict[str, Any]:
    """The reliability curve and its ENCE.

    Args:
        rows: ``patient_id``, ``std`` and ``error``, one row a pixel.
        resampling: how the interval is made; the bins are those of all patients.

    Returns:
        ``bins``: ``n``, ``rmv`` and ``rmse`` of each, from the smallest to the largest standard deviation, and
        ``ence``, a figure, NaN with its reason where there are too few pixels or patients, or nothing is predicted.
    """
    if len(rows) < BINS * LEAST_PIXELS:
        return {"bins": [], "ence": unknown(f"{len(rows)} pixels, {BINS * LEAST_PIXELS} are needed", len(rows))}
    if rows["std"].isna().any():
        return {"bins": [], "ence": unknown("one patient: there is no other one to recalibrate by", len(rows))}
    sums = _sums(rows)
    total = sums.sum(axis=0)
    roots = np.sqrt(total[1:] / total[0])
    bins = [{"n": int(n), "rmv": float(v), "rmse": float(e)} for n, v, e in zip(total[0], *roots, strict=True)]
    return {"bins": bins, "ence": _ence_figure(sums, resampling, len(rows))}


def _sums(rows: pd.DataFrame) -> Array:
    """Of each patient and bin the number of pixels, and the sums of the squares: ``(patients, 3, bins)``."""
    order = np.argsort(rows["std"].to_numpy(), kind="stable")
    place = np.empty(len(rows), dtype=np.int64)
    for number, part in enumerate(np.array_split(order, BINS)):
        place[part] = number
    codes, names = pd.factorize(rows["patient_id"], sort=True)
    both = codes * BINS + place
    values = (np.ones(len(rows)), rows["std"].to_numpy() ** 2, rows["error"].to_numpy() ** 2)
    counted = [np.bincount(both, weights=one, minlength=len(names) * BINS).reshape(len(names), BINS) for one in values]
    return np.stack(counted, axis=1)


def _ence_figure(sums: Array, resampling: Resampling, pixels: int) -> Figure:
    value = float(_ence(sums.sum(axis=0)[None])[0])
    if not math.isfinite(value):
        return unknown("the predicted standard deviation is 0 in a whole bin", pixels)
    low = high = math.nan
    if len(sums) > 1:
        weights = resampling.row_weights(pd.Series([f"{number:06d}" for number in range(len(sums))]))
        samples = np.tensordot(weights, sums, axes=1)
        low, high = resampling.interval(_ence(samples))
    return known(value, low, high, pixels)


def _ence(sums: Array) -> Array:
    """ENCE of ``(samples, 3, bins)``; a bin that a sample lacks does not count, one without any spread is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rmv, rmse = np.sqrt(sums[:, 1] / sums[:, 0]), np.sqrt(sums[:, 2] / sums[:, 0])
        terms = np.where(rmv > 0, np.abs(rmv - rmse) / rmv, math.nan)
    terms = np.where(sums[:, 0] > 0, terms, 0.0)
    found: Array = terms.sum(axis=1) / (sums[:, 0] > 0).sum(axis=1)
    return found
