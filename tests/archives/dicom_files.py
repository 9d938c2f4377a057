"""Write one synthetic DICOM mammogram as a vendor would tag it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    SegmentationStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from bundle.dicom import Kind
from tests.archives.jpeg_lossless import jpeg_lossless

Style = Literal["ge", "hologic", "siemens", "standard"]


@dataclass(frozen=True)
class _Tags:
    """How one vendor tags one kind of image. Descriptions may name {side} and {view}."""

    image_type: str
    description: str = "{side} {view}"
    kvp: float | None = 28
    more: dict[str, Any] = field(default_factory=dict)


def _ge(code: str) -> dict[str, Any]:
    return {"AcquisitionDeviceProcessingCode": code, "PixelIntensityRelationship": "LOG"}


EQUIPMENT: dict[Style, tuple[str, str]] = {
    "ge": ("GE MEDICAL SYSTEMS", "Senographe Pristina"),
    "hologic": ("HOLOGIC, Inc.", "Selenia Dimensions"),
    "siemens": ("SIEMENS", "MAMMOMAT Revelation"),
    "standard": ("Standard Imaging", "Mammo One"),
}
TAGS: dict[Style, dict[Kind, _Tags]] = {
    "ge": {
        Kind.LOW_ENERGY: _Tags(r"ORIGINAL\PRIMARY\\LOW_ENERGY", "SenoBright {side} {view}", 28, _ge("GEMS_FFDM_PV")),
        Kind.SUBTRACTED: _Tags(r"ORIGINAL\PRIMARY\\RECOMBINED", "SenoBright {side} {view}", 28, _ge("GEMS_CESM_1")),
        Kind.HIGH_ENERGY: _Tags(r"ORIGINAL\PRIMARY\\HIGH_ENERGY", "SenoBright {side} {view}", 49, _ge("GEMS_FFDM_PV")),
    },
    "hologic": {
        Kind.LOW_ENERGY: _Tags(r"DERIVED\PRIMARY\POST_CONTRAST\\LOW_ENERGY\\\\50000", "{side} {view} I-View", 30),
        Kind.SUBTRACTED: _Tags(r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION\\\\\50000", "{side} {view} I-View", 30),
        Kind.HIGH_ENERGY: _Tags(r"DERIVED\PRIMARY\POST_CONTRAST\\HIGH_ENERGY\\\\50000", "{side} {view} I-View", 49),
    },
    "siemens": {
        Kind.LOW_ENERGY: _Tags(r"DERIVED\PRIMARY", "{side} {view} TiCEM Low Energy", 29),
        Kind.SUBTRACTED: _Tags(r"DERIVED\PRIMARY", "{side} {view} TiCEM Recombined", 29),
        Kind.HIGH_ENERGY: _Tags(r"DERIVED\PRIMARY", "{side} {view} TiCEM High Energy", 49),
    },
    "standard": {
        Kind.LOW_ENERGY: _Tags(r"ORIGINAL\PRIMARY\POST_CONTRAST\\LOW_ENERGY", kvp=28),
        Kind.SUBTRACTED: _Tags(r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION", kvp=None),
        Kind.HIGH_ENERGY: _Tags(r"ORIGINAL\PRIMARY\POST_CONTRAST\\HIGH_ENERGY", kvp=45),
    },
}
#: The same for all vendors.
COMMON: dict[Kind, _Tags] = {
    Kind.MAMMOGRAM: _Tags(r"ORIGINAL\PRIMARY"),
    Kind.FOR_PROCESSING: _Tags(r"ORIGINAL\PRIMARY"),
    Kind.TOMOSYNTHESIS: _Tags(r"DERIVED\PRIMARY\TOMOSYNTHESIS\NONE"),
    Kind.STEREO: _Tags(r"ORIGINAL\PRIMARY\STEREO_SCOUT"),
    Kind.SEGMENTATION: _Tags(r"DERIVED\PRIMARY", "Lesions", None),
    Kind.OTHER: _Tags(r"ORIGINAL\PRIMARY", "Ultrasound", None),
}
CLASSES = {
    Kind.FOR_PROCESSING: DigitalMammographyXRayImageStorageForProcessing,
    Kind.TOMOSYNTHESIS: BreastTomosynthesisImageStorage,
    Kind.SEGMENTATION: SegmentationStorage,
    Kind.OTHER: UltrasoundImageStorage,
}
VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}


def write_dicom(
    path: Path,
    values: NDArray[np.uint16],
    *,
    style: Style = "ge",
    kind: Kind = Kind.LOW_ENERGY,
    patient_id: str = "PAT1",
    study_uid: str | None = None,
    laterality: str = "L",
    view: str = "CC",
    transfer_syntax: str = ExplicitVRLittleEndian,
    monochrome1: bool = False,
    acquired: str = "101500",
    window: tuple[float, float] | None = None,
    bits: int | None = None,
    **overrides: Any,
) -> Dataset:
    """Write ``values`` as one DICOM file, and return what was written.

    Args:
        path: the file; its name and the other arguments make the UIDs, so the same call gives the same file.
        values: (H, W), dense tissue bright, as they are to be read back.
        style: whose tags.
        kind: which kind of image the tags say it is.
        patient_id: PatientID; the name is made from it.
        study_uid: StudyInstanceUID; by default one for each patient.
        laterality: ImageLaterality. PatientOrientation says that ``values`` lie the usual way round.
        view: ViewPosition and ViewCodeSequence.
        transfer_syntax: how the pixels are stored; any that dicom.md names.
        monochrome1: store the inverted values.
        acquired: AcquisitionTime, and ContentTime a minute later.
        window: (centre, width) of ``values``, written as LINEAR_EXACT.
        bits: BitsStored; by default 12, or 16 where the values need them.
        overrides: attributes by keyword, set last; None removes one. Further attributes of the pixels, such as
            RescaleSlope, do not change the stored values.
    """
    bits = bits or (12 if int(values.max(initial=0)) < 2**12 else 16)
    dataset = Dataset()
    _identify(dataset, path, kind, patient_id, study_uid, acquired, (laterality, view))
    _describe(dataset, style, kind, laterality, view)
    _show(dataset, monochrome1, window, bits)
    stored = (2**bits - 1 - values if monochrome1 else values).astype(np.uint16)
    dataset.Rows, dataset.Columns = stored.shape
    for keyword, value in overrides.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    save(path, dataset, stored, transfer_syntax)
    return dataset


def _identify(
    dataset: Dataset,
    path: Path,
    kind: Kind,
    patient_id: str,
    study_uid: str | None,
    acquired: str,
    side_and_view: tuple[str, str],
) -> None:
    sources = [path.name, kind.name, patient_id, str(study_uid), acquired, *side_and_view]
    dataset.SOPClassUID = CLASSES.get(kind, DigitalMammographyXRayImageStorageForPresentation)
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", *sources])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", *sources])
    dataset.StudyInstanceUID = study_uid or generate_uid(entropy_srcs=["study", patient_id])
    dataset.PatientID, dataset.PatientName = patient_id, f"Doe^{patient_id}"
    dataset.PatientBirthDate, dataset.PatientSex = "19600101", "F"
    dataset.StudyDate = dataset.AcquisitionDate = dataset.ContentDate = "20240102"
    dataset.StudyTime, dataset.AcquisitionTime = "100000", acquired
    dataset.ContentTime = f"{int(acquired[:6]) + 100:06d}"
    dataset.StudyID, dataset.AccessionNumber = "1", f"A{patient_id}"


def _describe(dataset: Dataset, style: Style, kind: Kind, laterality: str, view: str) -> None:
    tags = TAGS[style].get(kind) or COMMON[kind]
    dataset.Modality = {Kind.SEGMENTATION: "SEG", Kind.OTHER: "US"}.get(kind, "MG")
    dataset.Manufacturer, dataset.ManufacturerModelName = EQUIPMENT[style]
    dataset.ImageType = tags.image_type.split("\\")
    dataset.SeriesDescription = tags.description.format(side=laterality, view=view)
    if tags.kvp is not None:
        dataset.KVP = tags.kvp
    for keyword, value in tags.more.items():
        setattr(dataset, keyword, value)
    dataset.PresentationIntentType = "FOR PROCESSING" if kind is Kind.FOR_PROCESSING else "FOR PRESENTATION"
    dataset.BodyPartExamined, dataset.ImageLaterality, dataset.ViewPosition = "BREAST", laterality, view
    code = Dataset()
    code.CodeValue, code.CodeMeaning = VIEW_CODES.get(view, (view, view))
    code.CodingSchemeDesignator = "SCT"
    dataset.ViewCodeSequence = [code]
    dataset.PatientOrientation = _usual_orientation(laterality, view)
    dataset.ImagerPixelSpacing = [0.1, 0.1]


def _usual_orientation(laterality: str, view: str) -> list[str]:
    """Chest wall of a left breast at the left edge, the outer or upper side on top."""
    inner = "R" if laterality == "L" else "L"
    return ["A" if laterality == "L" else "P", inner if view in ("CC", "XCCL", "XCCM") else f"F{inner}"]


def _show(dataset: Dataset, monochrome1: bool, window: tuple[float, float] | None, bits: int) -> None:
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    if window is not None:
        dataset.WindowCenter = 2**bits - 1 - window[0] if monochrome1 else window[0]
        dataset.WindowWidth, dataset.VOILUTFunction = window[1], "LINEAR_EXACT"


def save(path: Path, dataset: Dataset, stored: NDArray[Any], transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Write ``dataset`` with ``stored`` values (8 or 16 bits) in this transfer syntax."""
    syntax = UID(transfer_syntax)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", UID("1.2.3"))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", UID("1.2.3.4"))
    dataset.file_meta.TransferSyntaxUID = syntax if not syntax.is_compressed else ExplicitVRLittleEndian
    order: Literal["<", ">"] = ">" if syntax == ExplicitVRBigEndian else "<"
    content = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW"
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        stream = jpeg_lossless(stored, int(dataset.BitsStored), 1 if syntax == JPEGLosslessSV1 else 4)
        dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
