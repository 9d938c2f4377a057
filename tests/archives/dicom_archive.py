"""A whole archive of contrast mammography studies as a PACS exports it, with all that does not belong to a pair."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.fileset import FileSet
from pydicom.misc import is_dicom
from pydicom.sr.coding import Code
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from bundle.dicom import Kind
from tests.archives.dicom_files import Style, write_dicom
from tests.archives.phantom import PhantomPair, phantom_pairs

__all__ = ["PATIENTS", "Expected", "Truth", "write_archive", "write_dicomdir", "write_segmentation"]

PATIENTS = ("MRN-77310", "MRN-77311", "MRN-77312", "MRN-77313")
LABEL_WINDOW = (2105.0, 380.0)
SYNTAXES = (
    ExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    ImplicitVRLittleEndian,
)
_STYLES: tuple[Style, ...] = ("ge", "hologic", "siemens", "standard")


@dataclass
class Expected:
    """What one case must hold, as it went in."""

    image: NDArray[Any]
    label: NDArray[Any]
    mask: NDArray[np.bool_] | None = None
    label_mask: NDArray[np.bool_] | None = None
    vendor: str = ""


@dataclass
class Truth:
    """The archive.

    Attributes:
        root: its folder.
        pairs: (PatientID, side, view, number in time) -> what the case must hold.
        refused: path in the archive -> words of the reason, of files that a pair would have needed.
        passed: the same of files that no pair needs.
        secrets: texts that must not be found in what is made of it.
    """

    root: Path
    pairs: dict[tuple[str, str, str, int], Expected] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    passed: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def write(self, relative: str, values: NDArray[Any], **how: Any) -> Dataset:
        """Write one file; what identifies its patient becomes a secret."""
        header = write_dicom(self.root / relative, values, **how)
        self.secrets |= {part for part in Path(relative).parts if len(part) > 4}
        uids = (header.SOPInstanceUID, header.SeriesInstanceUID, header.StudyInstanceUID)
        self.secrets |= {str(one) for one in (*uids, header.get("PatientID"), header.get("PatientName")) if one}
        self.secrets |= {header.StudyDate, header.PatientBirthDate, header.AccessionNumber}
        return header

    def write_pair(self, pair: PhantomPair, names: tuple[str, str] = ("low", "rec"), **how: Any) -> None:
        """Write LE and DES of a view, by default of the first patient."""
        how = {"patient_id": PATIENTS[0], "laterality": pair.laterality, "view": pair.view} | how
        self.write(names[0], pair.image, **how)
        self.write(names[1], pair.label, kind=Kind.SUBTRACTED, window=LABEL_WINDOW, **how)


def write_archive(root: Path) -> Truth:
    """Write the archive: four patients of four vendors, two views of both breasts, and everything else."""
    truth = Truth(root)
    for number, pair in enumerate(phantom_pairs(4, 64)):
        _write_view(truth, number, pair)
    _write_more_pairs(truth)
    _write_masks(truth)
    _write_unpaired(truth)
    _write_not_needed(truth)
    _write_broken(truth)
    return truth


def _time(number: int, seconds: int = 0) -> str:
    return f"10{15 + 2 * (number % 4):02d}{seconds:02d}"


def place(patient: str) -> str:
    """The folder of a patient, named after her."""
    return f"Mueller_Anna_{patient[-1]}/exam{patient[-2:]}"


def _write_view(truth: Truth, number: int, pair: PhantomPair) -> None:
    """LE and DES of a view, in the vendor's tags; files are called as machines, people or PACS call them."""
    patient, style = PATIENTS[pair.patient], _STYLES[pair.patient]
    syntax = SYNTAXES[number % len(SYNTAXES)]
    how: dict[str, Any] = {"style": style, "patient_id": patient, "laterality": pair.laterality, "view": pair.view}
    how |= {"transfer_syntax": syntax, "monochrome1": number % 3 == 0}
    le, des = (f"{place(patient)}/{kind}{number:06d}{suffix}" for kind, suffix in (("IMLOW", ".dcm"), ("IMREC", "")))
    blank = _blanked(pair)
    truth.write(le, pair.image, acquired=_time(number), PatientAge="095Y", **how, **blank)
    more: dict[str, Any] = {"kind": Kind.SUBTRACTED, "acquired": _time(number, 1), "window": LABEL_WINDOW}
    truth.write(des, pair.label, **how, **more, **(blank if "ImageLaterality" in blank else {}))
    vendor = {"ge": "GE", "standard": "other"}.get(style, style.capitalize())
    view = "UNKNOWN" if "ImageLaterality" in blank else pair.view
    expected = Expected(pair.image, pair.label, vendor=vendor)
    truth.pairs[patient, pair.laterality, view, 1] = expected


def _blanked(pair: PhantomPair) -> dict[str, Any]:
    """One LE image lacks its view, one pair everything that says which breast and view it is."""
    if (pair.patient, pair.laterality, pair.view) == (2, "R", "MLO"):
        return {"ViewPosition": None, "ViewCodeSequence": None, "SeriesDescription": "TiCEM Low Energy"}
    if (pair.patient, pair.laterality, pair.view) == (3, "L", "CC"):
        keywords = ("ImageLaterality", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "SeriesDescription")
        return dict.fromkeys(keywords)
    return {}


