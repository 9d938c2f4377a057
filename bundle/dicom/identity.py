"""Which breast an image shows, in which view, and which way round: from the attributes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Literal

from pydicom import Dataset

from bundle.dicom.header import first_item, items, number, text, values

__all__ = [
    "VIEW_CODES",
    "Side",
    "directions_of",
    "is_partial",
    "laterality_of",
    "names_feet_or_head",
    "orientation_of",
    "shows_both",
    "view_modifiers",
    "view_of",
]

Side = Literal["L", "R"]
_SIDES: MappingProxyType[str, Side] = MappingProxyType({"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"})
_OTHER: MappingProxyType[Side, Side] = MappingProxyType({"L": "R", "R": "L"})
_BOTH = frozenset({"B", "BILATERAL", "BOTH"})
#: Anatomic region or its modifier, in SNOMED CT and as SRT code: left (breast), right (breast).
_LEFT_CODES, _RIGHT_CODES = ("80248007", "T-04030", "7771000", "G-A101"), ("73056007", "T-04020", "24028007", "G-A100")
_SIDE_CODES: MappingProxyType[str, Side] = MappingProxyType(
    {**dict.fromkeys(_LEFT_CODES, "L"), **dict.fromkeys(_RIGHT_CODES, "R")}
)
#: Views of CID 4014 (SNOMED CT, SRT and the older private SRT codes), by the abbreviations of ViewPosition.
VIEW_CODES = MappingProxyType(
    dict.fromkeys(("399162004", "R-10242"), "CC")
    | dict.fromkeys(("399368009", "R-10226"), "MLO")
    | dict.fromkeys(("399260004", "R-10224"), "ML")
    | dict.fromkeys(("399352003", "R-10228"), "LM")
    | dict.fromkeys(("399099002", "R-10230"), "LMO")
    | dict.fromkeys(("399196006", "R-10244"), "FB")
    | dict.fromkeys(("399188001", "R-102D0"), "SIO")
    | dict.fromkeys(("441555000", "R-40AAA"), "ISO")
    | dict.fromkeys(("399265009", "R-102CF", "Y-X1770"), "XCC")
    | dict.fromkeys(("399192008", "R-1024A", "Y-X1771"), "XCCL")
    | dict.fromkeys(("399101009", "R-1024B", "Y-X1772"), "XCCM")
)
_VIEW_WORDS = MappingProxyType(
    {"CRANIOCAUDAL": "CC", "MEDIOLATERALOBLIQUE": "MLO", "MEDIOLATERAL": "ML", "LATEROMEDIAL": "LM"}
    | {"LATEROMEDIALOBLIQUE": "LMO", "CAUDOCRANIAL": "FB", "MEDIALLATERALOBLIQUE": "MLO", "MEDIALLATERAL": "ML"}
)
_VIEWS = frozenset(VIEW_CODES.values())
#: Modifiers of CID 4015.
_MODIFIER_CODES = MappingProxyType(
    dict.fromkeys(("399163009", "R-102D6"), "magnification")
    | dict.fromkeys(("399055006", "R-102D7"), "spot compression")
    | dict.fromkeys(("399209000", "R-102D5"), "implant displaced")
    | dict.fromkeys(("399110001", "R-102C2"), "tangential")
    | dict.fromkeys(("399197002", "R-102D3"), "rolled lateral")
    | dict.fromkeys(("399226006", "R-102D4"), "rolled medial")
    | dict.fromkeys(("414493004", "R-102CA"), "rolled inferior")
    | dict.fromkeys(("415670009", "R-102C9"), "rolled superior")
    | dict.fromkeys(("399161006", "R-102D2"), "cleavage")
    | dict.fromkeys(("399011000", "R-102D1"), "axillary tail")
    | dict.fromkeys(("442580003", "R-40AB2"), "axillary tissue")
    | dict.fromkeys(("441752004", "P2-00161"), "anterior compression")
    | dict.fromkeys(("442581004", "R-40AB3"), "nipple in profile")
    | dict.fromkeys(("442593008", "R-40ABE"), "infra-mammary fold")
)
#: Where a technician or a machine writes "L CC" or "R-MLO".
_DESCRIPTIONS = (
    "SeriesDescription",
    "AcquisitionProtocolName",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
)
_SIDE_AND_VIEW = re.compile(
    r"(?<![A-Z])(?P<side>L(?:EFT)?|R(?:IGHT)?)[ _^/-]{0,3}(?P<view>CC|MLO|ML|LM|LMO|XCCL|XCCM|XCC)(?![A-Z])"
)
#: Directions of PatientOrientation: anterior, posterior, left, right, head, feet; three letters at most.
_DIRECTION = re.compile(r"[APLRHF]{1,3}")
#: Magnification of a breast that lies on the detector: below 1.3; magnification views have 1.5 and more.
_CONTACT = 1.3


def laterality_of(header: Dataset) -> Side | None:
    """The breast shown: ``L``, ``R``, or None where no attribute says so (also for both breasts in one image).

    ImageLaterality, Laterality, FrameLaterality, the coded anatomic region, PatientOrientation, and words such as
    "L CC" in a description, in this order.
    """
    if (stated := _stated_laterality(header)) is not None:
        return _SIDES.get(stated)
    return _coded_laterality(header) or _oriented_laterality(header) or _described(header)[0]


def shows_both(header: Dataset) -> bool:
    """Whether an attribute says that both breasts are in one image."""
    return _stated_laterality(header) in _BOTH


def _stated_laterality(header: Dataset) -> str | None:
    """The first of the attributes that names one breast or both."""
    stated = (text(header, "ImageLaterality"), text(header, "Laterality"), _frame_laterality(header))
    return next((value for value in stated if value in _SIDES or value in _BOTH), None)


def _frame_laterality(header: Dataset) -> str:
    for groups in (first_item(header, "SharedFunctionalGroupsSequence"), header):
        anatomy = first_item(groups, "FrameAnatomySequence") if groups is not None else None
        if anatomy is not None:
            return text(anatomy, "FrameLaterality")
    return text(header, "FrameLaterality")


def _coded_laterality(header: Dataset) -> Side | None:
    for region in items(header, "AnatomicRegionSequence"):
        for code in (region, *items(region, "AnatomicRegionModifierSequence")):
            if (side := _SIDE_CODES.get(text(code, "CodeValue"))) is not None:
                return side
    return None


def directions_of(header: Dataset) -> tuple[str, str]:
    """PatientOrientation: where the rows and where the columns lead; two empty texts where it holds anything else."""
    found = [str(value).strip().upper() for value in values(header, "PatientOrientation")]
    if len(found) != 2 or not all(_DIRECTION.fullmatch(one) for one in found):
        return "", ""
    return found[0], found[1]


def _oriented_laterality(header: Dataset) -> Side | None:
    """The breast that PatientOrientation implies.

    The lateral side is on top, and the outer side of the left breast is the patient's left: columns that lead to the
    patient's right and downwards (or to the right alone, in a CC view) show a left breast.
    """
    row, column = directions_of(header)
    by_row: Side | None = {"A": "L", "P": "R"}.get(row[:1])  # type: ignore[assignment]
    inner: Side | None = _SIDES.get(next((letter for letter in column if letter in "LR"), ""))
    if inner is None:
        return by_row
    if "F" in column or "H" in column:
        return _OTHER[inner] if "F" in column else inner
    return by_row if by_row == _OTHER[inner] else None


def _described(header: Dataset) -> tuple[Side | None, str | None]:
    for keyword in _DESCRIPTIONS:
        if (match := _SIDE_AND_VIEW.search(text(header, keyword))) is not None:
            return _SIDES[match["side"]], match["view"]
    return None, None


def _view(name: str) -> str | None:
    """``CC`` from "CC", "cc ", "Cranio-Caudal", "LCC", "R MLO"; other short names as they are."""
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    if plain[:1] in "LR" and plain[1:] in _VIEWS:
        plain = plain if plain in _VIEWS else plain[1:]
    return _VIEW_WORDS.get(plain, plain) or None


def view_of(header: Dataset) -> str | None:
    """The view in the abbreviations of ViewPosition: ``CC``, ``MLO``, ``ML``, ``LM``, ``XCCL`` or another.

    ViewPosition, then ViewCodeSequence, then a view that was written into PatientOrientation, then words such as
    "L CC" in a description; None where none of them says so.
    """
    stated = _view(text(header, "ViewPosition"))
    if stated is not None:
        return stated
    for code in items(header, "ViewCodeSequence"):
        if (view := VIEW_CODES.get(text(code, "CodeValue")) or _view_meant(code)) is not None:
            return view
    misplaced = _view(text(header, "PatientOrientation"))
    return misplaced if misplaced in _VIEWS else _described(header)[1]


def _view_meant(code: Dataset) -> str | None:
    view = _view(text(code, "CodeMeaning"))
    return view if view in _VIEWS else None


def view_modifiers(header: Dataset) -> tuple[str, ...]:
    """What makes the view a special one, such as ``magnification`` or ``spot compression``."""
    return tuple(sorted(set(_modifiers(header))))


def _modifiers(header: Dataset) -> Iterator[str]:
    for holder in (header, *items(header, "ViewCodeSequence")):
        for code in items(holder, "ViewModifierCodeSequence"):
            known = _MODIFIER_CODES.get(text(code, "CodeValue"))
            yield known or text(code, "CodeMeaning").lower() or text(code, "CodeValue")


def is_partial(header: Dataset) -> bool:
    """Whether the image shows a part of the breast, whose outline does not tell where the chest wall is."""
    factor = number(header, "EstimatedRadiographicMagnificationFactor") or 1.0
    return bool(view_modifiers(header)) or factor > _CONTACT or text(header, "PartialView") == "YES"


def names_feet_or_head(header: Dataset) -> bool:
    """Whether PatientOrientation says by itself which way up the image is."""
    return bool(set(directions_of(header)[1]) & {"F", "H"})


def orientation_of(header: Dataset) -> tuple[Literal["left", "right"] | None, bool | None]:
    """The edge at which the chest wall lies, and whether the image is upside down; None for what is not said.

    PatientOrientation names where the rows lead: to the anterior (chest wall at the left edge) or the posterior; and
    where the columns lead: to the feet or, in a CC view, to the inner side, in an upright image.
    """
    row, column = directions_of(header)
    wall: Literal["left", "right"] | None = None
    if ("A" in row) != ("P" in row):
        wall = "left" if "A" in row else "right"
    if "F" in column or "H" in column:
        return wall, "H" in column
    laterality = laterality_of(header)
    letters = [letter for letter in column if letter in "LR"]
    if laterality is None or len(letters) != 1:
        return wall, None
    return wall, letters[0] == laterality
