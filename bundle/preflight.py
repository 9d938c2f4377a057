"""Check a datalist and every file it names, and report all problems at once."""

from __future__ import annotations

import difflib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundle.files import file_at
from bundle.image_facts import ImageFacts, read_facts
from bundle.problems import Level, Problem, format_table
from bundle.reader import ImageFileError

__all__ = ["FileFacts", "Problem", "case_name", "check_cases", "check_datalist", "format_table"]

MIN_SIDE = 8
"""Smallest side of an image, in pixels."""
MIN_FOLDS = 3
"""One fold each for test, validation and training."""
WRONG_SIDE = 0.25
"""Centroid (see ``ImageFacts``) from which the breast clearly lies at the other edge than its laterality says."""
_PREPARE = "Make it with scripts/prepare_data.py (see docs/how-to-prepare.md)"
_IMAGE_KEYS, _MASK_KEYS = ("image", "label"), ("mask", "label_mask")
_FILE_KEYS = _IMAGE_KEYS + _MASK_KEYS
_NO_FOLDS = "; or leave out `num_folds` and every `fold`: then all cases are an external test set"

FileFacts = dict[Path, ImageFacts | ImageFileError]
"""What is known of each file, or the error that kept it from being read."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_path(value: object) -> bool:
    """Whether a file can be called so: without zero byte, without half a surrogate pair."""
    return _is_text(value) and re.search("[\0\ud800-\udfff]", str(value)) is None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_window(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    numbers = all(type(number) in (int, float) and abs(number) < 1e12 for number in value)  # False for NaN
    return numbers and value[1] > 0


@dataclass(frozen=True)
class _Field:
    expected: str
    valid: Callable[[object], bool]
    required: bool = True
    otherwise: str = ""


_PATH = _Field("the path of a file", _is_path)
_WINDOW = _Field("[centre, width] with width > 0", _is_window, required=False)
_TOP_FIELDS = {
    "name": _Field("a text", _is_text),
    "synthetic": _Field("true or false", lambda value: isinstance(value, bool)),
    "num_folds": _Field(
        f"a whole number >= {MIN_FOLDS}",
        lambda value: _is_count(value) and int(str(value)) >= MIN_FOLDS,
        otherwise=_NO_FOLDS,
    ),
    "cases": _Field("a list with at least one case", lambda value: isinstance(value, list) and bool(value)),
    "description": _Field("a text", lambda value: isinstance(value, str), required=False),
    "allow_leak": _Field("true or false", lambda value: isinstance(value, bool), required=False),
}
_CASE_FIELDS = {
    "image": _PATH,
    "label": _PATH,
    "mask": replace(_PATH, required=False),
    "label_mask": replace(_PATH, required=False),
    "patient_id": _Field("a text", _is_text),
    "laterality": _Field('"L" or "R"', lambda value: value in ("L", "R")),
    "view": _Field("a text such as CC or MLO", _is_text),
    "fold": _Field("a whole number >= 0", _is_count, otherwise=_NO_FOLDS),
    "image_window": _WINDOW,
    "label_window": _WINDOW,
    "info": _Field("an object", lambda value: isinstance(value, dict), required=False),
}


def check_datalist(path: str | Path, progress: bool = True, known: FileFacts | None = None) -> list[Problem]:
    """Check a datalist and all files it names.

    Without ``num_folds`` and without any ``fold`` the cases are an external test set. With ``allow_leak: true`` a
    patient, or the same pixels, in two folds are warnings.

    Args:
        path: ``datalist.json`` or the folder that holds it. Relative paths in it count from that folder.
        progress: show a progress bar on a terminal.
        known: facts of files read before; those read now are added.

    Returns:
        All problems, in the order of the cases; empty when the data can be used as they are.
    """
    file = Path(path) / "datalist.json" if Path(path).is_dir() else Path(path)

    def broken(problem: str, remedy: str) -> list[Problem]:
        return [Problem("ERROR", "-", str(file), problem, remedy)]

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return broken("no such file", _PREPARE)
    except (OSError, ValueError, RecursionError) as error:
        return broken(f"not readable as JSON: {error}", f"Correct it by hand. {_PREPARE}")
    if not isinstance(content, dict):
        return broken(f"holds a {type(content).__name__}, expected an object with name, synthetic, ...", _PREPARE)
    num_folds, cases = content.get("num_folds"), content.get("cases")
    fields = dict(_TOP_FIELDS)
    if isinstance(cases, list) and cases and not _any_fold(cases):
        fields["num_folds"] = replace(fields["num_folds"], required=False)
    problems = list(_field_problems(content, fields, "-", "datalist.json"))  # prepare_data.py checks a draft of it
    if not isinstance(cases, list) or not cases:
        return problems
    folds = int(str(num_folds)) if _is_count(num_folds) else None
    return problems + check_cases(cases, file.parent, folds, progress, content.get("allow_leak") is True, known)


def _any_fold(cases: Sequence[Any]) -> bool:
    return any(isinstance(case, dict) and "fold" in case for case in cases)


def check_cases(
    cases: Sequence[Any],
    root: str | Path = ".",
    num_folds: int | None = None,
    progress: bool = True,
    allow_leak: bool = False,
    known: FileFacts | None = None,
) -> list[Problem]:
    """Check cases, their files, and what must hold between cases.

    Args:
        cases: entries of a datalist.
        root: folder from which relative paths count.
        num_folds: number of folds; None takes the largest fold plus one, or no folds where no case has one.
        progress: show a progress bar on a terminal.
        allow_leak: a patient, or the same pixels, in two folds are warnings, not errors.
        known: facts of files read before; those read now are added.
    """
    leak: Level = "WARNING" if allow_leak else "ERROR"
    with_folds = num_folds is not None or _any_fold(cases)
    fields = _CASE_FIELDS | {"fold": replace(_CASE_FIELDS["fold"], required=with_folds)}
    names = [case_name(index, case) for index, case in enumerate(cases)]
    usable = {name: case for name, case in zip(names, cases, strict=True) if isinstance(case, dict)}
    folders: dict[Path, Path] = {}
    files = {
        name: {key: file_at(Path(root) / case[key], folders) for key in _FILE_KEYS if _is_path(case.get(key))}
        for name, case in usable.items()
    }
    facts = {} if known is None else known
    unread = [path for paths in files.values() for path in paths.values() if path not in facts]
    facts |= read_facts(unread, progress, Path(root))
    problems: list[Problem] = []
    for name, case in zip(names, cases, strict=True):
        if name not in usable:
            found = f"is a {type(case).__name__}, expected an object"
            problems.append(Problem("ERROR", name, "datalist.json", found, "Correct the datalist"))
            continue
        problems += _field_problems(case, fields, name, "datalist.json")
        problems += _file_problems(case, name, files[name], facts)
    if with_folds:
        problems += _fold_problems(usable, num_folds)
        problems += _patient_problems(usable, leak)
    problems += _repeat_problems(usable, files, facts, leak)
    return problems


def case_name(index: int, case: object) -> str:
    """How the rows of the table call the case number ``index`` of a datalist."""
    fields = case if isinstance(case, dict) else {}
    return " ".join([f"#{index}", *(str(fields[key]) for key in ("patient_id", "laterality", "view") if key in fields)])


def _field_problems(values: Mapping[str, Any], fields: Mapping[str, _Field], case: str, file: str) -> Iterator[Problem]:
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            remedy = f"Did you mean `{close[0]}`?" if close else f"Known keys: {', '.join(fields)}"
            yield Problem("ERROR", case, file, f"unknown key `{key}`", remedy)
        elif not fields[key].valid(value):
            found = (
                json.dumps(value)
                if not isinstance(value, (dict, list)) or len(value) < 5
                else f"{type(value).__name__}"
            )
            problem = f"`{key}` is {found}, expected {fields[key].expected}"
            yield Problem("ERROR", case, file, problem, "Correct the datalist")
    for key, field in fields.items():
        if field.required and key not in values:
            yield Problem(
                "ERROR", case, file, f"key `{key}` is missing", f"Add `{key}`: {field.expected}{field.otherwise}"
            )


def _file_problems(
    case: Mapping[str, Any], name: str, paths: Mapping[str, Path], facts: Mapping[Path, ImageFacts | ImageFileError]
) -> Iterator[Problem]:
    known: dict[str, ImageFacts] = {}
    for key, path in paths.items():
        found = facts[path]
        if isinstance(found, ImageFileError):
            yield Problem("ERROR", name, case[key], f"{key}: {found.problem}", found.remedy)
        else:
            known[key] = found
            check = _image_problems if key in _IMAGE_KEYS else _mask_problems
            for level, problem, remedy in check(key, found):
                yield Problem(level, name, case[key], problem, remedy)
    for level, key, problem, remedy in (*_pair_problems(paths, known), *_window_problems(case, known)):
        yield Problem(level, name, case[key], problem, remedy)
    image, side = known.get("image"), {"L": -1, "R": 1}.get(str(case.get("laterality")), 0)
    if image is not None and image.centroid * side < -WRONG_SIDE:
        edge, laterality = ("right" if image.centroid > 0 else "left"), case["laterality"]
        problem = f"the breast lies at the {edge} edge, expected the other one for laterality {laterality}"
        yield Problem("WARNING", name, case["image"], problem, "Check the laterality, or mirror all images of the case")


def _image_problems(key: str, facts: ImageFacts) -> Iterator[tuple[Level, str, str]]:
    width, height = facts.shape
    if not facts.finite:
        yield "ERROR", f"{key}: holds NaN or infinite values", "Replace them (background: 0), or leave the case out"
    if min(facts.shape) < MIN_SIDE:
        yield "ERROR", f"{key}: {width}x{height} pixels, expected at least {MIN_SIDE} a side", "Leave the case out"
    elif facts.constant:
        yield "ERROR", f"{key}: every pixel is {facts.low:g}, an empty image", "Export it again, or leave the case out"


def _mask_problems(key: str, facts: ImageFacts) -> Iterator[tuple[Level, str, str]]:
    if not facts.finite:
        yield "ERROR", f"{key}: holds NaN or infinite values", "Write it as 0 (background) and 255 (lesion)"
    elif not facts.binary:
        problem = f"{key}: not binary (values from {facts.low:g} to {facts.high:g}, expected 0 and one other value)"
        yield "ERROR", problem, "Write it as 0 (background) and 255 (lesion), not as JPEG"
    elif facts.high == 0:
        yield "WARNING", f"{key}: empty, no lesion pixel", "Correct if there is no lesion: then leave the mask out"
    elif facts.constant:
        yield "WARNING", f"{key}: every pixel is lesion", "Draw the mask again, or leave it out"


def _pair_problems(paths: Mapping[str, Path], known: Mapping[str, ImageFacts]) -> Iterator[tuple[Level, str, str, str]]:
    whole = {key: facts for key, facts in known.items() if min(facts.shape) >= MIN_SIDE}  # the others have their row
    for key, partner in (("label", "image"), ("mask", "image"), ("label_mask", "label")):
        if key in whole and partner in whole and known[key].shape != known[partner].shape:
            sizes = [f"{name} {known[name].shape[0]}x{known[name].shape[1]}" for name in (partner, key)]
            yield "ERROR", key, f"different sizes: {', '.join(sizes)} pixels", "Bring both onto one grid"
    for key, partner in (("label", "image"), ("mask", "image"), ("mask", "label"), ("label_mask", "label")):
        if key in paths and paths[key] == paths.get(partner):
            yield "ERROR", key, f"the same file serves as {partner} and as {key}", f"Give the path of the {key}"
    image, label = known.get("image"), known.get("label")
    if image and label and image.digest == label.digest and not image.constant and paths["image"] != paths["label"]:
        yield "ERROR", "label", "image and label hold the same pixels", "Give the subtracted image as label"


def _window_problems(case: Mapping[str, Any], known: Mapping[str, ImageFacts]) -> Iterator[tuple[Level, str, str, str]]:
    for key in _IMAGE_KEYS:
        window: Any = case.get(f"{key}_window")
        if key not in known or not known[key].finite or known[key].constant:
            continue
        if window is None and key == "label":
            remedy = "Needed only by label_scaling `window`, which takes minmax for these cases: add label_window"
            yield "WARNING", key, "no label_window", remedy
        elif _is_window(window) and not (
            known[key].low < window[0] + window[1] / 2 and known[key].high > window[0] - window[1] / 2
        ):
            values = f"{known[key].low:g} to {known[key].high:g}"
            problem = f"{key}_window {window} leaves nothing of the pixel values {values}"
            yield "ERROR", key, problem, "Give the window in stored pixel values"


def _fold_problems(cases: Mapping[str, Mapping[str, Any]], num_folds: int | None) -> Iterator[Problem]:
    folds = {name: case["fold"] for name, case in cases.items() if _is_count(case.get("fold"))}
    count = num_folds or 1 + max(folds.values(), default=0)
    if num_folds is None and count < MIN_FOLDS:
        problem = f"{count} folds, expected at least {MIN_FOLDS}"
        yield Problem("ERROR", "-", "datalist.json", problem, "Make the datalist with more folds")
    for name, fold in folds.items():
        if fold >= count:
            problem, remedy = f"fold is {fold}, expected 0 to {count - 1}", "Correct fold or num_folds"
            yield Problem("ERROR", name, "datalist.json", problem, remedy)
    if count <= 1000:
        for fold in sorted(set(range(count)) - set(folds.values())):
            problem, remedy = f"fold {fold} of {count} has no case", "Use fewer folds, or add cases"
            yield Problem("ERROR", "-", "datalist.json", problem, remedy)


def _patient_problems(cases: Mapping[str, Mapping[str, Any]], leak: Level) -> Iterator[Problem]:
    by_patient: dict[str, set[int]] = defaultdict(set)
    for case in cases.values():
        if _is_count(case.get("fold")) and _is_text(case.get("patient_id")):
            by_patient[case["patient_id"]].add(case["fold"])
    for patient, used in by_patient.items():
        if len(used) > 1:
            who = "the patient" if leak == "WARNING" else f"patient {patient}"  # warnings of one text share a row
            problem = f"{who} is in folds {', '.join(map(str, sorted(used)))}"
            remedy = "Put all views of a patient into one fold: the test would see patients of the training"
            yield Problem(leak, f"patient {patient}", "datalist.json", problem, remedy)


def _repeat_problems(
    cases: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Path]],
    facts: Mapping[Path, ImageFacts | ImageFileError],
    leak: Level,
) -> Iterator[Problem]:
    """Files and pixels that several cases share; within one case ``_pair_problems`` looks."""
    for key in _FILE_KEYS:
        first_path: dict[Path, str] = {}
        first_pixels: dict[str, str] = {}
        for name, paths in files.items():
            if key not in paths:
                continue
            path, found = paths[key], facts[paths[key]]
            if path in first_path:
                problem, remedy = f"{key}: the file is also that of {first_path[path]}", "List each case once"
                yield Problem("ERROR", name, cases[name][key], problem, remedy)
                continue
            first_path[path] = name
            if key in _MASK_KEYS or isinstance(found, ImageFileError) or found.constant:
                continue
            other = first_pixels.setdefault(found.digest, name)
            if other != name:
                apart = cases[other].get("fold") != cases[name].get("fold")
                problem = f"{key}: the same pixels as {other}" + (", in another fold" if apart else "")
                yield Problem(leak if apart else "WARNING", name, cases[name][key], problem, "Leave one of them out")
