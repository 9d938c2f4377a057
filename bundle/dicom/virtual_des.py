"""Write the virtual DES of a DICOM mammogram as a standard-conforming derived object."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from bundle.dicom.decoding import opened
from bundle.dicom.derived import Making, describe
from bundle.dicom.derived_mg import mammogram_of, missing_for_mammogram
from bundle.dicom.derived_sc import secondary_capture_of
from bundle.dicom.header import number, text
from bundle.dicom.identity import Side, directions_of, laterality_of, view_of
from bundle.dicom.notice import with_notice
from bundle.dicom.pixels import read_dicom
from bundle.files import atomic_path, sha256_of
from bundle.image_file_error import ImageFileError
from bundle.version import bundle_version

__all__ = ["ObjectType", "VirtualDESObjects"]

ObjectType = Literal["mammogram", "secondary_capture"]
_SERIES_OFFSET = 9000
"""Added to the SeriesNumber of the source, so that the series sorts behind those of the unit."""
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass
class VirtualDESObjects:
    """Makes derived DICOM objects of one network's predictions; configured once for a run.

    Args:
        weights: file of the network's weights; its SHA-256 goes into every object.
        object_type: ``mammogram`` for Digital Mammography X-Ray Image For Presentation, or ``secondary_capture``. A
            source that lacks what a mammogram must say (its pixel spacing at the detector, its view) gets a Secondary
            Capture in any case.
        burn_in_notice: write a notice into the pixels, in the corner farthest from the breast.
        deterministic_uids: UIDs and dates depend on the source, the weights and the processing alone: another run
            gives the same bytes, and an archive replaces objects instead of doubling them.
        processing: what was done to the pixels, in words, for DerivationDescription.
        run: what tells this run from others; with ``deterministic_uids`` it has no effect.

    Raises:
        ValueError: an unknown ``object_type``.
    """

    weights: str | PathLike[str]
    object_type: ObjectType = "mammogram"
    burn_in_notice: bool = False
    deterministic_uids: bool = False
    processing: str = "scaled to [0, 1], fitted to the size of the network, and back to the grid of the source"
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.object_type not in ("mammogram", "secondary_capture"):
            raise ValueError(
                f"object_type is {self.object_type!r}, expected 'mammogram' or 'secondary_capture'. Correct the config."
            )

    @cached_property
    def making(self) -> Making:
        """How the objects are made; the weights are read when the first one is."""
        digest, version = sha256_of(Path(self.weights)), bundle_version() or "unknown"
        if self.deterministic_uids:
            return Making(version, digest, self.processing, None, "")
        return Making(version, digest, self.processing, datetime.now().astimezone(), self.run)

    def write(self, pred: NDArray[Any], source: str | PathLike[str], target: str | PathLike[str]) -> tuple[str, ...]:
        """Write one object, whole or not at all.

        Args:
            pred: (W, H) virtual DES in 0..255 on the grid of the source as it is stored; values outside are clipped.
            source: the DICOM file of the low-energy image.
            target: file to write, in Explicit VR Little Endian.

        Returns:
            What was filled in, or done otherwise than asked.

        Raises:
            ImageFileError: the source lacks the identifiers that a derived object needs.
            ValueError: ``pred`` is not finite or not on the grid of the source.
        """
        path = Path(source)
        header = _header(path)
        pixels = self._pixels(pred, header, path)
        laterality, orientation, notes = _position(header, path)
        if self.burn_in_notice:
            pixels = with_notice(pixels)
        made, more = self._object(pixels, header, laterality, orientation)
        made.BurnedInAnnotation = "YES" if self.burn_in_notice else "NO"
        _save(made, Path(target))
        return notes + more

    def _pixels(self, pred: NDArray[Any], header: Dataset, path: Path) -> NDArray[np.float32]:
        rows, columns = int(header.Rows), int(header.Columns)
        if pred.shape != (columns, rows):
            raise ValueError(
                f"the prediction has {pred.shape[0]} columns x {pred.shape[1]} rows but {path.name} has "
                f"{columns} x {rows}; the postprocessing must undo every change of geometry (Invertd)"
            )
        if not np.isfinite(pred).all():
            raise ValueError("the prediction holds NaN or infinite values; check the weights and, if it is on, AMP")
        return np.clip(pred.T / np.float32(255), 0, 1).astype(np.float32)

    def _object(
        self, pixels: NDArray[np.float32], header: Dataset, laterality: Side, orientation: tuple[str, str]
    ) -> tuple[Dataset, tuple[str, ...]]:
        making = self.making
        missing = missing_for_mammogram(header) if self.object_type == "mammogram" else None
        kind = "secondary_capture" if missing else self.object_type
        series = making.uid("series", kind, header.SeriesInstanceUID)
        instance = making.uid("instance", kind, str(self.burn_in_notice), header.SOPInstanceUID)
        series_number = int(number(header, "SeriesNumber") or 0) % 10000 + _SERIES_OFFSET
        if kind == "mammogram":
            made = mammogram_of(pixels, header, laterality, orientation)
            made.SOPInstanceUID, made.SeriesInstanceUID, made.SeriesNumber = instance, series, series_number
        else:
            numbered = (series, series_number)
            made = secondary_capture_of(pixels, header, laterality, orientation, numbered, instance)
        describe(made, header, making)
        return made, (f"a Secondary Capture, since the source does not tell {missing}",) if missing else ()


def _header(path: Path) -> Dataset:
    """The attributes of the source, without pixels; without identifiers nothing can be derived from it."""
    header = opened(path, pixels=False)
    lacking = [keyword for keyword in _IDENTIFIERS if not text(header, keyword)]
    if lacking:
        remedy = "Export the image from the archive again, with its identifiers"
        raise ImageFileError(path, f"lacks {' and '.join(lacking)}, to which a derived object must refer", remedy)
    return header


def _position(header: Dataset, path: Path) -> tuple[Side, tuple[str, str], tuple[str, ...]]:
    """Laterality and PatientOrientation: as stated, else as seen in the pixels, which the notes then tell."""
    laterality, orientation = laterality_of(header), directions_of(header)
    if laterality is not None and all(orientation):
        return laterality, orientation, ()
    image = read_dicom(path)
    notes = []
    if laterality is None:
        laterality = image.laterality or "L"
        notes.append(f"laterality {laterality} as seen in the pixels")
    if not all(orientation):
        at_left = (laterality == "L") != image.mirrored
        inner: Side = "R" if laterality == "L" else "L"
        cranio_caudal = (view_of(header) or "").startswith(("CC", "XCC"))
        orientation = ("A" if at_left else "P", inner if cranio_caudal else f"F{inner}")
        notes.append(f"PatientOrientation {' '.join(orientation)} as seen in the pixels")
    return laterality, orientation, tuple(notes)


def _save(made: Dataset, target: Path) -> None:
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with atomic_path(target) as unfinished:
        pydicom.dcmwrite(unfinished, made, enforce_file_format=True)