def _write_more_pairs(truth: Truth) -> None:
    """A repeated view three minutes later; a second study; and a DES image that names a later LE image."""
    repeated, later, referring = phantom_pairs(6, 64)[16], phantom_pairs(6, 64)[17], phantom_pairs(6, 64)[20]
    how: dict[str, Any] = {"patient_id": PATIENTS[0], "laterality": "L", "view": "CC"}
    truth.write("repeated_view/a", repeated.image, acquired="101800", **how)
    truth.write("repeated_view/b", repeated.label, kind=Kind.SUBTRACTED, acquired="101801", window=LABEL_WINDOW, **how)
    truth.pairs[PATIENTS[0], "L", "CC", 2] = Expected(repeated.image, repeated.label, vendor="GE")
    how = {"patient_id": f" {PATIENTS[1].lower()}", "laterality": "L", "view": "MLO", "study_uid": "1.2.826.99.7"}
    how |= {"StudyDate": "20250608", "AcquisitionDate": "20250608", "ContentDate": "20250608", "style": "siemens"}
    truth.write("follow_up/1.2.826.99.7.1", later.image, **how)
    truth.write("follow_up/1.2.826.99.7.2", later.label, kind=Kind.SUBTRACTED, window=LABEL_WINDOW, **how)
    truth.pairs[PATIENTS[1], "L", "MLO", 2] = Expected(later.image, later.label, vendor="Siemens")
    how = {"patient_id": PATIENTS[2], "laterality": "L", "view": "ML"}
    le = truth.write("by_reference/x.ima", referring.image, acquired="110000", **how)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = le.SOPClassUID, le.SOPInstanceUID
    more: dict[str, Any] = {"acquired": "113000", "window": LABEL_WINDOW, "SourceImageSequence": [source]}
    truth.write("by_reference/y.ima", referring.label, kind=Kind.SUBTRACTED, **how, **more)
    truth.pairs[PATIENTS[2], "L", "ML", 1] = Expected(referring.image, referring.label, vendor="GE")


def _lesions(number: int) -> NDArray[np.bool_]:
    """Two regions, at places that tell a mirrored or turned mask from the right one."""
    mask = np.zeros((64, 64), dtype=np.bool_)
    mask[20 + number : 26 + number, 10:14] = True
    mask[40, 5 : 8 + number] = True
    return mask


def _write_masks(truth: Truth) -> None:
    """Segmentations, binary, fractional and as label map, on LE and DES; and image files of both naming rules."""
    folder = {patient: place(patient) for patient in PATIENTS}
    for number, (kind, view, image) in enumerate(
        (
            ("BINARY", "CC", "IMLOW000002.dcm"),
            ("FRACTIONAL", "MLO", "IMLOW000003.dcm"),
            ("LABELMAP", "CC", "IMREC000002"),
        )
    ):
        source = pydicom.dcmread(truth.root / folder[PATIENTS[0]] / image)
        write_segmentation(truth.root / f"drawings/SEG{number}.dcm", source, [_lesions(number)], kind)
        expected = truth.pairs[PATIENTS[0], "R", view, 1]
        setattr(expected, "mask" if "LOW" in image else "label_mask", _lesions(number))
    source = pydicom.dcmread(truth.root / folder[PATIENTS[0]] / "IMLOW000002.dcm")
    write_segmentation(truth.root / "drawings/again", source, [_lesions(9), _lesions(5)], "BINARY", second="Clip")
    truth.pairs[PATIENTS[0], "R", "CC", 1].mask = _lesions(0) | _lesions(9) | _lesions(5)
    Image.fromarray(_lesions(3)).save(truth.root / folder[PATIENTS[1]] / "IMLOW000004_mask.png")
    truth.pairs[PATIENTS[1], "L", "CC", 1].mask = _lesions(3)
    uid = pydicom.dcmread(truth.root / folder[PATIENTS[1]] / "IMREC000005").SOPInstanceUID
    Image.fromarray(_lesions(4)).save(truth.root / "drawings" / f"{uid}.png")
    truth.pairs[PATIENTS[1], "L", "MLO", 1].label_mask = _lesions(4)


