"""Synthetic files for the benchmark: mammograms in DICOM, and data sets of PNG images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage

__all__ = ["SYNTAXES", "mammogram", "write_dataset", "write_dicom"]

SYNTAXES: dict[str, UID] = {
    "raw": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
ROWS, COLUMNS = 3328, 2560


def mammogram(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint16]:
    """(rows, columns), 12 bits: a left breast with coarse and fine texture and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    radius = (x / (0.75 * columns)) ** 2 + ((y - 0.5 * rows) / (0.43 * rows)) ** 2
    coarse = ndimage.zoom(ndimage.gaussian_filter(random.standard_normal((rows // 8, columns // 8)), 4), 8, order=1)
    texture = np.zeros((rows, columns), np.float32)
    texture[: coarse.shape[0], : coarse.shape[1]] = coarse / np.abs(coarse).max()
    noise = random.normal(0, 1, (rows, columns)).astype(np.float32)
    breast = 1800 + 900 * (1 - radius) + 500 * texture + 12 * noise
    return np.asarray(np.where(radius < 1, breast, 30 + 3 * noise).clip(0, 4095).astype(np.uint16))


def write_dicom(path: Path, pixels: NDArray[np.uint16], syntax: UID, number: int, kind: str = "LOW_ENERGY") -> Path:
    """Write pixels as one image of a contrast mammography study of nobody; ``kind`` is value 4 of ImageType."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number}")
    header.StudyInstanceUID, header.SeriesInstanceUID = f"2.25.1{number}", f"2.25.2{number}"
    header.PatientID, header.Modality = "SYNTHETIC", "MG"
    header.ImageType = ["DERIVED", "PRIMARY", "", kind]
    header.ImageLaterality, header.ViewPosition, header.PatientOrientation = "L", "CC", ["A", "R"]
    header.PixelSpacing = header.ImagerPixelSpacing = [0.094, 0.094]
    header.WindowCenter, header.WindowWidth = 2000, 2200
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.PixelData = pixels.tobytes()
    if syntax != ExplicitVRLittleEndian:
        header.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_dataset(folder: Path, cases: int, shape: tuple[int, int] = (32, 24), masks: bool = False) -> Path:
    """A correct data set of pairs of noise; four cases a patient, ten folds where there are as many patients."""
    random = np.random.default_rng(0)
    fade = np.linspace(1, 0, shape[1])[None] * 3000
    folds = max(3, min(10, cases // 4))
    entries: list[dict[str, Any]] = []
    for number in range(cases):
        entry: dict[str, Any] = {"patient_id": f"P{number // 4}", "laterality": "L", "view": "CC"}
        for key in ("image", "label", "mask")[: 3 if masks else 2]:
            entry[key] = f"{key}/{number}.png"
            pixels = (fade + random.integers(0, 900, shape)).astype(np.uint16)
            if key == "mask":
                pixels = np.zeros(shape, np.uint8)
                pixels[shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 255
            (folder / key).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / entry[key], compress_level=0)
        entries.append(entry | {"fold": number // 4 % folds, "label_window": [2000, 4000]})
    content = {"name": "benchmark", "synthetic": True, "num_folds": folds, "cases": entries}
    (folder / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
