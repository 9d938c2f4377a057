"""Figures over the cases of one evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from bundle.metrics.case import ENHANCING_CNR

__all__ = ["SET_FIGURES", "diversity", "summarise"]

SET_FIGURES = ("lesion_contrast_r", "contrast_recovery", "enhancement_auc", "diversity")
"""Names of the figures that exist only over several cases."""


def diversity(preds: Tensor, labels: Tensor) -> float:
    """Spread of the outputs over the cases against the spread of the real images: 0 = always the same output.

    ``sqrt(mean_pixels var_cases(preds) / mean_pixels var_cases(labels))`` for ``(N, ...)``; NaN for fewer than 2 cases.
    """
    if len(preds) < 2:
        return math.nan
    ours, real = (x.float().var(dim=0).mean() for x in (preds, labels))
    return float((ours / real).sqrt()) if real > 0 else math.nan


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """Means over the cases, without NaN, and the figures that exist only over several cases.

    Args:
        rows: one row per case; every numeric column is averaged.

    Returns:
        column -> mean, and where the contrast columns exist ``lesion_contrast_r`` (Pearson's correlation of virtual and
        real lesion contrast; NaN for fewer than 3 lesions), ``contrast_recovery`` (mean virtual by mean real contrast)
        and ``enhancement_auc`` (how well virtual CNR tells lesions that enhance, real CNR above 1, from the others).
    """
    means = {str(name): float(column.mean()) for name, column in rows.select_dtypes("number").items()}
    if "lesion_contrast_real" not in rows or "lesion_contrast_virtual" not in rows:
        return means
    real, virtual = _both_finite(rows, "lesion_contrast_real", "lesion_contrast_virtual")
    means["lesion_contrast_r"] = _pearson(real, virtual)
    means["contrast_recovery"] = float(virtual.mean() / real.mean()) if len(real) and real.mean() != 0 else math.nan
    if "lesion_cnr_real" in rows and "lesion_cnr_virtual" in rows:
        real, virtual = _both_finite(rows, "lesion_cnr_real", "lesion_cnr_virtual")
        means["enhancement_auc"] = _auc(virtual, real > ENHANCING_CNR)
    return means


def _both_finite(rows: pd.DataFrame, *names: str) -> Sequence[pd.Series[float]]:
    finite = rows[list(names)].replace([np.inf, -np.inf], np.nan).dropna()
    return [finite[name].astype(float) for name in names]


def _pearson(x: pd.Series[float], y: pd.Series[float]) -> float:
    if len(x) < 3 or x.std() < 1e-6 or y.std() < 1e-6:
        return math.nan
    return float(x.corr(y))


def _auc(score: pd.Series[float], positive: pd.Series[bool]) -> float:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return math.nan
    return float((score.rank()[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
