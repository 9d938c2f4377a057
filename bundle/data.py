"""Cases of a dataset folder and their folds."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import distributed

from bundle import ranks
from bundle.epochs import EpochDataset, EpochSampler
from bundle.overlap import overlap_problems
from bundle.preflight import Problem, check_datalist, format_table

__all__ = [
    "DATALIST",
    "EpochDataset",
    "EpochSampler",
    "caveats",
    "checked_cases",
    "datalist_digest",
    "evaluation_cases",
    "phantom_for",
    "read_datalist",
    "section_cases",
]

logger = logging.getLogger("cesm")

#: Name of the list of cases in a dataset folder.
DATALIST = "datalist.json"
_FILE_KEYS = ("image", "label", "mask", "label_mask")

Case = dict[str, Any]


def read_datalist(path: str | Path) -> dict[str, Any]:
    """The content of a datalist, unchecked but for its outer shape.

    Args:
        path: the dataset folder or its ``datalist.json``.

    Raises:
        ValueError: the file is missing, is not JSON, or holds no list of cases.
    """
    file = Path(path) / DATALIST if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no readable datalist ({error}). Make one: scripts/prepare_data.py.") from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise ValueError(f"{file}: expected an object holding the list `cases`. Check it: scripts/check_data.py.")  # noqa: TRY004
    return content


def datalist_digest(dataset_dir: str | Path) -> str | None:
    """The SHA-256 of the bytes of a dataset folder's datalist, in hexadecimal; None where there is no datalist."""
    file = Path(dataset_dir).expanduser() / DATALIST
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def phantom_for(dataset_dir: str | Path, bundle_root: str | Path, **arguments: Any) -> dict[str, Any] | None:
    """The arguments of the phantom for the folder in which the phantom belongs, and None for any other folder.

    Args:
        dataset_dir: the dataset folder in use, in any spelling (relative, with a slash at its end, through a link).
        bundle_root: the bundle's folder; the phantom belongs in its ``data/phantom``.
        arguments: arguments of ``make_phantom``.
    """
    folder, home = (Path(path).expanduser().resolve() for path in (dataset_dir, Path(bundle_root) / "data" / "phantom"))
    return arguments if folder == home else None


def checked_cases(dataset_dir: str | Path, phantom: Mapping[str, Any] | None = None) -> list[Case]:
    """All cases of a dataset folder, with absolute paths, once every file of it has passed the data check.

    Args:
        dataset_dir: folder holding ``datalist.json``.
        phantom: arguments of ``make_phantom``. When given, a folder that is absent or empty is filled with that
            SYNTHETIC dataset first, which is said on the standard error. A folder that holds anything is left alone.

    Returns:
        One dictionary a case, as in ``datalist.json``.

    Raises:
        SystemExit: with code 1, after all problems were printed to the standard error as one table.
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if phantom is not None:
        _ensure_phantom(folder, phantom)
    _refuse_errors(lambda: check_datalist(folder / DATALIST))
    if ranks.is_main_rank():
        for caveat in caveats(folder):
            logger.warning(caveat)
    return [_absolute(case, folder) for case in read_datalist(folder)["cases"]]


def caveats(dataset_dir: str | Path, external_dir: str | Path | None = None) -> list[str]:
    """What must be said with every figure: that data are synthetic, that folds leak.

    Args:
        dataset_dir: data set of the training.
        external_dir: data set on which the model is tested instead, if any; what is true of either must be said.
    """
    folders = [dataset_dir] if external_dir is None else [external_dir, dataset_dir]
    return list(dict.fromkeys(caveat for folder in folders for caveat in _caveats_of(folder)))


def _caveats_of(dataset_dir: str | Path) -> list[str]:
    content = read_datalist(Path(dataset_dir).expanduser())
    title = f"data set {content.get('name')!r}"
    said = []
    if content.get("synthetic"):
        said.append(f"{title} is SYNTHETIC: what is trained or measured on it says nothing about patients")
    if content.get("allow_leak"):
        patients, leaking = _leaking_patients(content["cases"])
        said.append(
            f"{title} has LEAKING FOLDS (allow_leak; {leaking} of {patients} patients are in several folds): scores on "
            "its validation and test sections are too good to be true and must not be reported as performance"
        )
    return said


def _leaking_patients(cases: Sequence[Case]) -> tuple[int, int]:
    """The number of patients, and of those whose cases lie in several folds."""
    folds: dict[str, set[Any]] = {}
    for case in cases:
        folds.setdefault(case["patient_id"], set()).add(case.get("fold"))
    return len(folds), sum(len(used) > 1 for used in folds.values())


def _absolute(case: Mapping[str, Any], folder: Path) -> Case:
    return {key: str(folder / value) if key in _FILE_KEYS else value for key, value in case.items()}


def _ensure_phantom(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Make the phantom in a folder beside ``folder`` and rename it, so that ``folder`` is never half a dataset."""
    if folder.exists() and any(folder.iterdir()):
        return
    from bundle.phantom import make_phantom

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):  # processes started together: the others wait here
        if folder.exists() and any(folder.iterdir()):
            return
        partial = folder.parent / f".{folder.name}.partial"
        rule = "*" * 100
        print(
            f"{rule}\nNo data in {folder}: making the built-in SYNTHETIC phantom there.\n"
            "What is trained on it says nothing about patients. For your own data: scripts/prepare_data.py\n"
            f"{rule}",
            file=sys.stderr,
            flush=True,
        )
        make_phantom(partial, **arguments)
        partial.replace(folder)


