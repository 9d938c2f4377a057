"""The tables of the report: figures with their intervals, paired comparisons, numbers of the plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.evidence.report_load import Evidence, External
from scripts.evidence.report_metrics import HEADLINE, METRICS, Metric, metric_of
from scripts.prepare import card_tables

__all__ = [
    "DASH",
    "Cell",
    "Table",
    "comparison_tables",
    "external_table",
    "headline_table",
    "level_name",
    "levels_of",
    "name_of",
    "number",
    "shift_table",
    "stratum_table",
]

DASH = card_tables.DASH
GOOD = {"high": "high", "low": "low", "1": "1", "0": "0", "": DASH}
EXTERNAL = (
    "psnr",
    "breast_psnr",
    "breast_ssim",
    "lesion_mae",
    "lesion_contrast_r",
    "contrast_recovery",
    "enhancement_auc",
    "false_enhancement",
)
"""The figures of an external test."""
_DISTANCES = {"Wasserstein": ("wasserstein", 3), "Jensen-Shannon": ("jensen_shannon", 3), "FRD": ("frd", 2)}
_TITLES = {"le_copy": "LE copied", "breast_constant": "constant inside the breast", "mean_des": "mean DES"}


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a text, a smaller one below it, and why it is marked ("" = it is not)."""

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table as the page shows it; the first cell of a row names it.

    ``groups`` is (head, columns) above the heads; ``texts`` are columns, counted from 0, that hold words.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    texts: Sequence[int] = ()


def number(value: float, digits: int = 0) -> str:
    """A number for a cell; what rounds to zero has no sign."""
    return card_tables.number(round(value, digits) + 0.0, digits)


def name_of(predictor: str) -> str:
    """A predictor as people call it."""
    return _TITLES.get(predictor, predictor)


def level_name(level: str) -> str:
    """A level of a stratum; the empty one in words."""
    return level or "not given"


