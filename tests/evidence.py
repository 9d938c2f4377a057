"""Made-up results of evaluated runs, for tests of studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bundle.files import json_text, write_text
from bundle.metrics import CASE_FIGURES

PREDICTORS = ("model", "le_copy", "breast_constant", "mean_des")


def case_table(fold: int, shift: Mapping[str, float] | None = None, patients: int = 8) -> pd.DataFrame:
    """``cases.csv`` of one evaluation: two views a patient, the same cases for every call with one fold.

    ``shift`` is added to metrics of the model.
    """
    rng = np.random.default_rng(fold)
    parts = []
    for predictor in PREDICTORS:
        n = 2 * patients
        frame = pd.DataFrame({"predictor": predictor, "patient_id": [f"00{fold}{i // 2}" for i in range(n)]})
        frame = frame.assign(laterality="L", view=["CC", "MLO"] * patients, source=[f"f{fold}_{i}" for i in range(n)])
        frame["picture"] = [f"pictures/{i + 1:04d}.png" for i in range(n)] if predictor == "model" else ""
        frame = frame.assign(density=["1", "2"] * patients, label="", lesion_kind="mass", lesion_size="")
        for name in CASE_FIGURES:
            frame[name] = rng.uniform(0.2, 0.8, n) + ((shift or {}).get(name, 0.0) if predictor == "model" else 0.0)
        frame.loc[::4, [name for name in CASE_FIGURES if name.startswith("lesion")]] = np.nan
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def write_run(folder: Path, cases: pd.DataFrame, finished: tuple[str, ...] = ("test",)) -> None:
    """An evaluated run with these cases, without the settings of its job."""
    folder.mkdir(parents=True)
    cases.to_csv(folder / "cases.csv", index=False)
    write_text(folder / "job.json", json_text({"finished": list(finished)}))
