"""What the report reads: a study, or one evaluated run, as one kind of evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bundle.predictors import PREDICTOR_NAMES
from scripts.evidence.report_metrics import METRICS

__all__ = ["REFERENCES", "Evidence", "External", "Job", "read_evidence", "sorted_texts"]

REFERENCES = PREDICTOR_NAMES
"""Predictors that know nothing of the case, see docs/metrics.md."""
_TEXTS = (
    *("arm", "seed", "fold", "predictor", "patient_id", "laterality", "view", "source", "picture"),
    *("density", "label", "lesion_kind", "lesion_size"),
)
_EVALUATE = "Evaluate the run again (docs/how-to-train.md)."
_STUDY = "Run the command of the study again."
_SYNTHETIC = "is SYNTHETIC"


@dataclass(frozen=True)
class External:
    """A test of one run on another data set."""

    name: str
    predictors: Mapping[str, Mapping[str, Any]]
    caveats: Sequence[str] = ()
    shift: Any = None
    picture: Path | None = None


@dataclass(frozen=True)
class Job:
    """One trained and evaluated run; ``arm``, ``fold`` and ``seed`` as text, "" where they are unknown."""

    folder: Path
    arm: str
    fold: str
    seed: str
    record: Mapping[str, Any] | None = None
    history: pd.DataFrame | None = None
    externals: Sequence[External] = ()
    caveats: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Arm, fold and seed in words."""
        words = (self.arm, f"fold {self.fold}" if self.fold else "", f"seed {self.seed}" if self.seed else "")
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Evidence:
    """A study or one evaluated run.

    Attributes:
        folder: to which the paths of the pictures are relative.
        title: headline.
        arms: name -> description of the models that are compared.
        references: names of the other predictors in ``predictors``.
        predictors: arm or reference -> ``cases``, ``patients``, ``lesions``, ``metrics`` and ``strata``.
        intervals: how the intervals were made.
        cases: one row per arm, seed, fold and case; ``arm``, ``seed`` and ``fold`` are text.
        folds: means of each arm, seed and fold.
        comparisons: paired differences between arms.
        jobs: the runs behind it.
        gamma: sweep of gamma, if there is one.
        study: what ``study.json`` holds, empty for a single run.
    """

    folder: Path
    title: str
    arms: Mapping[str, str]
    references: Sequence[str]
    predictors: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Any]
    cases: pd.DataFrame
    jobs: Sequence[Job]
    folds: pd.DataFrame | None = None
    comparisons: Sequence[Mapping[str, Any]] = ()
    gamma: Mapping[str, Any] | None = None
    caveats: Sequence[str] = ()
    study: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Arms, then references."""
        return [*self.arms, *self.references]

    @property
    def synthetic(self) -> bool:
        """Whether the data are computed: a study says so, a run in its caveats."""
        return bool(self.study.get("synthetic")) or any(_SYNTHETIC in caveat for caveat in self.caveats)


def read_evidence(folder: Path) -> Evidence:
    """Read the study or evaluated run in ``folder``.

    Raises:
        ValueError: the folder holds neither, or a file is missing or damaged; the message names it and the remedy.
    """
    try:
        return _evidence(folder)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(
            f"{folder}: results are not as this bundle writes them ({type(error).__name__}: {error}). {_EVALUATE}"
        ) from error


def _evidence(folder: Path) -> Evidence:
    if (folder / "study.json").is_file():
        return _study(folder)
    missing = [name for name in ("summary.json", "cases.csv") if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder}: found no study.json, so this is no study, and no {' and no '.join(missing)}, so it is no "
            "evaluated run. Give the folder of a study, or evaluate the run first (docs/how-to-train.md)."
        )
    return _run(folder)


def _study(folder: Path) -> Evidence:
    study, summary = (_json(folder / name, _STUDY) for name in ("study.json", "summary.json"))
    predictors = _predictors(folder / "summary.json", summary, _STUDY)
    cases = _table(folder / "cases.csv", ("arm", "seed", "fold", "patient_id"), _STUDY)
    listed = study.get("arms") or {}
    described = (
        {str(name): str(text or "") for name, text in listed.items() if name not in REFERENCES}
        if isinstance(listed, dict)
        else {}
    )
    arms = described or {name: "" for name in predictors if name not in REFERENCES}
    jobs = [_job(path) for arm in arms for path in sorted((folder / arm).glob("fold_*_seed_*")) if path.is_dir()]
    folds = folder / "folds.csv"
    gamma = folder / "gamma.json"
    return Evidence(
        folder=folder,
        title=str(study.get("title") or folder.resolve().name),
        arms=arms,
        references=_references(predictors, arms),
        predictors=predictors,
        intervals=summary.get("intervals") or {},
        cases=cases,
        jobs=jobs,
        folds=_table(folds, ("arm", "fold"), _STUDY) if folds.is_file() else None,
        comparisons=summary.get("comparisons") or (),
        gamma=_json(gamma, _STUDY) if gamma.is_file() else None,
        caveats=_caveats(study.get("caveats"), summary.get("caveats"), *(job.caveats for job in jobs)),
        study=study,
    )


def _run(folder: Path) -> Evidence:
    summary = _json(folder / "summary.json", _EVALUATE)
    predictors = _predictors(folder / "summary.json", summary, _EVALUATE)
    cases = _table(folder / "cases.csv", ("predictor", "patient_id"), _EVALUATE)
    job = _job(folder, "model")
    arms = {"model": ""}
    return Evidence(
        folder=folder,
        title=folder.resolve().name,
        arms=arms,
        references=_references(predictors, arms),
        predictors=predictors,
        intervals=summary.get("intervals") or {},
        cases=cases.drop(columns="arm", errors="ignore")
        .rename(columns={"predictor": "arm"})
        .assign(fold=job.fold, seed=job.seed),
        jobs=[job],
        caveats=_caveats(summary.get("caveats"), job.caveats),
    )


def _job(folder: Path, arm: str | None = None) -> Job:
    """A run; its arm, fold and seed from its path inside a study, or from its record."""
    record = _json(folder / "run.json", _EVALUATE) if (folder / "run.json").is_file() else None
    if arm is None:
        fold, _, seed = folder.name.removeprefix("fold_").partition("_seed_")
        arm = folder.parent.name
    else:
        settings = (record or {}).get("settings") or {}
        fold, seed = (_text(value) for value in (settings.get("fold"), (record or {}).get("seed")))
    history = folder / "history.csv"
    return Job(
        folder=folder,
        arm=arm,
        fold=fold,
        seed=seed,
        record=record,
        history=_table(history, ("epoch",), _EVALUATE) if history.is_file() else None,
        externals=[_external(path) for path in sorted(folder.glob("external/*")) if path.is_dir()],
        caveats=_lines(folder / "caveats.txt"),
    )


def _external(folder: Path) -> External:
    path, shift, picture = (folder / name for name in ("summary.json", "domain_shift.json", "domain_shift.png"))
    summary = _json(path, _EVALUATE) if path.is_file() else {}
    return External(
        name=folder.name,
        predictors=_predictors(path, summary, _EVALUATE) if summary else {},
        caveats=_caveats(summary.get("caveats"), _lines(folder / "caveats.txt")),
        shift=_json(shift, _EVALUATE) if shift.is_file() else None,
        picture=picture if picture.is_file() else None,
    )


def _predictors(path: Path, summary: Mapping[str, Any], remedy: str) -> dict[str, Mapping[str, Any]]:
    found = summary.get("predictors")
    if not isinstance(found, dict) or not all(isinstance(one, dict) and "metrics" in one for one in found.values()):
        raise ValueError(f"{path}: expected figures under 'predictors', each with 'metrics', found none. {remedy}")
    return {str(name): one for name, one in found.items()}


def _references(predictors: Mapping[str, Any], arms: Mapping[str, str]) -> list[str]:
    known = [name for name in REFERENCES if name in predictors]
    return known + [name for name in predictors if name not in arms and name not in known]


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({_reason(error)}). {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}. {remedy}")  # noqa: TRY004 (what is wrong is a file)
    return content


def _table(path: Path, needed: Sequence[str], remedy: str) -> pd.DataFrame:
    """A csv file: texts stay texts ("007", "NA"), figures are numbers, and an empty figure is NaN."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [name for name in needed if name not in rows]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")  # noqa: TRY301 (one sentence for all that is wrong)
        columns = {name: rows[name] if name in _TEXTS else _figures(rows[name]) for name in map(str, rows)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({_reason(error)}). {remedy}") from error
    return pd.DataFrame(columns)


def _figures(column: pd.Series[str]) -> pd.Series[Any]:
    try:
        return pd.to_numeric(column.where(column != "")).astype(float)
    except ValueError:
        if column.name in METRICS or column.name == "epoch":
            raise
        return column


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _caveats(*lists: Any) -> list[str]:
    return list(dict.fromkeys(str(text).strip() for texts in lists for text in texts or () if str(text).strip()))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())


def sorted_texts(texts: Any) -> list[str]:
    """Distinct texts, numbers by their value before words, the empty one last."""
    return sorted(set(map(str, texts)), key=lambda t: (t == "", not t.isdigit(), int(t) if t.isdigit() else 0, t))
