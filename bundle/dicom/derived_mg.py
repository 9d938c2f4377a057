"""A virtual DES as Digital Mammography X-Ray Image, For Presentation."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from bundle.dicom.derived import carried, coded, copy_present
from bundle.dicom.header import first_item, floats, items, text
from bundle.dicom.identity import VIEW_CODES, Side, view_of
from bundle.memory_order import in_rows

__all__ = ["mammogram_of", "missing_for_mammogram"]

BITS = 12
_TOP = 2**BITS - 1
_BREAST = Code("76752008", "SCT", "Breast")
#: The standard's views (CID 4014) by the abbreviations of ViewPosition, and one that it names no more.
_VIEWS: MappingProxyType[str, Code] = MappingProxyType(
    {"XCC": Code("399265009", "SCT", "exaggerated cranio-caudal")}
    | {VIEW_CODES[code.value]: code for code in codes.CID4014.concepts.values() if code.value in VIEW_CODES}
)
#: Patient, study and frame of reference: whose image this is does not change.
_CARRIED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyInstanceUID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
    "FrameOfReferenceUID",
)
#: Must be there, if only empty (type 2).
_CARRIED_OR_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "InstanceNumber",
    "BreastImplantPresent",
    "DetectorType",
)
_ALLOWED = MappingProxyType(
    {
        "PatientSex": {"M", "F", "O"},
        "BreastImplantPresent": {"YES", "NO"},
        "DetectorType": {"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"},
    }
)
"""Attributes with few values: what else a source holds there is not carried on."""
#: How the breast lay when the source was made: true of every picture on its grid.
_GEOMETRY = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "ImagerPixelSpacing",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "PixelSpacingCalibrationDescription",
    "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "PositionerPrimaryAngle",
    "PositionerSecondaryAngle",
    "CompressionForce",
    "BodyPartThickness",
    "PartialView",
    "PartialViewDescription",
    "PartialViewCodeSequence",
)


def missing_for_mammogram(source: Dataset) -> str | None:
    """What a mammography object needs and the source does not tell; None if there is all of it."""
    if len([spacing for spacing in floats(source, "ImagerPixelSpacing") if spacing > 0]) != 2:
        return "ImagerPixelSpacing"
    if view_of(source) not in _VIEWS:
        return "a view of the standard (ViewPosition)"
    return None


def mammogram_of(
    pixels: NDArray[np.float32], source: Dataset, laterality: Side, orientation: tuple[str, str]
) -> Dataset:
    """A mammography object without UIDs and without what all virtual DES objects share.

    Args:
        pixels: (H, W) in [0, 1].
        source: header of the low-energy image; see ``missing_for_mammogram``.
        laterality: ``L`` or ``R``.
        orientation: where the rows and where the columns lead.

    References:
        DICOM PS3.3 A.27 (IOD), C.8.11.1 to C.8.11.7 (DX and mammography modules).
    """
    made = Dataset()
    made.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    copy_present(_CARRIED, source, made)
    for keyword in _CARRIED_OR_EMPTY:
        setattr(made, keyword, _or_empty(source, keyword))
    if "FrameOfReferenceUID" in made:
        made.PositionReferenceIndicator = ""
    copy_present(_GEOMETRY, source, made)
    made.Modality, made.PresentationIntentType = "MG", "FOR PRESENTATION"
    _position(made, source, laterality, orientation)
    _pixels(made, pixels)
    return made


def _or_empty(source: Dataset, keyword: str) -> Any:
    allowed = _ALLOWED.get(keyword)
    if allowed is not None and text(source, keyword) not in allowed:
        return None
    return carried(source, keyword)


def _position(made: Dataset, source: Dataset, laterality: Side, orientation: tuple[str, str]) -> None:
    view = view_of(source) or ""
    made.BodyPartExamined, made.OrganExposed = "BREAST", "BREAST"
    made.ImageLaterality, made.ViewPosition = laterality, view
    made.PatientOrientation = list(orientation)
    made.AnatomicRegionSequence = [coded(_BREAST)]
    stated = text(source, "PositionerType")
    made.PositionerType = stated if stated in ("MAMMOGRAPHIC", "NONE") else "MAMMOGRAPHIC"
    code = coded(_VIEWS[view])
    code.ViewModifierCodeSequence = _modifiers(source)
    made.ViewCodeSequence = [code]
    made.AcquisitionContextSequence = []


def _modifiers(source: Dataset) -> list[Dataset]:
    """The codes that make the view a special one, such as magnification."""
    view = first_item(source, "ViewCodeSequence")
    holders = (source,) if view is None else (source, view)
    needed = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return [
        coded(Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning))
        for holder in holders
        for item in items(holder, "ViewModifierCodeSequence")
        if all(text(item, keyword) for keyword in needed)
    ]


def _pixels(made: Dataset, pixels: NDArray[np.float32]) -> None:
    stored = np.rint(pixels * _TOP).astype("<u2")
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns = stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, BITS, BITS - 1
    # Less radiation reaches the detector behind iodine, and iodine is bright: the sign is -1.
    made.PixelIntensityRelationship, made.PixelIntensityRelationshipSign = "LOG", -1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "US"
    made.PresentationLUTShape = "IDENTITY"
    made.WindowCenter, made.WindowWidth = 2 ** (BITS - 1), 2**BITS
    made.PixelData = in_rows(stored).tobytes()
    made["PixelData"].VR = "OW"
