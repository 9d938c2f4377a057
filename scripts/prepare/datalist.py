"""The datalist that all importers write: folds by patient, its check, and a summary."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from bundle.data import DATALIST
from bundle.files import file_at, write_text
from bundle.preflight import MIN_FOLDS, FileFacts, Problem, check_datalist

__all__ = [
    "DEFAULT_FOLDS",
    "case_problems",
    "check",
    "datalist_text",
    "default_folds",
    "path_in",
    "patient_folds",
    "require_folds",
    "stratum",
    "summary",
]


DEFAULT_FOLDS = 10
DRAWS = 4
"""Assignments of patients to folds among which the most even one is taken, for each way to stratify."""
FIRST_PART = 10.0
"""How much more it counts that the first part of the strata, the lesions, is spread evenly."""


def default_folds(patients: int) -> int:
    """The number of folds where the user names none: as the protocol has it, or what so many patients can fill."""
    return min(DEFAULT_FOLDS, patients) if patients >= MIN_FOLDS else 0


def require_folds(num_folds: int, patients: int) -> None:
    """Refuse a number of folds that so many patients cannot fill; 0 is none.

    Raises:
        ValueError: saying what to give.
    """
    if num_folds == 0 or MIN_FOLDS <= num_folds <= patients:
        return
    if patients < MIN_FOLDS:
        raise ValueError(
            f"--folds is {num_folds}, but there are {patients} patients: at least {MIN_FOLDS} are needed. "
            "Add patients, or give --folds 0 for an external test set without folds."
        )
    raise ValueError(
        f"--folds is {num_folds}, expected {MIN_FOLDS} to {patients} (the number of patients), "
        "or 0 for an external test set without folds."
    )


def patient_folds(patients: Sequence[str], strata: Sequence[Any], num_folds: int, seed: int) -> list[int]:
    """The fold of each case, all cases of a patient in one, with the strata spread evenly.

    scikit-learn's StratifiedGroupKFold assigns one patient after the other; of several such assignments, by all parts
    of the strata together and by the first ones alone, the one is taken that spreads each part and the cases most
    evenly.

    Args:
        patients: the patient (or the group of patients) of each case.
        strata: the stratum of each case: a text, or a tuple of texts, the most important first.
        num_folds: number of folds, from 3 to the number of patients.
        seed: seed of the assignment.

    Raises:
        ValueError: fewer than 3 folds, or fewer patients than folds.
    """
    if num_folds == 0:
        raise ValueError("--folds is 0: there are no folds to draw.")
    require_folds(num_folds, len(set(patients)))
    parts = [one if isinstance(one, tuple) else (one,) for one in strata]
    draws = [int(draw) for draw in np.random.default_rng(seed).integers(2**31, size=DRAWS)]
    candidates: list[list[int]] = []
    for length in range(len(parts[0]), -1, -1):
        classes = [str(one[:length]) for one in parts]
        if max(Counter(classes).values()) >= num_folds and (length or not candidates):
            drawn = (_drawn(list(patients), classes, num_folds, draw) for draw in draws)
            candidates += [folds for folds in drawn if len(set(folds)) == num_folds]
    return min(candidates, key=lambda folds: _unevenness(folds, parts, num_folds))


def _drawn(patients: list[str], classes: list[str], num_folds: int, seed: int) -> list[int]:
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    folds = np.zeros(len(patients), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a stratum may be rarer than folds
        for fold, (_, held_out) in enumerate(splitter.split(folds, classes, patients)):
            folds[held_out] = fold
    return [int(fold) for fold in folds]


def _unevenness(folds: Sequence[int], parts: Sequence[tuple[Any, ...]], num_folds: int) -> float:
    """Chi-square distance from equal shares, of the cases and of each class of each part of the strata."""
    total = 0.0
    for number, column in enumerate(([()] * len(parts), *zip(*parts, strict=True))):
        weight = FIRST_PART if number == 1 else 1.0
        for kind, count in Counter(column).items():
            found = np.bincount([f for f, one in zip(folds, column, strict=True) if one == kind], minlength=num_folds)
            total += weight * float(((found - count / num_folds) ** 2).sum() * num_folds / count)
    return total


def stratum(facts: Mapping[str, Any]) -> tuple[str, str]:
    """By what a case is spread over the folds: its label, or whether there is a lesion mask, and the density."""
    lesion = facts["mask_pixels"] or facts["label_mask_pixels"]
    return facts["label"] or ("lesion" if lesion else "no lesion"), facts["density"]


def path_in(folder: Path, file: Path) -> str:
    """The path of ``file`` for a datalist in ``folder``: relative when it lies inside, else absolute.

    A link is named itself, not what it leads to: that may lack the suffix by which the format is known.
    """
    for place, root in ((file.absolute(), folder.absolute()), (file_at(file), folder.resolve())):
        if ".." not in place.parts and place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return file_at(file).as_posix()


def datalist_text(content: Mapping[str, Any]) -> str:
    """The text of ``datalist.json``."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def check(folder: Path, content: Mapping[str, Any], progress: bool, known: FileFacts) -> list[Problem]:
    """The problems that a datalist in ``folder`` would have.

    Args:
        folder: the dataset folder; made if absent.
        content: what ``datalist.json`` shall hold.
        progress: show a progress bar on a terminal.
        known: facts of files read before; those read now are added.
    """
    draft = folder / f".{DATALIST}.{os.getpid()}.draft"  # in the folder that its paths refer to
    try:
        problems = check_datalist(write_text(draft, datalist_text(content)), progress, known)
        return [replace(one, file=one.file.replace(str(draft), DATALIST)) for one in problems]
    finally:
        draft.unlink(missing_ok=True)


def case_problems(problems: Sequence[Problem]) -> dict[int, Problem]:
    """Index of a case -> its first error."""
    found: dict[int, Problem] = {}
    for problem in problems:
        match = re.match(r"#(\d+)", problem.case)
        if match and problem.level == "ERROR":
            found.setdefault(int(match[1]), problem)
    return found


def summary(content: Mapping[str, Any]) -> str:
    """One line on the cases and one on the folds of a datalist."""
    cases = content["cases"]
    patients = len({case["patient_id"] for case in cases})
    lesions = sum("mask" in case or "label_mask" in case for case in cases)
    line = f"{len(cases)} pairs of {patients} patients, {lesions} with a lesion mask"
    if "num_folds" not in content:
        return f"{line}\nno folds: an external test set"
    sizes = Counter(case["fold"] for case in cases)
    folds = " ".join(str(sizes[fold]) for fold in range(content["num_folds"]))
    return f"{line}\ncases per fold: {folds}"
