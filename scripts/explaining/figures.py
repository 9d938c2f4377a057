"""One figure of several patients with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bundle.metrics.intervals import Resampling
from scripts.evidence.markdown import interval_cell

__all__ = ["Figure", "bootstrapped", "figure_cell", "known", "unknown"]

Figure = dict[str, Any]
"""``value``, ``low`` and ``high`` (NaN where unknown), ``n``, how many it is of, and ``reason``, why it is NaN."""


def known(value: float, low: float = math.nan, high: float = math.nan, n: int = 0) -> Figure:
    """A figure with its interval."""
    return {"value": value, "low": low, "high": high, "n": n, "reason": ""}


def unknown(reason: str, n: int = 0) -> Figure:
    """A figure that does not exist."""
    return {"value": math.nan, "low": math.nan, "high": math.nan, "n": n, "reason": reason}


def bootstrapped(rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], resampling: Resampling) -> Figure:
    """A statistic of rows with its interval over patients, all rows of a patient drawn together.

    Args:
        rows: with ``patient_id``.
        statistic: of such rows; NaN where it does not exist, as for a sample without one of two classes.
        resampling: number of samples, level and seed. Of one patient there is no interval.
    """
    low = high = math.nan
    if rows["patient_id"].nunique() > 1:
        weights = resampling.row_weights(rows["patient_id"]).astype(int)
        places = np.arange(len(rows))
        samples = [statistic(rows.iloc[np.repeat(places, drawn)]) for drawn in weights]
        low, high = resampling.interval(np.asarray(samples, dtype=np.float64))
    return known(float(statistic(rows)), low, high, len(rows))


def figure_cell(figure: Figure, digits: int) -> str:
    """A figure with its interval in a table in Markdown, ``none`` where it is unknown."""
    return interval_cell(figure | {"mean": figure["value"]} if math.isfinite(figure["value"]) else None, digits)
