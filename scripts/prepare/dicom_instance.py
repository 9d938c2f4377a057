"""What is kept of one DICOM object: its kind, what pairing needs, and what may be told of a case."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset

from bundle.dicom import Kind, kind_of, laterality_of, shows_both, view_modifiers, view_of
from bundle.dicom.header import items, number, text, values
from scripts.prepare.dicom_exposure import NO_DAY, Exposure

__all__ = ["Instance", "instance_of", "plain"]

#: A word of Manufacturer -> the vendor.
_VENDORS = {
    "ge": "GE",
    "hologic": "Hologic",
    "lorad": "Hologic",
    "siemens": "Siemens",
    "philips": "Philips",
    "fuji": "Fujifilm",
    "fujifilm": "Fujifilm",
    "giotto": "IMS Giotto",
    "ims": "IMS Giotto",
    "planmed": "Planmed",
    "metaltronica": "Metaltronica",
    "agfa": "Agfa",
    "carestream": "Carestream",
    "kodak": "Carestream",
}
_MOMENT = re.compile(r"(\d{4})[.]?(\d\d)[.]?(\d\d)\s*(\d\d):?(\d\d):?(\d\d)?(?:\.(\d{1,6}))?")
_OLDEST = 90
"""Ages of 90 and above are given as 90: so few people are older that it could tell who they are."""
_REFERENCE_SEQUENCES = ("SourceImageSequence", "ReferencedImageSequence", "ReferencedInstanceSequence")


@dataclass(frozen=True)
class Instance:
    """One DICOM object, by its header.

    Attributes:
        path: the file.
        size: its bytes.
        kind: what it is, and ``reason`` why.
        doubtful: it may be one of a pair, but the header does not say which.
        whole: its header goes on as far as the size of the image.
        both: it shows both breasts.
        patient: PatientID, ``issuer`` who gave it, ``name`` and ``birth`` date; empty where missing.
        study: StudyInstanceUID; empty where missing.
        exposure: what pairing needs; of a segmentation, ``references`` are the images it was drawn on.
        taken: for sorting: acquisition, else content, else study date and time.
        segments: labels of a segmentation's segments, by number.
        info: what may be known about a case: nothing that tells who the patient is.
        copies: further files of the object, to be read where this one is damaged.
    """

    path: Path
    size: int
    kind: Kind
    reason: str
    doubtful: bool
    whole: bool
    both: bool
    patient: str
    issuer: str
    name: str
    birth: str
    study: str
    exposure: Exposure
    taken: datetime
    segments: dict[int, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    copies: tuple[Path, ...] = ()

    @property
    def uid(self) -> str:
        """SOPInstanceUID."""
        return self.exposure.uid


def instance_of(path: Path, header: Dataset) -> Instance | None:
    """Describe an object by its header; None for one without SOPInstanceUID, which is not whole."""
    meta = getattr(header, "file_meta", Dataset())
    uid = plain(header, "SOPInstanceUID") or plain(meta, "MediaStorageSOPInstanceUID")
    if not uid:
        return None
    kind, reason = kind_of(header)
    study, patient = plain(header, "StudyInstanceUID"), plain(header, "PatientID")
    doubtful = kind is Kind.OTHER and text(header, "Modality") in ("MG", "") and not _virtual(header)
    exposure = Exposure(
        uid,
        study,
        laterality_of(header),
        _short(view_of(header)),
        _moment(header, "Acquisition"),
        _moment(header, "Content"),
        _whole(header, "AcquisitionNumber"),
        _whole(header, "SeriesNumber"),
        frozenset(str(one) for one in values(header, "IrradiationEventUID")),
        _segmented(header) if kind is Kind.SEGMENTATION else _references(header),
    )
    taken = exposure.acquired or exposure.created or _moment(header, "Study") or _day(header) or NO_DAY
    issuer, name, birth = (plain(header, one) for one in ("IssuerOfPatientID", "PatientName", "PatientBirthDate"))
    segments = _segments(header) if kind is Kind.SEGMENTATION else {}
    whole = "Rows" in header and "Columns" in header
    what = path, path.stat().st_size, kind, reason, doubtful, whole, shows_both(header)
    return Instance(*what, patient, issuer, name, birth, study, exposure, taken, segments, _info(header))


def plain(header: Dataset, keyword: str) -> str:
    """The attribute as text, without surrounding blanks; several values are joined with a backslash."""
    return "\\".join(str(value).strip(" \0") for value in values(header, keyword)).strip()


def _whole(header: Dataset, keyword: str) -> int | None:
    value = number(header, keyword)
    return None if value is None else int(value)


def _short(view: str | None) -> str | None:
    """A view that can be part of a file name: a longer one would be a comment, which may name anybody."""
    return view if view is None or re.fullmatch(r"[A-Z0-9]{1,8}", view) else "OTHER"


def _moment(header: Dataset, event: str) -> datetime | None:
    """Date and time of ``Acquisition``, ``Content`` or ``Study``; None where the time of day is not known.

    Where the date was removed it is ``NO_DAY``: within a study the times still tell which images belong together.
    """
    joined = plain(header, f"{event}DateTime")
    separate = f"{plain(header, f'{event}Date') or plain(header, 'StudyDate')} {plain(header, f'{event}Time')}"
    for found in (joined, separate, f"{NO_DAY:%Y%m%d} {plain(header, f'{event}Time')}"):
        match = _MOMENT.match(found)
        if match is None:
            continue
        digits = "".join(part or "00" for part in match.groups()[:6]) + (match[7] or "0")
        try:
            return datetime.strptime(digits, "%Y%m%d%H%M%S%f")  # noqa: DTZ007
        except ValueError:
            continue
    return None


def _day(header: Dataset) -> datetime | None:
    try:
        return datetime.strptime(plain(header, "StudyDate").replace(".", ""), "%Y%m%d")  # noqa: DTZ007
    except ValueError:
        return None


def _virtual(header: Dataset) -> bool:
    return "VIRTUAL_DES" in text(header, "ImageType")


def _references(header: Dataset) -> frozenset[str]:
    found = {
        plain(item, "ReferencedSOPInstanceUID") for keyword in _REFERENCE_SEQUENCES for item in items(header, keyword)
    }
    return frozenset(found - {""})


def _segmented(header: Dataset) -> frozenset[str]:
    """The images that a segmentation names anywhere as its source."""
    found = set(_references(header))
    for series in items(header, "ReferencedSeriesSequence"):
        found |= _references(series)
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in items(header, keyword):
            for derivation in items(group, "DerivationImageSequence"):
                found |= _references(derivation)
    return frozenset(found)


def _segments(header: Dataset) -> dict[int, str]:
    """Labels and descriptions; number 0 is the background of a label map."""
    labels = {
        _whole(item, "SegmentNumber") or 0: f"{plain(item, 'SegmentLabel')} {plain(item, 'SegmentDescription')}"
        for item in items(header, "SegmentSequence")
    }
    return {number: label for number, label in labels.items() if number > 0}


def _info(header: Dataset) -> dict[str, Any]:
    """What is worth keeping of a case; free text only where a machine writes it."""
    thickness = number(header, "BodyPartThickness")
    found = {
        "vendor": _vendor(plain(header, "Manufacturer")),
        "model": plain(header, "ManufacturerModelName")[:40],
        "kvp": number(header, "KVP"),
        "age": _age(plain(header, "PatientAge")),
        "thickness_mm": thickness or None,
        "modifiers": ", ".join(view_modifiers(header)),
    }
    return {key: value for key, value in found.items() if value not in (None, "")}


def _vendor(manufacturer: str) -> str:
    words = re.findall(r"[a-z]+", manufacturer.casefold().replace(".", ""))
    return next((_VENDORS[word] for word in words if word in _VENDORS), "other" if words else "")


def _age(stated: str) -> int | None:
    """Age in years from ``045Y``; months, weeks and days are less than the youngest patient."""
    match = re.fullmatch(r"(\d{1,3})Y?", stated.upper())
    return None if match is None else min(int(match[1]), _OLDEST)
