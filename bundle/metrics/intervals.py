"""Figures over several cases with intervals, and paired comparisons. The unit is the patient, not the image.

The images of one patient resemble each other, so intervals come from a bootstrap in which whole patients are drawn with
replacement (Davison and Hinkley 1997, section 3.8), and tests compare one value per patient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from bundle.metrics.case import ENHANCING_CNR
from bundle.metrics.summary import SET_FIGURES, summarise

__all__ = ["Resampling", "compare", "figures"]

Array = NDArray[np.float64]
Figure = dict[str, float]

_LEAST_VARIANCE = 1e-12
_OF_THE_REAL = ("lesion_mm", "lesion_contrast_real", "lesion_cnr_real")
"""The same for every predictor: nothing to compare."""
_CASE = ["patient_id", "laterality", "view", "source"]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: percentiles of ``resamples`` bootstrap samples of patients.

    Args:
        resamples: number of samples.
        confidence: share of the samples inside an interval.
        seed: of the random numbers; the same cases give the same interval.

    Raises:
        ValueError: fewer than one sample.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"intervals of {self.resamples} bootstrap samples; set resamples to 1 or more, as 2000")

    def row_weights(self, patients: pd.Series[str]) -> Array:
        """How often each row counts in each sample, ``(resamples, rows)``: all rows of a patient equally often."""
        codes, names = pd.factorize(patients, sort=True)
        draws = np.random.default_rng(self.seed).multinomial(len(names), [1 / len(names)] * len(names), self.resamples)
        return draws[:, codes].astype(np.float64)

    def interval(self, samples: Array) -> tuple[float, float]:
        """The percentile interval of ``(resamples,)``; samples in which a figure does not exist are left out."""
        known = samples[np.isfinite(samples)]
        if len(known) < self.resamples / 2:
            return math.nan, math.nan
        low, high = np.quantile(known, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


def figures(rows: pd.DataFrame, resampling: Resampling) -> dict[str, Figure]:
    """Mean, spread and interval of every metric.

    Args:
        rows: one row per case (and ``seed``, where a case was scored by several trainings), with ``patient_id`` and
            metric columns, see `bundle.metrics.case_metrics`.
        resampling: how the intervals are made.

    Returns:
        metric -> ``n`` (rows that have it), ``mean``, ``sd``, ``median`` over rows, ``low`` and ``high``, the interval
        of the mean. Of the figures that exist over several cases only (`SET_FIGURES`) ``mean`` is the figure itself
        (its mean over seeds), and ``sd`` and ``median`` are NaN. What does not exist is NaN. With fewer than two
        patients there are no intervals.
    """
    metrics = _metric_columns(rows)
    enough = rows["patient_id"].nunique() > 1
    weights = resampling.row_weights(rows["patient_id"]) if enough else None
    result = {}
    for name in metrics:
        values = rows[name].astype(float)
        low, high = (math.nan, math.nan) if weights is None else resampling.interval(_means(values, weights))
        result[name] = {
            "n": int(values.notna().sum()),
            "mean": float(values.mean()),
            "sd": float(values.std()) if np.isfinite(values.dropna()).all() else math.nan,
            "median": float(values.median()),
            "low": low,
            "high": high,
        }
    lesions = int(rows["lesion_contrast_real"].notna().sum()) if "lesion_contrast_real" in rows else 0
    samples = _set_samples(rows, weights) if weights is not None else {}
    for name, value in _set_figures(rows).items():
        low, high = resampling.interval(samples[name]) if name in samples else (math.nan, math.nan)
        known = math.isfinite(value)
        result[name] = {"n": lesions, "mean": value, "sd": math.nan, "median": math.nan}
        result[name] |= {"low": low if known else math.nan, "high": high if known else math.nan}
    return result


def compare(a: pd.DataFrame, b: pd.DataFrame, resampling: Resampling) -> dict[str, dict[str, Any]]:
    """Paired comparison of two predictors on the same cases, metric by metric.

    Args:
        a: rows of the first predictor, as in :func:`figures`.
        b: rows of the second. Cases that only one of them has are left out; seeds are averaged first.
        resampling: how the intervals are made.

    Returns:
        metric -> ``cases`` and ``patients`` that both have, ``difference`` (mean of b - a over cases), ``low`` and
        ``high``, its interval, ``p`` of Wilcoxon's signed-rank test over the patients' mean differences, and
        ``effect``, the matched-pairs rank-biserial correlation of that test (Kerby 2014): 1 where b is larger in every
        patient, -1 where it is smaller. For `SET_FIGURES` the difference is that of the figures; they have no test.
    """
    metrics = [name for name in _metric_columns(a) if name in b and name not in _OF_THE_REAL]
    left, right = (_by_case(rows, metrics) for rows in (a, b))
    shared = left.index.intersection(right.index)
    if shared.empty:
        return {}
    patients = pd.Series(shared.get_level_values("patient_id"), dtype=str)
    weights = resampling.row_weights(patients)
    result = {}
    for name in metrics:
        change = (right.loc[shared, name] - left.loc[shared, name]).reset_index(drop=True)
        low, high = resampling.interval(_means(change, weights)) if patients.nunique() > 1 else (math.nan, math.nan)
        per_patient = change.groupby(patients).mean().dropna()
        p, effect = _signed_rank(per_patient.to_numpy(dtype=float))
        result[name] = {
            "cases": int(change.notna().sum()),
            "patients": len(per_patient),
            "difference": float(change.mean()),
            "low": low,
            "high": high,
            "p": p,
            "effect": effect,
        }
    return result | _compare_sets(a, b, resampling)


def _compare_sets(a: pd.DataFrame, b: pd.DataFrame, resampling: Resampling) -> dict[str, dict[str, Any]]:
    keys = [pd.MultiIndex.from_frame(rows[_CASE].astype(str)) for rows in (a, b)]
    a, b = a[keys[0].isin(keys[1])], b[keys[1].isin(keys[0])]
    real = a["lesion_contrast_real"] if "lesion_contrast_real" in a else pd.Series(dtype=float)
    of_a, of_b = _set_figures(a), _set_figures(b)
    if a["patient_id"].nunique() < 2:
        return {}
    # one draw of patients for both: they are the same patients, so equal seeds give equal draws
    samples_a, samples_b = (_set_samples(rows, resampling.row_weights(rows["patient_id"])) for rows in (a, b))
    result: dict[str, dict[str, Any]] = {}
    for name in (name for name in of_a if name in of_b):
        difference = of_b[name] - of_a[name]
        low, high = resampling.interval(samples_b[name] - samples_a[name])
        if not math.isfinite(difference):
            low = high = math.nan
        known = a[real.notna()]
        result[name] = {"cases": len(known.drop_duplicates(_CASE)), "patients": int(known["patient_id"].nunique())}
        result[name] |= {"difference": difference, "low": low, "high": high, "p": math.nan, "effect": math.nan}
    return result


def _metric_columns(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.select_dtypes("number") if name not in ("seed", "fold")]


def _by_case(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    keyed = rows.assign(**{key: rows[key].astype(str) for key in _CASE})
    return keyed.groupby(_CASE)[list(metrics)].mean()


def _means(values: pd.Series[float], weights: Array) -> Array:
    """Mean of the known values in every sample, ``(resamples,)``; NaN where it has none of them."""
    known = values.notna().to_numpy()
    numbers = values.to_numpy(dtype=float)[known]
    if not np.isfinite(numbers).all():  # the PSNR of equal images
        return np.full(len(weights), math.nan)
    counts = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: Array = weights[:, known] @ numbers / counts
    return means


def _signed_rank(differences: Array) -> tuple[float, float]:
    """P of Wilcoxon's test and the rank-biserial correlation; NaN for fewer than 2 patients that differ."""
    differing = differences[(differences != 0) & np.isfinite(differences)]
    if len(differing) < 2:
        return math.nan, math.nan
    ranks = rankdata(np.abs(differing))
    effect = float((ranks[differing > 0].sum() - ranks[differing < 0].sum()) / ranks.sum())
    return float(wilcoxon(differing).pvalue), effect


