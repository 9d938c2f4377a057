"""What all importers share: folds by patient, paths of a dataset folder, and the checked, atomic datalist."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from bundle.data import DATALIST
from bundle.files import write_text
from bundle.preflight import check_datalist, format_table


def patient_folds(patients: Sequence[str], strata: Sequence[Any], num_folds: int, seed: int) -> list[int]:
    """The fold of each case, all cases of a patient in one, with the strata (such as lesion or not) spread evenly.

    Args:
        patients: the patient of each case.
        strata: the stratum of each case.
        num_folds: number of folds, from 3 to the number of patients.
        seed: seed of the assignment.

    Raises:
        ValueError: fewer than 3 folds, or fewer patients than folds.
    """
    count = len(set(patients))
    if not 3 <= num_folds <= count:
        raise ValueError(f"--folds is {num_folds}, expected 3 to {count} (the number of patients).")
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    folds = np.zeros(len(patients), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a stratum may be rarer than folds
        for fold, (_, held_out) in enumerate(splitter.split(folds, [str(one) for one in strata], list(patients))):
            folds[held_out] = fold
    return [int(fold) for fold in folds]


def path_in(folder: Path, file: Path) -> str:
    """The path of ``file`` for a datalist in ``folder``: relative when it lies inside, else absolute."""
    file, folder = file.resolve(), folder.resolve()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def write_checked(folder: Path, content: Mapping[str, Any], progress: bool = True) -> bool:
    """Check a datalist in ``folder`` and put it in place; with errors nothing is written and the table is printed.

    Args:
        folder: the dataset folder; made if absent.
        content: what ``datalist.json`` shall hold.
        progress: show a progress bar on a terminal.

    Returns:
        Whether it was written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    draft = write_text(folder / f".{DATALIST}.{os.getpid()}.draft", text)  # in the folder that its paths refer to
    try:
        problems = check_datalist(draft, progress)
    finally:
        draft.unlink()
    if problems:
        print(format_table(problems), file=sys.stderr)
    if any(problem.level == "ERROR" for problem in problems):
        print(f"No {DATALIST} was written. Remedy the errors and run the command again.", file=sys.stderr)
        return False
    write_text(folder / DATALIST, text)
    return True


def summary(content: Mapping[str, Any]) -> str:
    """One line on the cases and one on the folds of a datalist."""
    cases = content["cases"]
    patients = len({case["patient_id"] for case in cases})
    lesions = sum("mask" in case or "label_mask" in case for case in cases)
    sizes = Counter(case["fold"] for case in cases)
    folds = " ".join(str(sizes[fold]) for fold in range(content["num_folds"]))
    return f"{len(cases)} pairs of {patients} patients, {lesions} with a lesion mask\ncases per fold: {folds}"
