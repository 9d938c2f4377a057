"""A DICOM mammogram as source of a case's image, which says nothing of where it lies or whom it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pydicom
from pydicom import Dataset

from bundle.dicom import read_dicom
from bundle.dicom.header import values
from bundle.reader import ImageFileError
from scripts.prepare.quiet_dicom import quiet
from scripts.prepare.view import Pixels

__all__ = ["DicomSource", "nameless"]

_Result = TypeVar("_Result")
_UIDS_AND_NUMBERS = re.compile(r"\d+(?:\.\d+){3,}|\d{6,}")
_IDENTIFYING = frozenset({"PN", "UI", "DA", "DT", "TM", "LO", "SH", "LT", "ST", "AS", "AE"})
_SHORTEST = 3
_REMEDY = "The person who has the key can look at the file: copy it again, or leave it out"


@dataclass(frozen=True)
class DicomSource:
    """An image of an archive.

    Attributes:
        path: the file.
        report_name: how reports name it.
        laterality: the side it shows, where this is known from elsewhere.
    """

    path: Path
    report_name: str
    laterality: str | None = None

    def read(self) -> Pixels:
        """Decode it.

        Raises:
            ImageFileError: it cannot be used; the error names neither the path nor the patient.
        """
        with quiet():
            image = nameless(lambda: read_dicom(self.path), self.path, self.report_name)
        mirrored = image.mirrored != (self.laterality not in (None, image.laterality))
        return Pixels(image.values, image.window, image.pixel_mm, mirrored, image.upside_down)


def nameless(read: Callable[[], _Result], path: Path, report_name: str) -> _Result:
    """Call ``read``; whatever it raises becomes an ``ImageFileError`` without path, identifiers and dates."""
    try:
        return read()
    except ImageFileError as error:
        problem, remedy = _redacted(error.problem, path), error.remedy
    except Exception as error:  # the decoders raise whatever they like, and may quote anything
        problem, remedy = f"cannot be used ({type(error).__name__})", _REMEDY
    raise ImageFileError(report_name, problem, remedy)


def _redacted(words: str, path: Path) -> str:
    """The words without the path, and without any text, date or UID of the file's header."""
    secrets = {str(path), *path.parts, path.stem}
    try:
        secrets |= set(_texts(pydicom.dcmread(path, stop_before_pixels=True, force=True)))
    except Exception:  # a damaged header: what it holds is not known, so nothing that may quote it is kept
        words = words.partition(":")[0]
    for secret in sorted((one for one in secrets if len(one) >= _SHORTEST), key=len, reverse=True):
        words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", words)
    return _UIDS_AND_NUMBERS.sub("…", words)


def _texts(header: Dataset) -> Iterator[str]:
    for element in header:
        if element.VR in _IDENTIFYING and element.keyword:
            yield from (str(value) for value in values(header, element.keyword))
