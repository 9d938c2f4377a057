"""Whether uncertainty warns: of lesions with a large error, of lost lesions, of enhancement that is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bundle.metrics.intervals import Resampling
from scripts.explaining.attribution import pixel_mm
from scripts.explaining.figures import Figure, bootstrapped, unknown

__all__ = ["LEAST_OF_EACH", "bright_areas", "false_enhancement", "lesion_spearman", "lost_auc"]

LEAST_OF_EACH = 5
"""Lost and kept lesions, false and true areas, and patients, from which on there is a figure."""
LEAST_LESIONS = 10
_BRIGHT_SD, _BRIGHT_LEAST = 3.0, 0.05
"""Standard deviations (robust), and output intensity, by which a bright pixel exceeds the median of the tissue."""
_SPOT_MM = 3.0
"""Diameter of the disc with the area of the smallest spot."""
_TRUE_SHARE = 0.5
_LEVELS = 4


def lesion_spearman(lesions: pd.DataFrame, method: str, resampling: Resampling) -> Figure:
    """Rank correlation of the mean standard deviation inside lesions with their mean absolute error."""
    rows = lesions.dropna(subset=[f"std_{method}", "lesion_mae"]) if len(lesions) else lesions
    if len(rows) < LEAST_LESIONS or rows["patient_id"].nunique() < LEAST_OF_EACH:
        return unknown(f"{_counts(rows, 'lesions')}; {LEAST_LESIONS} of {LEAST_OF_EACH} patients are needed", len(rows))

    def statistic(part: pd.DataFrame) -> float:
        one, two = (part[name].to_numpy() for name in (f"std_{method}", "lesion_mae"))
        return float(spearmanr(one, two).statistic) if np.ptp(one) > 0 and np.ptp(two) > 0 else math.nan

    return bootstrapped(rows, statistic, resampling)


def lost_auc(lesions: pd.DataFrame, method: str, resampling: Resampling) -> Figure:
    """Area under the ROC curve of the mean standard deviation for lost lesions against those that were kept.

    Args:
        lesions: ``patient_id``, ``lost`` (see `scripts.explaining.lesions.lesion_figures`) and ``std_<method>``.
        method: of the standard deviation.
        resampling: how the interval is made.
    """
    rows = lesions.dropna(subset=[f"std_{method}", "lost"]) if len(lesions) else lesions
    lost = int(rows["lost"].sum()) if len(rows) else 0
    if min(lost, len(rows) - lost) < LEAST_OF_EACH:
        reason = f"{lost} lost and {len(rows) - lost} kept lesions; {LEAST_OF_EACH} of each are needed"
        return unknown(reason, len(rows))

    def statistic(part: pd.DataFrame) -> float:
        two = part["lost"].nunique() == 2
        return float(roc_auc_score(part["lost"], part[f"std_{method}"])) if two else math.nan

    return bootstrapped(rows, statistic, resampling)


def bright_areas(
    pred: Tensor, label: Tensor, breast: Tensor, near: Tensor, stds: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """The bright areas of one virtual DES, and whether the real one has them.

    Bright is more than 3 robust standard deviations (1.4826 times the median absolute deviation), and 0.05, above the
    median of the tissue, which is the breast without lesions and their margins. An area is connected and at least as
    large as a disc of 3 mm. It is true if its mean in the real DES is at least half as far above the tissue's median.

    Args:
        pred: virtual DES, ``(1, 1, W, H)`` in [0, 1], as are the others.
        label: real DES.
        breast: bool.
        near: lesions with their margins, bool.
        stds: predicted standard deviations by method.

    Returns:
        one row an area: ``false`` (1 or 0), ``excess`` (of the virtual DES above its tissue), ``area_mm2`` and
        ``std_<method>``. An area at a lesion that is not true is left out: that is the lesion's own error.
    """
    tissue = breast & ~near
    if not tissue.any():
        return []
    excess, real = (_pixels(image - image[tissue].median()) for image in (pred, label))
    spread = 1.4826 * float(np.median(np.abs(excess[_pixels(tissue)])))
    labels, count = ndimage.label(_pixels(breast) & (excess > max(_BRIGHT_SD * spread, _BRIGHT_LEAST)))
    if count == 0:
        return []
    numbers = np.arange(1, count + 1)
    rows = pd.DataFrame({
        "excess": ndimage.mean(excess, labels, numbers),
        "area_mm2": np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm(pred) ** 2,
        "false": ndimage.mean(real, labels, numbers) < _TRUE_SHARE * ndimage.mean(excess, labels, numbers),
        "at_lesion": ndimage.maximum(_pixels(near), labels, numbers),
    } | {f"std_{name}": _known_means(_pixels(std), labels, numbers) for name, std in stds.items()})  # fmt: skip
    kept = (rows["area_mm2"] >= math.pi * (_SPOT_MM / 2) ** 2) & ~(rows["false"] & (rows["at_lesion"] > 0))
    listed = rows[kept].drop(columns="at_lesion").astype({"false": int}).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in listed]


def _pixels(x: Tensor) -> NDArray[Any]:
    """``(1, 1, W, H)`` as an array ``(W, H)``."""
    pixels: NDArray[Any] = x[0, 0].cpu().numpy()
    return pixels


def _known_means(values: NDArray[Any], labels: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """Mean of the values that are known, for each label; NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means: NDArray[Any] = np.asarray(ndimage.sum(np.where(known, values, 0), labels, numbers)) / np.asarray(
            ndimage.sum(known, labels, numbers)
        )
    return means


