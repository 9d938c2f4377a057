"""The content of ``explanations.json``, described in ``docs/explanations.md``, and the files beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.files import atomic_path, json_text, write_text
from bundle.metrics.intervals import Resampling
from scripts.explaining.calibration import calibration
from scripts.explaining.curves import calibration_figure
from scripts.explaining.explained import ATTRIBUTIONS, Explained
from scripts.explaining.figures import Figure, bootstrapped, unknown
from scripts.explaining.flags import false_enhancement, lesion_spearman, lost_auc
from scripts.explaining.lesions import REGIONS
from scripts.explaining.pictures import save
from scripts.explaining.sanity import verdict
from scripts.explaining.study import Measured, Options

__all__ = ["EXPLANATIONS", "FORMAT", "content", "printed", "write_results"]

EXPLANATIONS = "explanations.json"
FORMAT = 1
_INTERNAL = ["entry", "fold"]
_LESION = [*_INTERNAL, "lesion"]


def content(
    title: str,
    runs: Sequence[str],
    caveats: Sequence[str],
    measured: Measured,
    explained: Explained,
    options: Options,
    resampling: Resampling,
) -> dict[str, Any]:
    """What ``explanations.json`` holds.

    Args:
        title: of the run or arm.
        runs: their names.
        caveats: what must be said with every figure.
        measured: of all held-out cases.
        explained: of the chosen lesions.
        options: how much was done.
        resampling: how intervals are made.
    """
    cases, lesions = measured.cases, measured.lesions
    methods = [str(name).removeprefix("std_") for name in cases if str(name).startswith("std_")]
    return {
        "format": FORMAT,
        "title": title,
        "runs": list(runs),
        "caveats": list(caveats),
        "settings": {k: v for k, v in asdict(options).items() if k != "progress"},
        "intervals": {"unit": "patient", "resamples": resampling.resamples, "confidence": resampling.confidence},
        "counts": {
            "cases": len(cases),
            "patients": int(cases["patient_id"].nunique()) if len(cases) else 0,
            "lesions": len(lesions),
            "lost": int(lesions["lost"].sum()) if len(lesions) else 0,
            "kept": int((lesions["lost"] == 0).sum()) if len(lesions) else 0,
            "explained": len(explained.lesions),
        },
        "attribution": {
            "complete": int(explained.lesions["ig_complete"].sum()) if len(explained.lesions) else 0,
            "methods": {name: _attribution(name, explained, resampling) for name in ATTRIBUTIONS},
        },
        "sanity": {name: _sanity(name, explained.sanity) for name in ATTRIBUTIONS},
        "uncertainty": {name: _uncertainty(name, measured, resampling) for name in methods},
        "lesions": _listed(explained.lesions),
        "panels_without_lesion": explained.panels,
    }


def _attribution(method: str, explained: Explained, resampling: Resampling) -> dict[str, Any]:
    rows, curves = explained.lesions, explained.curves
    if rows.empty:
        return {"shares": {}, "deletion": {"gain": unknown("no lesion was explained"), "faithful": 0, "curve": []}}
    own = curves[curves["method"] == method].groupby("fraction")[["named", "random"]].mean().reset_index()
    gain = f"{method}_deletion_gain"
    return {
        "shares": {region: float(rows[f"{method}_share_{region}"].mean()) for region in REGIONS},
        "deletion": {
            "gain": _mean_figure(rows, gain, resampling),
            "faithful": int((rows[gain] > 0).sum()),
            "curve": own.to_dict("records"),
        },
    }


def _mean_figure(rows: pd.DataFrame, name: str, resampling: Resampling) -> Figure:
    return bootstrapped(rows, lambda part: float(part[name].mean()), resampling)


def _sanity(method: str, rows: pd.DataFrame) -> dict[str, Any]:
    own = rows[rows["method"] == method] if len(rows) else rows
    if own.empty:
        return verdict(own) | {"lesions": 0, "stages": []}
    keys, figures = ["stage", "layers", "total"], ["spearman", "spearman_abs", "ssim"]
    stages = own.groupby(keys, sort=False)[figures].median().reset_index()
    return verdict(own) | {"lesions": int(own["name"].nunique()), "stages": stages.to_dict("records")}


def _uncertainty(method: str, measured: Measured, resampling: Resampling) -> dict[str, Any]:
    return {
        "calibration": calibration(measured.pixels, method, resampling),
        "lesion_error_spearman": lesion_spearman(measured.lesions, method, resampling),
        "lost_auc": lost_auc(measured.lesions, method, resampling),
        "false_enhancement": false_enhancement(measured.areas, method, resampling),
    }


def _listed(rows: pd.DataFrame) -> list[dict[str, Any]]:
    if rows.empty:
        return []
    ordered = rows.sort_values("lesion_contrast_real", kind="stable", na_position="first")
    listed = ordered.drop(columns=_INTERNAL, errors="ignore").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in listed]


def write_results(found: Mapping[str, Any], measured: Measured, explained: Explained, output: Path) -> list[Path]:
    """Write ``lesions.csv``, ``cases.csv``, ``calibration.png`` and, last, ``explanations.json``; return the paths.

    ``lesions.csv`` has all lesions; columns of attributions are empty for those that were not explained.
    """
    lesions = measured.lesions
    if len(explained.lesions):
        more = [name for name in explained.lesions if name not in lesions]
        lesions = lesions.merge(explained.lesions[[*_LESION, *more]], how="left", on=_LESION, validate="one_to_one")
    written = []
    for name, rows in (("lesions", lesions), ("cases", measured.cases)):
        with atomic_path(output / f"{name}.csv") as path:
            rows.drop(columns=_INTERNAL, errors="ignore").to_csv(path, index=False)
        written.append(output / f"{name}.csv")
    figure = calibration_figure(found["uncertainty"])
    if figure is not None:
        written.append(save(figure, output / "calibration.png"))
    return [*written, write_text(output / EXPLANATIONS, json_text(found))]


def printed(found: Mapping[str, Any]) -> str:
    """The main figures as lines of text."""
    counts = found["counts"]
    lines = ["{cases} held-out cases of {patients} patients, {lesions} lesions, {explained} explained".format(**counts)]
    for name, one in found["sanity"].items():
        passed = {True: "passed", False: "FAILED", None: "not checked"}[one["passed"]]
        lines.append(f"{name}: check with random weights {passed}{_because(one['reason'])}")
    for name, one in found["attribution"]["methods"].items():
        if one["shares"]:
            shares = ", ".join(f"{region} {share:.2f}" for region, share in one["shares"].items())
            faithful = f"{one['deletion']['faithful']} of {counts['explained']} faithful by deletion"
            lines.append(f"{name}: share of |attribution| {shares}; {faithful}")
    for name, one in found["uncertainty"].items():
        raw, recalibrated = (_text(one["calibration"][kind]["ence"]) for kind in ("raw", "recalibrated"))
        lines.append(
            f"{name}: ENCE {raw} (too small by {one['calibration']['factor']:.2f}), recalibrated {recalibrated}"
        )
        lines.append(f"{name}: Spearman with lesion error {_text(one['lesion_error_spearman'])}")
        lines.append(f"{name}: AUC for lost lesions {_text(one['lost_auc'])}")
        lines.append(f"{name}: more in false than in true bright areas {_text(one['false_enhancement']['difference'])}")
    return "\n".join([*lines, *(f"NOTE: {caveat}" for caveat in found["caveats"])])


def _text(figure: Figure) -> str:
    if not math.isfinite(figure["value"]):
        return f"-{_because(figure['reason'])}"
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if math.isfinite(figure["low"]) else ""
    return f"{figure['value']:.3f}{interval}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
