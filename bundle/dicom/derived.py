"""What every virtual DES object says of itself, whatever its SOP class: synthetic, from what, and made by what."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import PersonName, validate_value

from bundle.dicom.header import text, values

__all__ = ["IMAGE_TYPE", "SOFTWARE", "Making", "carried", "coded", "copy_present", "describe"]

SOFTWARE = "cesm_virtual_contrast"
#: Value 6 holds the term: POST_CONTRAST or SUBTRACTION in their places would claim an injection and an exposure.
IMAGE_TYPE = ("DERIVED", "SECONDARY", "", "", "", "VIRTUAL_DES")
SERIES_DESCRIPTION = "AI VIRTUAL DES - SYNTHETIC - RESEARCH ONLY"
COMMENT = "Synthetic image made by a neural network from a low-energy mammogram: no contrast agent, not for diagnosis"
_TEXT_LIMIT = 1024  # of a short text (ST)
_LOSSY_METHODS = MappingProxyType(
    {
        "1.2.840.10008.1.2.4.50": "ISO_10918_1",
        "1.2.840.10008.1.2.4.51": "ISO_10918_1",
        "1.2.840.10008.1.2.4.81": "ISO_14495_1",
        "1.2.840.10008.1.2.4.91": "ISO_15444_1",
        "1.2.840.10008.1.2.4.203": "ISO_15444_15",
    }
)
_ACQUISITION_EQUIPMENT = (
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


@dataclass(frozen=True)
class Making:
    """How the objects of one run are made.

    Attributes:
        version: of the bundle.
        weights: SHA-256 of the weights file in hexadecimal digits.
        processing: what was done to the pixels, in words.
        made: when; None leaves it out and makes UIDs a function of the source and the weights.
        run: mixed into the UIDs: another run, other UIDs.
    """

    version: str
    weights: str
    processing: str
    made: datetime | None
    run: str

    def uid(self, *about: str) -> UID:
        """A UID from what it stands for, under the root of UUIDs (2.25), which needs no registration."""
        name = "\n".join((SOFTWARE, self.version, self.weights, self.processing, self.run, *about))
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def coded(code: Code) -> Dataset:
    """A code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def carried(source: Dataset, keyword: str) -> Any:
    """The value of an attribute of the source; None where it is missing, empty or against the rules of its type."""
    found = values(source, keyword)
    if not found:
        return None
    element = source[keyword]
    texts = [str(value) for value in found if isinstance(value, (str, PersonName))]
    valid = all(_keeps_rules(element.VR, value) for value in texts)
    return element.value if valid else None


def _keeps_rules(vr: str, value: str) -> bool:
    """Whether a text keeps the rules of its value representation (PS3.5 6.2)."""
    try:
        validate_value(vr, value, RAISE)
    except (ValueError, TypeError):
        return False
    return True


def copy_present(keywords: Iterable[str], source: Dataset, target: Dataset) -> None:
    """Copy those attributes that the source has with a valid value."""
    for keyword in keywords:
        if carried(source, keyword) is not None:
            target[keyword] = source[keyword]


def describe(target: Dataset, source: Dataset, making: Making) -> None:
    """Write what all kinds of virtual DES objects share into ``target``; UIDs and pixels are left alone.

    References:
        DICOM PS3.3 C.7.6.1 (General Image), C.12.1 (SOP Common: SyntheticData, ContributingEquipmentSequence),
        C.7.6.1.1.2 to C.7.6.1.1.4 (ImageType, derivation, source images).
    """
    target.ImageType = list(IMAGE_TYPE)
    target.SyntheticData = "YES"
    target.ContentQualification = "RESEARCH"
    target.SeriesDescription, target.ImageComments = SERIES_DESCRIPTION, COMMENT
    target.DerivationDescription = (
        f"Virtual DES by {SOFTWARE} {making.version}, weights sha256 {making.weights}; {making.processing}"
    )[:_TEXT_LIMIT]
    target.DerivationCodeSequence = [coded(codes.DCM.SpatialResampling)]
    target.SourceImageSequence = [_source_item(source)]
    target.ContributingEquipmentSequence = [_synthesizer(making), *_acquisition(source)]
    target.Manufacturer = target.ManufacturerModelName = SOFTWARE
    target.SoftwareVersions = making.version
    _date(target, source, making.made)
    _tell_loss(target, source)


def _source_item(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def _synthesizer(making: Making) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SynthesizingEquipment)]
    item.Manufacturer = item.ManufacturerModelName = SOFTWARE
    item.SoftwareVersions = making.version
    item.ContributionDescription = f"Neural network, weights sha256 {making.weights}"
    return item


def _acquisition(source: Dataset) -> list[Dataset]:
    """The unit that made the exposure, where the source names it."""
    if not text(source, "Manufacturer"):
        return []
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(codes.DCM.AcquisitionEquipment)]
    item.Manufacturer = source.Manufacturer
    copy_present(_ACQUISITION_EQUIPMENT, source, item)
    return [item]


def _date(target: Dataset, source: Dataset, made: datetime | None) -> None:
    """The time of making; an object whose UID is made anew by every run must be the same each time."""
    if made is None:
        copy_present(("ContentDate", "ContentTime"), source, target)
        if "ContentDate" not in target or "ContentTime" not in target:
            target.ContentDate, target.ContentTime = carried(source, "StudyDate"), carried(source, "StudyTime")
        return
    target.ContentDate = target.InstanceCreationDate = made.strftime("%Y%m%d")
    target.ContentTime = target.InstanceCreationTime = made.strftime("%H%M%S")


def _tell_loss(target: Dataset, source: Dataset) -> None:
    """Whether the source ever lost anything to compression; what was lost stays lost."""
    meta = getattr(source, "file_meta", Dataset())
    method = _LOSSY_METHODS.get(str(meta.get("TransferSyntaxUID", "")))
    lossy = text(source, "LossyImageCompression") == "01" or method is not None
    target.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        copy_present(("LossyImageCompressionRatio", "LossyImageCompressionMethod"), source, target)
        if method is not None and "LossyImageCompressionMethod" not in target:
            target.LossyImageCompressionMethod = method
