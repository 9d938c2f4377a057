"""A DICOM mammogram as source of a case's image, which says nothing of where it lies or whom it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydicom import Dataset

from bundle.dicom import DicomImage, read_dicom
from bundle.dicom.header import values
from bundle.dicom.identity import directions_of
from bundle.dicom.reading import read_elements
from bundle.reader import ImageFileError
from scripts.prepare.quiet_dicom import quiet
from scripts.prepare.view import Pixels

__all__ = ["DicomSource", "nameless"]

_Result = TypeVar("_Result")
_UIDS_AND_NUMBERS = re.compile(r"\d+(?:\.\d+){3,}|\d{6,}")
_IDENTIFYING = frozenset({"PN", "UI", "DA", "DT", "TM", "LO", "SH", "LT", "ST", "AS", "AE"})
_SHORTEST = 3
_REMEDY = "The person who has the key can look at the file: copy it again, or leave it out"


class _Way(NamedTuple):
    """Which way round an image lies, as it was decided, and what tells whether another one lies like it."""

    mirrored: bool
    upside_down: bool
    shape: tuple[int, ...]
    directions: tuple[str, str]


_WAYS: dict[tuple[str, int, int], _Way] = {}
"""What was decided lately, by path, size and time: the image of a case is read just before its label."""
_KEPT_WAYS = 64


@dataclass(frozen=True)
class DicomSource:
    """An image of an archive.

    Attributes:
        path: the file.
        report_name: how reports name it.
        laterality: the side it shows, where this is known from elsewhere.
        copies: further files of the object, read where the first cannot be.
        partner: the LE image of a DES image. Both lie the same way round if they have one size and their
            PatientOrientation is the same, or neither has one: what the pixels tell is then taken from the LE alone.
    """

    path: Path
    report_name: str
    laterality: str | None = None
    copies: tuple[Path, ...] = ()
    partner: DicomSource | None = None

    def read(self) -> Pixels:
        """Decode it.

        Raises:
            ImageFileError: it cannot be used; the error names neither the path nor the patient.
        """
        image = self.decoded()
        mirrored = image.mirrored != (self.laterality not in (None, image.laterality))
        own = _Way(mirrored, image.upside_down, image.values.shape, directions_of(image.header))
        way = self._agreed(own)
        notes = image.notes + (() if way == own else ("turned as the low-energy image is",))
        self._keep(own)
        return Pixels(image.values, image.window, image.pixel_mm, way.mirrored, way.upside_down, notes)

    def decoded(self) -> DicomImage:
        """The image, of the first file that can be read.

        Raises:
            ImageFileError: none can be; the error is that of the first.
        """
        errors: list[ImageFileError] = []
        with quiet():
            for path in (self.path, *self.copies):
                image = self._attempted(path)
                if isinstance(image, DicomImage):
                    damaged = ("another copy of the file was read: the largest is damaged",) if errors else ()
                    return replace(image, notes=image.notes + damaged)
                errors.append(image)
        raise errors[0]

    def _attempted(self, path: Path) -> DicomImage | ImageFileError:
        try:
            return nameless(lambda: read_dicom(path), path, self.report_name)
        except ImageFileError as error:
            return error

    def _agreed(self, own: _Way) -> _Way:
        """The way of the partner, where both lie the same way round."""
        if self.partner is None:
            return own
        if (key := _state(self.partner.path)) not in _WAYS:
            with suppress(ImageFileError):  # it is reported where it is read for itself
                self.partner.read()
        way = _WAYS.get(key, own)
        return way if (way.shape, way.directions) == (own.shape, own.directions) else own

    def _keep(self, way: _Way) -> None:
        if len(_WAYS) >= _KEPT_WAYS:
            _WAYS.clear()
        _WAYS[_state(self.path)] = way


def _state(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns


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
        secrets |= set(_texts(read_elements(path, stop_before_pixels=True, force=True)))
    except Exception:  # a damaged header: what it holds is not known, so nothing that may quote it is kept
        words = words.partition(":")[0]
    for secret in sorted((one for one in secrets if len(one) >= _SHORTEST), key=len, reverse=True):
        words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", words)
    return _UIDS_AND_NUMBERS.sub("…", words)


def _texts(header: Dataset) -> Iterator[str]:
    for element in header:
        if element.VR in _IDENTIFYING and element.keyword:
            yield from (str(value) for value in values(header, element.keyword))
