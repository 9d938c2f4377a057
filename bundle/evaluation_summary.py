"""The content of ``summary.json``: every predictor's figures with intervals, over all cases and in each stratum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bundle.metrics.intervals import Resampling, figures

__all__ = ["TABLE_METRICS", "format_summary", "predictor_summary", "summary_content"]

TABLE_METRICS = (
    "psnr",
    "ssim",
    "vif",
    "breast_psnr",
    "breast_ssim",
    "lesion_mae",
    "lesion_psnr",
    "lesion_contrast_r",
    "contrast_recovery",
    "enhancement_auc",
    "lesion_dice",
    "false_enhancement",
)
Summary = dict[str, Any]


def summary_content(
    predictors: Mapping[str, Summary], resampling: Resampling, caveats: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """The whole of a ``summary.json``: how intervals were made, what must be said, the predictors, and ``more``."""
    intervals = {"unit": "patient", "resamples": resampling.resamples, "confidence": resampling.confidence}
    return {"intervals": intervals, "caveats": list(caveats), "predictors": dict(predictors), **more}


def predictor_summary(rows: pd.DataFrame, strata: Iterable[str], resampling: Resampling) -> Summary:
    """Numbers and figures of one predictor's cases, and the same of each level of each stratum.

    Args:
        rows: as in `bundle.metrics.intervals.figures`, with a text column for each stratum.
        strata: columns; empty texts belong to no level. A stratum with one level tells nothing and is left out.
        resampling: how intervals are made.
    """
    levels = {name: sorted(set(rows[name].astype(str)) - {""}) for name in strata if name in rows}
    parts = {
        name: {level: _numbers(rows[rows[name].astype(str) == level], resampling) for level in found}
        for name, found in levels.items()
        if len(found) > 1
    }
    return _numbers(rows, resampling) | {"strata": parts}


def _numbers(rows: pd.DataFrame, resampling: Resampling) -> Summary:
    cases = rows.drop_duplicates([name for name in rows if name in ("patient_id", "laterality", "view", "source")])
    return {
        "cases": len(cases),
        "patients": int(rows["patient_id"].nunique()),
        "lesions": int(cases["lesion_mae"].notna().sum()) if "lesion_mae" in rows else 0,
        "metrics": figures(rows, resampling),
    }


def format_summary(predictors: Mapping[str, Summary], metrics: Sequence[str] = TABLE_METRICS) -> str:
    """An aligned table: a line for each metric, a column for each predictor, mean and interval; ``-`` for no figure."""
    cells = {
        name: [_cell(summary["metrics"].get(metric)) for metric in metrics] for name, summary in predictors.items()
    }
    widths = {name: max(len(name), *map(len, column)) for name, column in cells.items()}
    lines = [f"{'metric':<18}" + "".join(f"  {name:>{widths[name]}}" for name in cells)]
    for place, metric in enumerate(metrics):
        lines.append(f"{metric:<18}" + "".join(f"  {column[place]:>{widths[name]}}" for name, column in cells.items()))
    return "\n".join(lines)


def _cell(figure: Mapping[str, float | None] | None) -> str:
    mean, low, high = ((figure or {}).get(key) for key in ("mean", "low", "high"))
    if mean is None or not math.isfinite(mean):
        return "-"
    digits = 2 if abs(mean) >= 10 else 3
    text = _fixed(mean, digits)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return text
    return f"{text} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no minus before zero