def _interval(figure: Mapping[str, Any] | None, metric: Metric) -> str:
    low, high = (_finite((figure or {}).get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    return f"{number(low, metric.digits)} to {number(high, metric.digits)}"


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _mean(predictor: Mapping[str, Any], name: str) -> float | None:
    return _finite((predictor.get("metrics", {}).get(name) or {}).get("mean"))


def _known(predictors: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[Metric]:
    listed = list(predictors)
    return [metric_of(name) for name in names if any(_mean(one, name) is not None for one in listed)]


def _metric_row(metric: Metric, predictors: Sequence[Mapping[str, Any]]) -> list[Cell]:
    means = [_mean(one, metric.name) for one in predictors]
    order = [metric.badness(mean) for mean in means]
    least = min((bad for bad in order if not math.isnan(bad)), default=math.nan)
    cells = [Cell(metric.label), Cell(GOOD[metric.good])]
    for one, mean, bad in zip(predictors, means, order, strict=True):
        text = DASH if mean is None else number(mean, metric.digits)
        best = "best" if bad == least and len(predictors) > 1 else ""
        cells.append(Cell(text, _interval(one.get("metrics", {}).get(metric.name), metric), best))
    return cells


def headline_table(evidence: Evidence) -> Table:
    """Means with intervals, one row a figure, one column an arm or reference; the best mean of a row is marked."""
    names = [name for name in evidence.names if name in evidence.predictors]
    predictors = [evidence.predictors[name] for name in names]
    counts = [
        [Cell(title), Cell(""), *(Cell(_count(one.get(key))) for one in predictors)]
        for title, key in (("cases", "cases"), ("patients", "patients"), ("cases with lesion", "lesions"))
        if any(one.get(key) is not None for one in predictors)
    ]
    rows = [_metric_row(metric, predictors) for metric in _known(predictors, HEADLINE)]
    of_arms = sum(name in evidence.arms for name in names)
    groups = [("", 2), ("models", of_arms), ("reference predictors", len(names) - of_arms)]
    columns = ["mean over cases", "good", *map(name_of, names)]
    return Table(_headline_caption(evidence), columns, counts + rows, [group for group in groups if group[1]])


def _headline_caption(evidence: Evidence) -> str:
    intervals = evidence.intervals
    if not intervals:
        return "Test cases"
    share = f"{100 * float(intervals.get('confidence', 0.95)):.0f}"
    times = _finite(intervals.get("resamples"))
    drawn = f", {number(times)} bootstrap samples" if times else ""
    return f"Test cases, with {share} % intervals (drawn by {intervals.get('unit', 'patient')}{drawn})"


def _count(value: Any) -> str:
    return DASH if _finite(value) is None else number(value)


def comparison_tables(evidence: Evidence) -> list[tuple[Table, Table | None]]:
    """Two tables for each pair of arms: differences of the headline's figures, and of all others if there are any.

    A row is the mean paired difference over patients, its interval, test and effect.
    """
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in evidence.comparisons:
        if _finite(one.get("difference")) is not None:
            pairs.setdefault((str(one.get("a", "")), str(one.get("b", ""))), []).append(one)
    heads = ["figure", "good", "difference", "p", "p, adjusted", "effect", "patients", "cases", "interval without 0"]
    place = {name: rank for rank, name in enumerate(METRICS)}
    tables = []
    for (a, b), found in pairs.items():
        found.sort(key=lambda one: place.get(str(one.get("metric")), len(place)))
        main = [_comparison_row(one, a, b) for one in found if one.get("metric") in HEADLINE]
        more = [_comparison_row(one, a, b) for one in found if one.get("metric") not in HEADLINE]
        title = f"{name_of(b)} minus {name_of(a)}"
        rest = Table(f"{title}, other figures", heads, more, texts=(8,)) if main and more else None
        tables.append((Table(title, heads, main or more, texts=(8,)), rest))
    return tables


def _comparison_row(one: Mapping[str, Any], a: str, b: str) -> list[Cell]:
    metric = metric_of(str(one.get("metric", "")))
    metric = replace(metric, digits=_digits(metric, _finite(one.get("difference"))))
    difference, low, high = (_finite(one.get(key)) for key in ("difference", "low", "high"))
    excludes = low is not None and high is not None and (low > 0 or high < 0)
    verdict = _verdict(metric, difference, a, b) if excludes else "no"
    text = DASH if difference is None else _signed(difference, metric.digits)
    return [
        Cell(metric.label),
        Cell(GOOD[metric.good]),
        Cell(text, _interval(one, metric), "interval excludes 0" if excludes else ""),
        Cell(_p_value(one.get("p"))),
        Cell(_p_value(one.get("p_adjusted"))),
        Cell(DASH if (effect := _finite(one.get("effect"))) is None else _signed(effect, 2)),
        Cell(_count(one.get("patients"))),
        Cell(_count(one.get("cases"))),
        Cell(verdict),
    ]


def _digits(metric: Metric, difference: float | None) -> int:
    """Digits for a difference: those of the metric, or more so that a small one is not shown as zero."""
    if not difference:
        return metric.digits
    return max(metric.digits, min(6, 1 - math.floor(math.log10(abs(difference)))))


def _signed(value: float, digits: int) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def _verdict(metric: Metric, difference: float | None, a: str, b: str) -> str:
    """Which arm is better; of figures whose best value lies between, a difference alone does not tell."""
    bounded = metric.name.endswith(("ssim", "vif", "dice", "auc"))  # never above 1: closest to 1 is highest
    up = metric.good == "high" or (metric.good == "1" and bounded)
    if difference is None or not (up or metric.good in ("low", "0")):
        return "yes"
    return f"{name_of(b if (difference > 0) == up else a)} better"


def _p_value(value: Any) -> str:
    p = _finite(value)
    if p is None:
        return DASH
    return "<\N{NO-BREAK SPACE}0.001" if p < 0.001 else number(p, 3)


def stratum_table(evidence: Evidence, stratum: str, metrics: Sequence[str]) -> Table:
    """The numbers of the plots of one stratum: a row for each level and predictor."""
    rows = []
    known = _known((level for one in evidence.predictors.values() for level in _levels(one, stratum).values()), metrics)
    for level in levels_of(evidence, stratum):
        for name in evidence.names:
            found = _levels(evidence.predictors.get(name, {}), stratum).get(level)
            if found is None:
                continue
            cells = [Cell(_count(found.get(key))) for key in ("cases", "patients", "lesions")]
            figures = [(_mean(found, m.name), _interval(found.get("metrics", {}).get(m.name), m), m) for m in known]
            values = [Cell(DASH if mean is None else number(mean, m.digits), note) for mean, note, m in figures]
            rows.append([Cell(level_name(level)), Cell(name_of(name)), *cells, *values])
    heads = [stratum.replace("_", " "), "predictor", "cases", "patients", "with lesion", *(m.label for m in known)]
    return Table(f"By {stratum.replace('_', ' ')}", heads, rows, texts=(1,))


def levels_of(evidence: Evidence, stratum: str) -> list[str]:
    """The levels of a stratum in the order in which the summary lists them, the empty one last."""
    found = (level for name in evidence.names for level in _levels(evidence.predictors.get(name, {}), stratum))
    return sorted(dict.fromkeys(found), key=lambda level: level == "")


def _levels(predictor: Mapping[str, Any], stratum: str) -> Mapping[str, Any]:
    found = (predictor.get("strata") or {}).get(stratum)
    return found if isinstance(found, dict) else {}


def shift_table(shifts: Sequence[tuple[str, Mapping[str, Any]]]) -> Table | None:
    """Distances between training and external cases, from ``domain_shift.json``; ``shifts``: (run, content)."""
    rows = []
    for run, content in shifts:
        counts = [(content.get(key) or {}).get("cases") for key in ("training", "external")]
        for key, title in (("image", "LE"), ("label", "real DES")):
            found = content.get(key)
            if isinstance(found, dict) and _finite(found.get("wasserstein")) is not None:
                values = [(_finite(found.get(name)), digits) for name, digits in _DISTANCES.values()]
                cells = [Cell(DASH if value is None else number(value, digits)) for value, digits in values]
                note = str(found.get("frd_note") or "")
                rows.append([Cell(run), Cell(title), *map(Cell, map(_count, counts)), *cells, Cell(note)])
    heads = ["run", "image", "training cases", "external cases", *_DISTANCES, "note"]
    caption = (
        "Distance of the external cases from those of the training, inside the breast (0 = none; FRD: lower = nearer)"
    )
    return Table(caption, heads, rows, texts=(1, 7)) if rows else None


def external_table(name: str, tests: Sequence[tuple[str, Mapping[str, Any], External]]) -> Table | None:
    """Figures on an external data set below those of the run's own test; ``tests``: (run, own figures, test)."""
    lines: list[tuple[str, str, Mapping[str, Any]]] = []
    for run, own, external in tests:
        lines += [(run, "own test", own)] if own and "model" in external.predictors else []
        lines += [(run, name, figures) for key, figures in external.predictors.items() if key == "model"]
    first = tests[0][2].predictors if tests else {}
    lines += [(name_of(key), name, figures) for key, figures in first.items() if key != "model"]
    metrics = _known((figures for _, _, figures in lines), EXTERNAL)
    if not metrics:
        return None
    rows = []
    for run, data, figures in lines:
        counts = [Cell(_count(figures.get(key))) for key in ("cases", "patients")]
        values = [(_mean(figures, metric.name), metric) for metric in metrics]
        cells = [
            Cell(DASH if mean is None else number(mean, m.digits), _interval(figures.get("metrics", {}).get(m.name), m))
            for mean, m in values
        ]
        rows.append([Cell(run), Cell(data), *counts, *cells])
    heads = ["predictor", "tested on", "cases", "patients", *(metric.label for metric in metrics)]
    return Table(f"External test on {name}", heads, rows, texts=(1,))