def write_segmentation(
    path: Path,
    source: Dataset,
    masks: Iterable[NDArray[np.bool_]],
    kind: str = "BINARY",
    second: str = "Lesion",
) -> Dataset:
    """Write a DICOM segmentation with one segment a mask, the first called Lesion."""
    masks = list(masks)
    codes = Code("49755003", "SCT", "Morphologically abnormal structure"), Code("4147007", "SCT", "Mass")
    manual = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    segments = [
        highdicom.seg.SegmentDescription(number, label, *codes, manual)
        for number, label in zip(range(1, len(masks) + 1), ("Lesion", second), strict=False)
    ]
    pixels = np.stack(masks, axis=-1)[None]
    uids = [generate_uid(entropy_srcs=[str(path.name), part, source.SOPInstanceUID]) for part in ("series", "object")]
    values = pixels.astype(np.float32) if kind == "FRACTIONAL" else pixels.astype(np.uint8)
    segmentation = highdicom.seg.Segmentation(
        [source],
        values if len(masks) > 1 or kind == "FRACTIONAL" else values[..., 0],
        kind,
        segments,
        series_instance_uid=uids[0],
        series_number=1,
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer="Someone",
        manufacturer_model_name="Drawing",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return segmentation


def _write_unpaired(truth: Truth) -> None:
    """Images and masks without partner."""
    pair = phantom_pairs(6, 64)[18]
    lonely: dict[str, Any] = {"patient_id": PATIENTS[3], "laterality": "R", "view": "XCCL"}
    truth.write("lonely_ones/low.dcm", pair.image, acquired="113000", **lonely)
    truth.refused["lonely_ones/low.dcm"] = "low-energy image: no recombined image of the same study, side and view"
    truth.write(
        "lonely_ones/rec.dcm", pair.label, kind=Kind.SUBTRACTED, acquired="114000", **(lonely | {"view": "LMO"})
    )
    truth.refused["lonely_ones/rec.dcm"] = "subtracted image: no low-energy image"
    for name, acquired, kind in (("far1", "090000", Kind.LOW_ENERGY), ("far2", "094500", Kind.SUBTRACTED)):
        truth.write(f"lonely_ones/{name}", pair.image, acquired=acquired, kind=kind, **(lonely | {"view": "LM"}))
        truth.refused[f"lonely_ones/{name}"] = "over 10 minutes away"
    absent = write_dicom(truth.root.parent / "absent.dcm", pair.image, patient_id=PATIENTS[3])
    write_segmentation(truth.root / "lonely_ones/lost_seg.dcm", absent, [_lesions(0)])
    truth.refused["lonely_ones/lost_seg.dcm"] = "a segmentation of an image that is not in the archive"
    Image.fromarray(_lesions(0)).save(truth.root / "lonely_ones/IMLOW000099_mask.png")
    truth.refused["lonely_ones/IMLOW000099_mask.png"] = "a mask whose name fits 0 DICOM files"


def _write_not_needed(truth: Truth) -> None:
    """What lies in an archive beside the pairs."""
    pair = phantom_pairs(6, 64)[19]
    how: dict[str, Any] = {"patient_id": PATIENTS[0], "laterality": "L", "view": "MLO"}
    for name, kind, words in (
        ("HE01.dcm", Kind.HIGH_ENERGY, "high-energy image: ImageType value 4 is HIGH_ENERGY"),
        ("RAW01.dcm", Kind.FOR_PROCESSING, "image for processing: "),
        ("TOMO01.dcm", Kind.TOMOSYNTHESIS, "tomosynthesis: "),
        ("STEREO1.dcm", Kind.STEREO, "stereotactic image: "),
        ("FFDM01.dcm", Kind.MAMMOGRAM, "mammogram: a mammogram without contrast terms"),
        ("ULTRA1.dcm", Kind.OTHER, "other object: Modality is US"),
    ):
        truth.write(f"rest_of_it/{name}", pair.image, kind=kind, **how)
        truth.passed[f"rest_of_it/{name}"] = words
    shutil.copy(truth.root / place(PATIENTS[0]) / "IMLOW000000.dcm", truth.root / "rest_of_it/renamed.copy")
    truth.passed["rest_of_it/renamed.copy"] = "a copy of another file"
    (truth.root / "rest_of_it/read_me_first.txt").write_text("Mueller, Anna")
    (truth.root / "rest_of_it/.hidden.dcm").write_bytes(b"hidden")


def _write_broken(truth: Truth) -> None:
    """A cut-off image, which costs its pair, a cut-off header, and an empty file."""
    pair = phantom_pairs(6, 64)[21]
    how: dict[str, Any] = {"patient_id": PATIENTS[3], "laterality": "L", "view": "ML", "acquired": "115000"}
    truth.write("defective/whole.dcm", pair.image, **how)
    truth.write("defective/cutoff.dcm", pair.label, kind=Kind.SUBTRACTED, **how)
    content = (truth.root / "defective/cutoff.dcm").read_bytes()
    (truth.root / "defective/cutoff.dcm").write_bytes(content[: len(content) - 5000])
    truth.refused["defective/cutoff.dcm"] = "DES: "
    (truth.root / "defective/cut_header.dcm").write_bytes(content[:180])
    truth.refused["defective/cut_header.dcm"] = "cut off"
    (truth.root / "defective/empty_file.dcm").write_bytes(b"")
    truth.refused["defective/empty_file.dcm"] = ""


def write_dicomdir(source: Path, medium: Path) -> Path:
    """Copy all DICOM images of a folder onto a medium with a DICOMDIR, which renames them; return the DICOMDIR."""
    files = FileSet()
    for path in sorted(source.rglob("*")):
        if path.is_file() and is_dicom(path):
            header = pydicom.dcmread(path)
            header.StudyID, header.SeriesNumber, header.InstanceNumber = "1", 1, 1
            files.add(header)
    files.write(medium)
    return medium / "DICOMDIR"
