"""A small study on disk, as the report reads it: every number and picture is drawn at random."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

REFERENCES = ("le_copy", "breast_constant", "mean_des")
METRICS = {"psnr": 24.0, "breast_psnr": 20.0, "breast_ssim": 0.7, "lesion_mae": 0.15, "false_enhancement": 0.03}
SIZE = (48, 32)
"""Height and width of the pictures."""


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def random_picture(rng: np.random.Generator, lesion: bool) -> NDArray[np.uint8]:
    """LE | real DES | virtual DES | lesion, side by side."""
    height, width = SIZE
    greys = rng.integers(20, 255, (height, 3 * width), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[10:20, 8:18] = 255 if lesion else 0
    return np.concatenate([greys, mask], axis=1)


def case_rows(fold: int, count: int) -> list[dict[str, Any]]:
    """The facts of the cases of one fold; every second one has a lesion."""
    return [
        {
            "patient_id": f"{fold}{number // 2:02d}",
            "laterality": "LR"[number % 2],
            "view": ("CC", "MLO")[number // 2 % 2],
            "source": f"{fold}_{number}",
            "picture": "",
            "density": "BC"[number % 3 // 2],
            "label": "malignant" if number % 2 else "normal",
            "lesion_kind": "mass" if number % 2 else "",
            "lesion_size": "small" if number % 2 else "",
        }
        for number in range(count)
    ]


def with_figures(rng: np.random.Generator, row: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: middle * rng.uniform(0.9, 1.1) for name, middle in METRICS.items()}
    if not row["lesion_kind"]:
        figures["lesion_mae"] = np.nan
    return {**row, **figures}


def figures_of(cases: pd.DataFrame) -> dict[str, Any]:
    """The entry of one predictor, or of one level of a stratum, in summary.json."""
    metrics = {}
    for name in METRICS:
        mean = cases[name].mean()
        known = None if np.isnan(mean) else mean
        ends = {"low": known and known * 0.97, "high": known and known * 1.03}
        metrics[name] = {"n": int(cases[name].count()), "mean": known, "sd": None, "median": known, **ends}
    lesions = int(cases["lesion_mae"].notna().sum())
    return {
        "cases": len(cases),
        "patients": int(cases["patient_id"].nunique()),
        "lesions": lesions,
        "metrics": metrics,
    }


def summary_of(cases: pd.DataFrame, column: str) -> dict[str, Any]:
    predictors = {}
    for name, rows in cases.groupby(column, sort=False):
        strata = {
            stratum: {str(level): figures_of(part) for level, part in rows.groupby(stratum)}
            for stratum in ("density", "label")
        }
        predictors[str(name)] = figures_of(rows) | {"strata": strata}
    intervals = {"unit": "patient", "resamples": 2000, "confidence": 0.95}
    return {"intervals": intervals, "caveats": [], "predictors": predictors}


def write_job(folder: Path, seed: int = 0, fold: int = 0, count: int = 4) -> pd.DataFrame:
    """One evaluated run with everything that it may leave; returns its cases."""
    rng = np.random.default_rng([seed, fold, *folder.parent.name.encode()])
    rows = []
    for number, row in enumerate(case_rows(fold, count)):
        picture = folder / "pictures" / f"{number:04d}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_picture(rng, bool(row["lesion_kind"]))).save(picture)
        rows.append({"predictor": "model"} | with_figures(rng, row) | {"picture": f"pictures/{number:04d}.png"})
        rows += [{"predictor": name} | with_figures(rng, row) for name in REFERENCES]
    cases = pd.DataFrame(rows)
    cases.to_csv(folder / "cases.csv", index=False)
    write_json(folder / "summary.json", summary_of(cases, "predictor"))
    record = {
        "status": "completed",
        "epoch": 5,
        "max_epochs": 5,
        "best": {"metric": "psnr", "value": 25.0, "epoch": 4},
        "bundle": {"name": "cesm_virtual_contrast", "version": "0.1.0", "git": "abc123"},
        "versions": {"torch": "2.13.0", "monai": "1.6.1"},
        "machine": {"system": "Linux", "gpus": []},
        "seed": seed,
        "settings": {"fold": fold, "image_size": 256},
        "data": {"cases": 8, "sha256": "0" * 64},
        "command": ["python", "-m", "monai.bundle", "run"],
    }
    write_json(folder / "run.json", record)
    history = {"epoch": range(1, 6), "loss": rng.uniform(1, 3, 5), "val_psnr": rng.uniform(20, 25, 5)}
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    return cases


def write_study(folder: Path, arms: Sequence[str] = ("baseline", "seg35", "seg100"), folds: int = 2) -> Path:
    """A study of several arms with 4 cases in each fold; returns its folder."""
    parts = []
    for arm in arms:
        for fold in range(folds):
            job = f"{arm}/fold_{fold}_seed_0"
            cases = write_job(folder / job, fold=fold).assign(seed=0, fold=fold)
            cases["picture"] = cases["picture"].where(cases["picture"] == "", f"{job}/" + cases["picture"])
            own = cases["predictor"] == "model"
            first = cases if arm == arms[0] else cases[own]
            parts.append(first.assign(arm=first["predictor"].where(first["predictor"] != "model", arm)))
    cases = pd.concat(parts).drop(columns="predictor")
    cases.to_csv(folder / "cases.csv", index=False)
    means = cases.groupby(["arm", "seed", "fold"], sort=False)[list(METRICS)].mean().reset_index()
    means.to_csv(folder / "folds.csv", index=False)
    compared = {"metric": "breast_psnr", "cases": 8, "patients": 4, "p": 0.0004, "p_adjusted": 0.03, "effect": 0.5}
    summary = summary_of(cases, "arm") | {
        "comparisons": [
            compared | {"a": arms[0], "b": arms[1], "difference": 0.51, "low": 0.2, "high": 0.8},
            compared | {"a": arms[0], "b": arms[1], "metric": "lesion_mae", "difference": 0.01, "low": -1, "high": 1},
        ]
    }
    write_json(folder / "summary.json", summary)
    study = {
        "title": "Folds of a phantom",
        "dataset": "phantom",
        "synthetic": True,
        "arms": {arm: f"what {arm} is" for arm in arms},
        "folds": list(range(folds)),
        "seeds": [0],
        "caveats": ["few cases"],
        "command": ["python", "a script", "--folds", "2"],
    }
    write_json(folder / "study.json", study)
    return folder
