"""Figures of a study or an evaluation as tables in Markdown, for docs/results.md and the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.predictors import PREDICTOR_NAMES
from scripts.evidence.report_metrics import metric_of
from scripts.evidence.report_tables import level_name, name_of

__all__ = ["differences_table", "figures_table", "interval_cell", "markdown", "strata_table"]

Cells = list[list[str]]


def figures_table(predictors: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], by_metric: bool = False) -> str:
    """Mean and interval of each figure: a row for each predictor, or, ``by_metric``, for each figure.

    Args:
        predictors: ``predictors`` of a ``summary.json``.
        metrics: names of the figures, in their order.
        by_metric: which of both goes down the page.
    """
    rows = [["", *(metric_of(name).label for name in metrics)]]
    for name, one in predictors.items():
        cells = [interval_cell(one["metrics"].get(metric), metric_of(metric).digits) for metric in metrics]
        rows.append([name_of(name), *cells])
    return markdown([list(column) for column in zip(*rows, strict=True)] if by_metric else rows)


def strata_table(predictors: Mapping[str, Mapping[str, Any]], stratum: str, metrics: Sequence[str]) -> str:
    """Mean and interval of each figure in each level of a stratum: a row for each predictor and level.

    Args:
        predictors: ``predictors`` of a ``summary.json``.
        stratum: what the cases are grouped by, such as ``lesion_kind``.
        metrics: names of the figures, in their order.

    Raises:
        LookupError: the summary does not group its cases by that.
    """
    rows = [["", "", "cases", *(metric_of(name).label for name in metrics)]]
    for name, one in predictors.items():
        for level, figures in one["strata"].get(stratum, {}).items():
            cells = [interval_cell(figures["metrics"].get(metric), metric_of(metric).digits) for metric in metrics]
            rows.append([name_of(name), level_name(level), str(figures["cases"]), *cells])
    if len(rows) == 1:
        known = ", ".join(dict.fromkeys(key for one in predictors.values() for key in one["strata"])) or "nothing"
        raise LookupError(f"cases are not grouped by {stratum!r}, but by {known}")
    return markdown(rows)


def differences_table(summary: Mapping[str, Any], metrics: Sequence[str], reference: str | None = None) -> str:
    """Differences of the other arms from one, on the same cases: bold where the interval over patients excludes 0.

    Args:
        summary: content of a study's ``summary.json``.
        metrics: names of the figures, in their order.
        reference: name of the arm, the first one by default.
    """
    arms = [name for name in summary["predictors"] if name not in PREDICTOR_NAMES]
    reference = arms[0] if reference is None else reference
    found = {(one["a"], one["b"], one["metric"]): one for one in summary["comparisons"]}
    rows = [[f"less {name_of(reference)}", *(metric_of(name).label for name in metrics)]]
    for arm in arms:
        if arm != reference:
            cells = [_difference(found, reference, arm, metric) for metric in metrics]
            rows.append([name_of(arm), *cells])
    return markdown(rows)


def interval_cell(figure: Mapping[str, float | None] | None, digits: int) -> str:
    """Mean, and below it the interval; ``none`` where there is no figure."""
    mean, low, high = ((figure or {}).get(key) for key in ("mean", "low", "high"))
    if mean is None or math.isnan(mean):
        return "none"
    return _fixed(mean, digits) + (
        f"<br>{_fixed(low, digits)} to {_fixed(high, digits)}" if None not in (low, high) else ""
    )


def _difference(found: Mapping[tuple[str, str, str], Mapping[str, Any]], a: str, b: str, metric: str) -> str:
    sign = 1.0
    if (one := found.get((a, b, metric))) is None and (one := found.get((b, a, metric))) is not None:
        sign = -1.0
    if one is None or one["difference"] is None:
        return "none"
    digits = metric_of(metric).digits
    middle = f"{round(sign * one['difference'], digits) + 0.0:+.{digits}f}"
    if None in (one["low"], one["high"]):
        return middle
    low, high = sorted((sign * one["low"], sign * one["high"]))
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{middle}{mark}<br>{low:+.{digits}f} to {high:+.{digits}f}"


def _fixed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.00


def markdown(rows: Cells) -> str:
    """Rows of cells, the first one the heading, as a table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