def false_enhancement(areas: pd.DataFrame, method: str, resampling: Resampling) -> dict[str, Any]:
    """Whether the standard deviation is higher in false bright areas than in equally bright true ones.

    Areas are parted at the quartiles of their excess; within each part the mean of the false minus that of the true
    areas is taken, and the parts are weighted by the smaller of the two numbers.

    Args:
        areas: ``patient_id`` and the columns of `bright_areas`.
        method: of the standard deviation.
        resampling: how the interval is made.

    Returns:
        ``false`` and ``true``, how many there are, ``difference``, a figure in output intensity, and ``higher``:
        whether its interval is above 0 (None where there is none).
    """
    rows = areas.dropna(subset=[f"std_{method}"]) if len(areas) else areas
    false = int(rows["false"].sum()) if len(rows) else 0
    counts = {"false": false, "true": len(rows) - false}
    if min(counts.values()) < LEAST_OF_EACH:
        words = f"{counts['false']} false and {counts['true']} true bright areas; {LEAST_OF_EACH} of each are needed"
        return counts | {"difference": unknown(words, len(rows)), "higher": None}
    edges = np.unique(np.quantile(rows["excess"], np.linspace(0, 1, _LEVELS + 1)[1:-1]))
    rows = rows.assign(level=np.digitize(rows["excess"], edges), std=rows[f"std_{method}"])
    figure = bootstrapped(rows, _matched_difference, resampling)
    if not math.isfinite(figure["value"]):
        figure = unknown("no false area is as bright as a true one", len(rows))
    return counts | {"difference": figure, "higher": figure["low"] > 0 if math.isfinite(figure["low"]) else None}


def _matched_difference(rows: pd.DataFrame) -> float:
    total = weight = 0.0
    level, false, std = (rows[name].to_numpy() for name in ("level", "false", "std"))
    for one in np.unique(level):
        here = level == one
        parts = std[here & (false == 1)], std[here & (false == 0)]
        smaller = min(map(len, parts))
        if smaller:
            total += smaller * float(parts[0].mean() - parts[1].mean())
            weight += smaller
    return total / weight if weight else math.nan


def _counts(rows: pd.DataFrame, things: str) -> str:
    patients = rows["patient_id"].nunique() if len(rows) else 0
    return f"{len(rows)} {things} of {patients} patients"
