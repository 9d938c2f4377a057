"""Whether data sets share patients or images, so that a test on one would not be independent of training on another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bundle.image_facts import ImageFacts, read_facts
from bundle.preflight import FileFacts, case_name
from bundle.problems import Problem

__all__ = ["overlap_problems"]

_IMAGE_KEYS = ("image", "label")


def overlap_problems(
    datalists: Sequence[str | Path], progress: bool = True, known: FileFacts | None = None
) -> list[Problem]:
    """What each two of these data sets share.

    The same decoded pixels are an error, whatever the files are called and whether they are low-energy or subtracted
    images. Of patients only the identifier is known: the same one is an error where both data sets have the same
    ``name``, and a warning where the names differ, since archives that have nothing to do with each other both count
    their patients from P1. An image that was resized or converted between the two is not recognised.

    Args:
        datalists: dataset folders or their ``datalist.json``; one that cannot be read shares nothing.
        progress: show a progress bar on a terminal.
        known: facts of files read before; those read now are added.
    """
    sets = [_read(Path(path)) for path in datalists]
    facts = {} if known is None else known
    facts |= read_facts((path for one in sets for path in one.images() if path not in facts), progress)
    return [
        row
        for first, second in combinations(sets, 2)
        for row in (*_patients(first, second), *_pixels(first, second, facts))
    ]


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
        return (self.file.parent / path).resolve() if isinstance(path, str) and path.strip() else None

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
    except (OSError, ValueError):
        content = None
    content = content if isinstance(content, dict) else {}
    listed = content.get("cases")
    cases = enumerate(listed if isinstance(listed, list) else ())
    return _DataSet(
        file, str(content.get("name")), {case_name(i, one): one for i, one in cases if isinstance(one, dict)}
    )


def _patients(first: _DataSet, second: _DataSet) -> Iterator[Problem]:
    same_source = first.name == second.name
    others = first.patients()
    for patient in second.patients():
        if patient not in others:
            continue
        who = f"patient {patient}"
        if same_source:
            remedy = f"Both are called {first.name!r}: keep the patient in one, or rename one"
            yield Problem("ERROR", who, str(second.file), f"{who} is also in {first.title}", remedy)
        else:
            problem = f"a patient of the same identifier is in {first.title}"
            remedy = f"Make sure that {first.name!r} and {second.name!r} are different people"
            yield Problem("WARNING", who, str(second.file), problem, remedy)


def _pixels(first: _DataSet, second: _DataSet, facts: FileFacts) -> Iterator[Problem]:
    """One row for every case of the second data set that has an image of the first."""
    where = {digest: f"the {key} of {name}" for name, key, digest in _digests(first, facts)}
    told: set[str] = set()
    for name, key, digest in _digests(second, facts):
        if digest in where and name not in told:
            told.add(name)
            problem = f"{key}: the same pixels as {where[digest]} in {first.title}"
            remedy = "Leave the patient out of one of them: a test would see images of the training"
            yield Problem("ERROR", name, str(second.file), problem, remedy)


def _digests(data: _DataSet, facts: FileFacts) -> Iterator[tuple[str, str, str]]:
    for name, case in data.cases.items():
        for key in _IMAGE_KEYS:
            found = facts.get(path) if (path := data.image(case, key)) else None
            if isinstance(found, ImageFacts) and not found.constant:
                yield name, key, found.digest