def _refuse_errors(check: Callable[[], list[Problem]]) -> None:
    """Check on the first process and tell the others: every file is decoded once, the table is printed once.

    Raises:
        SystemExit: with code 1 on every process, if there is an error.
    """
    verdict = [False]
    if ranks.is_main_rank():
        problems = check()
        if problems:
            print(format_table(problems), file=sys.stderr, flush=True)
        verdict = [all(problem.level != "ERROR" for problem in problems)]
    if ranks.world_size() > 1:
        distributed.broadcast_object_list(verdict)
    if not verdict[0]:
        raise SystemExit(1)


def section_cases(cases: Sequence[Case], fold: int, section: str, num_folds: int | None = None) -> list[Case]:
    """The cases of one section of one cross-validation fold: ``test`` is fold k, ``validation`` k + 1, rest training.

    Args:
        cases: cases that carry ``fold``; if none does they are an external test set, and all in the section ``test``.
        fold: k, from 0 to ``num_folds - 1``.
        section: ``training``, ``validation`` or ``test``.
        num_folds: number of folds; by default the largest fold of the cases plus one.

    Raises:
        ValueError: unknown section, fold out of range, a section without a case, or some cases without a fold.
    """
    if not any("fold" in case for case in cases):
        return _external_section(cases, section)
    without = [str(case.get("image")) for case in cases if "fold" not in case]
    if without:
        raise ValueError(
            f"{len(without)} of {len(cases)} cases have no fold, first {without[0]}. Give each one a fold."
        )
    count = num_folds or 1 + max((int(case["fold"]) for case in cases), default=0)
    if section not in ("training", "validation", "test"):
        raise ValueError(f"section is {section!r}, expected training, validation or test. Correct it in the config.")
    if not 0 <= fold < count:
        raise ValueError(f"fold is {fold}, expected 0 to {count - 1} (the data have {count} folds). Set --fold.")
    test, validation = fold, (fold + 1) % count
    wanted = {"test": {test}, "validation": {validation}, "training": set(range(count)) - {test, validation}}[section]
    chosen = [case for case in cases if case["fold"] in wanted]
    if not chosen:
        raise ValueError(
            f"no case in the {section} section of fold {fold} ({len(cases)} cases in {count} folds). "
            "Make the datalist with at least 3 folds and at least as many patients."
        )
    return chosen


def _external_section(cases: Sequence[Case], section: str) -> list[Case]:
    if section != "test":
        raise ValueError(
            f"these {len(cases)} cases have no folds: they are an external test set, without a {section} section. To "
            "train on them make folds (scripts/prepare_data.py with --folds 10). To test a trained model on them, run "
            "configs/evaluate.json with --external_dir, and with the data of the training as --dataset_dir."
        )
    return list(cases)


def evaluation_cases(
    cases: Sequence[Case],
    fold: int,
    dataset_dir: str | Path,
    external_dir: str | Path | None = None,
    section: str = "test",
) -> list[Case]:
    """The cases on which a model is evaluated: a section of its data that it was not trained on, or an external set.

    Args:
        cases: of the data set that the model was trained on.
        fold: k, as in ``section_cases``.
        dataset_dir: folder of those cases.
        external_dir: folder of a data set that took no part in the training; its folds, if any, do not matter.
        section: ``test`` or ``validation``, where there is no external set.

    Raises:
        ValueError: as in ``section_cases``, or for the training section.
        SystemExit: with code 1, after a table of all problems: the external data are bad, or share patients or images
            with the others, see ``bundle.overlap``.
    """
    if external_dir is None:
        if section == "training":
            raise ValueError("section is training: a model is not evaluated on what it was trained on. Use test.")
        return section_cases(cases, fold, section)
    external = checked_cases(external_dir)
    folders = [Path(folder).expanduser().resolve() for folder in (dataset_dir, external_dir)]
    _refuse_errors(lambda: overlap_problems(folders))
    return external
