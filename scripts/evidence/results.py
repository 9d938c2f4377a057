"""The results of a study put together: all cases, the folds, figures with intervals, comparisons of arms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import false_discovery_control

from bundle.data import caveats
from bundle.evaluation_summary import TABLE_METRICS, format_summary, predictor_summary, summary_content
from bundle.files import atomic_path, json_text, write_text
from bundle.metrics import CASE_FIGURES, summarise
from bundle.metrics.intervals import Resampling, compare
from bundle.predictors import PREDICTOR_NAMES
from scripts.evidence.jobs import Job
from scripts.evidence.study import Study

__all__ = ["collect", "compare_arms", "comparison_table", "fold_table", "print_study", "read_cases", "rows_of"]

TO_BEAT = "breast_constant"
"""Every arm is compared with it besides the other arms: the trivial predictor that is hardest to beat in PSNR."""
NAMES = ("patient_id", "laterality", "source", "picture")
"""Texts that name a case; other texts are strata."""


def read_cases(jobs: Iterable[Job], section: str = "test") -> pd.DataFrame:
    """One row per arm, seed and case; the trivial predictors are arms without a seed, taken once for each fold.

    Raises:
        ValueError: a job has no results, or damaged ones.
    """
    parts, seen = [], set()
    for job in jobs:
        folder = Path(job.folder) / (section if section != "test" else "")
        rows = _job_cases(folder)
        model = rows[rows["predictor"] == "model"].assign(arm=job.arm, seed=job.seed)
        model["picture"] = [_relative(folder, name, job) for name in model["picture"]]
        parts.append(model.assign(fold=job.fold))
        if job.fold not in seen:
            trivial = rows[rows["predictor"].isin(PREDICTOR_NAMES)]
            parts.append(trivial.assign(arm=trivial["predictor"], seed=math.nan, fold=job.fold))
            seen.add(job.fold)
    cases = pd.concat(parts, ignore_index=True).drop(columns="predictor")
    first = ["arm", "seed", "fold"]
    return cases[first + [name for name in cases if name not in first]].astype({"seed": "Int64"})


def _job_cases(folder: Path) -> pd.DataFrame:
    path = folder / "cases.csv"
    try:
        texts = {name: str for name in _columns(path) if name not in CASE_FIGURES}
        empty = {name: ["", "nan"] for name in CASE_FIGURES}
        return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=empty)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no readable results ({error}). Run the study's command again.") from error


def _columns(path: Path) -> list[str]:
    columns = [str(name) for name in pd.read_csv(path, nrows=0)]
    missing = {"predictor", *NAMES, *CASE_FIGURES} - set(columns)
    if missing:
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    return columns


def _relative(folder: Path, picture: str, job: Job) -> str:
    path = (folder / picture).relative_to(Path(job.folder).parents[1])
    return path.as_posix() if picture else ""


def collect(study: Study, cases: pd.DataFrame, resampling: Resampling) -> dict[str, Any]:
    """Write ``cases.csv``, ``folds.csv`` and ``summary.json``; return the content of the last."""
    for name, frame in (("cases", cases), ("folds", fold_table(cases))):
        with atomic_path(study.folder / f"{name}.csv") as path:
            frame.to_csv(path, index=False)
    strata = [str(name) for name in cases.select_dtypes(exclude="number") if name not in (*NAMES, "arm")]
    arms = [arm.name for arm in study.arms] + [name for name in PREDICTOR_NAMES if name in set(cases["arm"])]
    predictors = {arm: predictor_summary(rows_of(cases, arm), strata, resampling) for arm in arms}
    comparisons = compare_arms(cases, [arm.name for arm in study.arms], resampling)
    content = summary_content(predictors, resampling, caveats(study.dataset_dir), comparisons=comparisons)
    write_text(study.folder / "summary.json", json_text(content))
    return content


def rows_of(cases: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The cases of one arm, as `bundle.metrics.intervals.figures` takes them."""
    rows = cases[cases["arm"] == arm].drop(columns=["arm", "fold"])
    return rows.assign(seed=rows["seed"].astype(float))


