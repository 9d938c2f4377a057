"""Whether data sets share patients or images, so that a test on one would not be independent of training on another."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bundle.files import file_at
from bundle.image_facts import ImageFacts, read_facts
from bundle.preflight import FileFacts, case_name
from bundle.problems import Problem

__all__ = ["overlap_problems"]

_IMAGE_KEYS = ("image", "label")
_WHO = ("patient_id", "laterality", "view")
_PSEUDONYM = re.compile(r"P-[A-Z2-7]{10}")
"""How `scripts.prepare.pseudonyms` names a patient: 50 secret bits, so that two equal ones are one person."""
_SOURCES = "cases.csv"
"""Written by prepare_data.py beside the datalist, with digests of the pixels from which each case was made."""
_LEAVE_OUT = "Leave the patient out of one of them: a test would see images of the training"


def overlap_problems(
    datalists: Sequence[str | Path], progress: bool = True, known: FileFacts | None = None
) -> list[Problem]:
    """What each two of these data sets share.

    The same decoded pixels are an error, whatever the files are called and whether they are low-energy or subtracted
    images; so is the same source image, where both folders have the ``cases.csv`` of prepare_data.py. Without it an
    image that was resized or converted between the two is not recognised. Of patients only the identifier is known:
    the same pseudonym is an error, any other identifier is one where both data sets have the same ``name``, and a
    warning where the names differ, since archives that have nothing to do with each other both count from P1.

    Args:
        datalists: dataset folders or their ``datalist.json``; one that cannot be read shares nothing.
        progress: show a progress bar on a terminal.
        known: facts of files read before; those read now are added.
    """
    sets = [_read(Path(path)) for path in datalists]
    facts = {} if known is None else known
    for one in sets:
        facts |= read_facts([path for path in one.images() if path not in facts], progress, one.file.parent)
    return [row for first, second in combinations(sets, 2) for row in _shared(first, second, facts)]


@dataclass(frozen=True)
class _DataSet:
    """A datalist as far as it can be understood; its own check says what is wrong with the rest."""

    file: Path
    name: str
    cases: Mapping[str, Mapping[str, Any]]

    @property
    def title(self) -> str:
        return str(self.file.parent)

    def image(self, case: Mapping[str, Any], key: str) -> Path | None:
        path = case.get(key)
        return file_at(self.file.parent / path) if isinstance(path, str) and path.strip() else None

    def images(self) -> Iterator[Path]:
        for case in self.cases.values():
            yield from (path for key in _IMAGE_KEYS if (path := self.image(case, key)))

    def patients(self) -> dict[str, None]:
        """Patients in the order of the cases."""
        return dict.fromkeys(str(case["patient_id"]) for case in self.cases.values() if case.get("patient_id"))


def _read(path: Path) -> _DataSet:
    file = path / "datalist.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    listed = content.get("cases")
    cases = enumerate(listed if isinstance(listed, list) else ())
    return _DataSet(
        file, str(content.get("name")), {case_name(i, one): one for i, one in cases if isinstance(one, dict)}
    )


def _shared(first: _DataSet, second: _DataSet, facts: FileFacts) -> Iterator[Problem]:
    if first.file.resolve() == second.file.resolve():
        problem, remedy = f"the same data set as {first.title}", "Give the folder of another data set"
        yield Problem("ERROR", "-", str(second.file), problem, remedy)
    else:
        yield from _patients(first, second)
        yield from _images(first, second, facts)


def _patients(first: _DataSet, second: _DataSet) -> Iterator[Problem]:
    same_source = first.name == second.name
    others = first.patients()
    for patient in second.patients():
        if patient not in others:
            continue
        who = f"patient {patient}"
        if _PSEUDONYM.fullmatch(patient):
            yield Problem("ERROR", who, str(second.file), f"{who} is also in {first.title}", _LEAVE_OUT)
        elif same_source:
            remedy = f"Both are called {first.name!r}: keep the patient in one, or rename one"
            yield Problem("ERROR", who, str(second.file), f"{who} is also in {first.title}", remedy)
        else:
            problem = f"a patient of the same identifier is in {first.title}"
            remedy = f"Make sure that {first.name!r} and {second.name!r} are different people"
            yield Problem("WARNING", who, str(second.file), problem, remedy)


@dataclass(frozen=True)
class _Image:
    """An image of a case, by its pixels; ``who`` is patient, laterality and view."""

    case: str
    who: tuple[str, ...]
    key: str
    digest: str


def _images(first: _DataSet, second: _DataSet, facts: FileFacts) -> Iterator[Problem]:
    """One row for every case of the second data set that has an image of the first."""
    told = set()
    for image, other in _equal(_pixels(first, facts), _pixels(second, facts)):
        told.add(image.who)
        problem = f"{image.key}: the same pixels as the {other.key} of {other.case} in {first.title}"
        yield Problem("ERROR", image.case, str(second.file), problem, _LEAVE_OUT)
    for image, other in _equal(_sources(first), _sources(second)):
        if image.who not in told:
            problem = f"{image.key}: made from the same image as the {other.key} of {other.case} in {first.title}"
            yield Problem("ERROR", image.case, str(second.file), problem, _LEAVE_OUT)


def _equal(first: Iterable[_Image], second: Iterable[_Image]) -> Iterator[tuple[_Image, _Image]]:
    """The first image of each case of the second data set that the first has too, and that one."""
    known = {image.digest: image for image in first}
    told = set()
    for image in second:
        if image.digest in known and image.case not in told:
            told.add(image.case)
            yield image, known[image.digest]


def _pixels(data: _DataSet, facts: FileFacts) -> Iterator[_Image]:
    for name, case in data.cases.items():
        for key in _IMAGE_KEYS:
            found = facts.get(path) if (path := data.image(case, key)) else None
            if isinstance(found, ImageFacts) and not found.constant:
                yield _Image(name, _who(case), key, found.digest)


def _sources(data: _DataSet) -> Iterator[_Image]:
    """The images from which the cases were made; a row of a case that the datalist does not hold is passed over."""
    listed = {_who(case) for case in data.cases.values()}
    try:
        with (data.file.parent / _SOURCES).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error):
        return
    for row in rows:
        for key in _IMAGE_KEYS:
            if _who(row) in listed and (digest := row.get(f"{key}_digest")):
                yield _Image(row.get("name") or " ".join(_who(row)), _who(row), key, digest)


def _who(case: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(case.get(key)) for key in _WHO)