def _set_figures(rows: pd.DataFrame) -> Figure:
    """`SET_FIGURES` of the rows, each the mean over seeds."""
    per_seed = [summarise(part) for _, part in _seeds(rows)]
    names = [name for name in SET_FIGURES if name in per_seed[0]] if per_seed else []
    return {name: float(np.mean([one[name] for one in per_seed])) for name in names}


def _set_samples(rows: pd.DataFrame, weights: Array) -> Mapping[str, Array]:
    """`SET_FIGURES` of every sample, ``(resamples,)``, each the mean over seeds."""
    if "lesion_contrast_real" not in rows or "lesion_contrast_virtual" not in rows:
        return {}
    per_seed = [_seed_samples(part, weights[:, places]) for places, part in _seeds(rows)]
    return {name: np.mean([one[name] for one in per_seed], axis=0) for name in per_seed[0]}


def _seeds(rows: pd.DataFrame) -> list[tuple[NDArray[np.intp], pd.DataFrame]]:
    """Places and rows of each seed."""
    if "seed" not in rows or rows["seed"].isna().all():
        return [(np.arange(len(rows)), rows)]
    seeds = rows["seed"].to_numpy()
    places = [np.flatnonzero(seeds == seed) for seed in pd.unique(rows["seed"])]
    return [(place, rows.iloc[place]) for place in places]


def _seed_samples(rows: pd.DataFrame, weights: Array) -> dict[str, Array]:
    real, virtual = (rows[f"lesion_contrast_{name}"].to_numpy(dtype=float) for name in ("real", "virtual"))
    known = np.isfinite(real) & np.isfinite(virtual)
    x, y = real[known], virtual[known]
    moments = weights[:, known] @ np.column_stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y, square_x, square_y, product = (moments[:, 1:] / moments[:, :1]).T
        variances = [square_x - mean_x**2, square_y - mean_y**2]
        spread = np.sqrt([np.where(one > _LEAST_VARIANCE, one, np.nan) for one in variances]).prod(axis=0)
        correlation = (product - mean_x * mean_y) / spread
        result = {"lesion_contrast_r": correlation, "contrast_recovery": mean_y / mean_x}
    if "lesion_cnr_real" in rows and "lesion_cnr_virtual" in rows:
        result["enhancement_auc"] = _auc_samples(rows, weights)
    return result


def _auc_samples(rows: pd.DataFrame, weights: Array) -> Array:
    real, virtual = (rows[f"lesion_cnr_{name}"].to_numpy(dtype=float) for name in ("real", "virtual"))
    known = np.isfinite(real) & np.isfinite(virtual)
    positive, negative = known & (real > ENHANCING_CNR), known & (real <= ENHANCING_CNR)
    above = np.sign(virtual[positive][:, None] - virtual[negative][None]) / 2 + 0.5
    of_positive, of_negative = weights[:, positive], weights[:, negative]
    with np.errstate(invalid="ignore"):
        auc: Array = ((of_positive @ above) * of_negative).sum(axis=1) / (
            of_positive.sum(axis=1) * of_negative.sum(axis=1)
        )
    return auc