def fold_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, seed and fold: numbers of cases and patients, and the figures over the cases."""
    rows = []
    for (arm, seed, fold), part in cases.groupby(["arm", "seed", "fold"], dropna=False, sort=False):
        numbers = {"arm": arm, "seed": seed, "fold": fold, "cases": len(part)}
        figures = summarise(part.drop(columns=["seed", "fold"]))
        rows.append(numbers | {"patients": part["patient_id"].nunique()} | figures)
    return pd.DataFrame(rows)


def compare_arms(cases: pd.DataFrame, arms: Sequence[str], resampling: Resampling) -> list[dict[str, Any]]:
    """Every pair of arms, and each arm against a constant inside the breast, metric by metric.

    ``p_adjusted`` bounds the expected share of false discoveries among all tests of the study (Benjamini, Hochberg
    1995).
    """
    pairs = list(itertools.combinations(arms, 2))
    if TO_BEAT in set(cases["arm"]):
        pairs += [(TO_BEAT, arm) for arm in arms]
    found = [
        {"a": a, "b": b, "metric": metric, **result}
        for a, b in pairs
        for metric, result in compare(rows_of(cases, a), rows_of(cases, b), resampling).items()
    ]
    tested = [row for row in found if math.isfinite(row["p"])]
    adjusted: Sequence[float] = false_discovery_control([row["p"] for row in tested]).tolist() if tested else []
    by_test = {id(row): float(p) for row, p in zip(tested, adjusted, strict=True)}
    return [row | {"p_adjusted": by_test.get(id(row), math.nan)} for row in found]


def comparison_table(content: Mapping[str, Any], reference: str, metrics: Sequence[str] = TABLE_METRICS) -> str:
    """What ``reference`` and the others differ in, as text; ``*``: the interval excludes 0."""
    rows = [row for row in content["comparisons"] if row["a"] == reference and row["metric"] in metrics]
    rows = [row for row in rows if math.isfinite(row["difference"])]
    if not rows:
        return ""
    lines = [f"{'metric':<18}  {'':<14}  {'difference':>10}  {'interval':>20}  {'p (adjusted)':>20}  effect  patients"]
    for row in sorted(rows, key=lambda row: list(metrics).index(row["metric"])):
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        star = "*" if row["low"] > 0 or row["high"] < 0 else " "
        test = f"{row['p']:.2g} ({row['p_adjusted']:.2g})" if math.isfinite(row["p"]) else "-"
        effect = f"{row['effect']:+.2f}" if math.isfinite(row["effect"]) else "-"
        change = f"{row['metric']:<18}  {row['b']:<14}  {row['difference']:>+10.4f}  {interval:>19}{star}"
        lines.append(f"{change}  {test:>20}  {effect:>6}  {row['patients']:>8}")
    return "\n".join([f"Differences from {reference} on the same cases; *: the interval excludes 0", *lines])


def print_study(study: Study, content: Mapping[str, Any]) -> None:
    """Print the table of all arms, the comparisons with the first one, the caveats and the files."""
    first = next(iter(content["predictors"].values()))
    counts = f"{first['cases']} test cases of {first['patients']} patients, {first['lesions']} with lesions"
    print(f"\n{counts}; {len(study.folds)} folds, {len(study.seeds)} seeds; means with 95 % intervals over patients\n")
    print(format_summary(content["predictors"]))
    print(f"\n{comparison_table(content, study.arms[0].name)}".rstrip())
    print("".join(f"\nNOTE: {caveat}" for caveat in content["caveats"]))
    for name in ("folds.csv", "cases.csv", "summary.json"):
        print(f"{name:<14}{study.folder / name}")
    print(f"\nAs a page: python scripts/report.py {study.folder} -o {study.folder / 'report.html'}", flush=True)
