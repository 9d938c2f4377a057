"""Pairs of plain files: tiny breasts whose LE and DES lie exactly on one grid, and sources that misbehave."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from scripts.prepare.sources import FileImage, FileMask
from scripts.prepare.view import Pixels, View

SHAPE = (48, 40)


def breast(seed: int, laterality: str = "L", top: int = 4000) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """LE and DES of one made-up breast: noise in the same half ellipse, 0 outside."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SHAPE)
    inside = ((rows - 23.5) / 20) ** 2 + (columns / 28) ** 2 < 1
    image, label = (np.where(inside, rng.integers(top // 2, top, SHAPE), 0).astype(np.uint16) for _ in range(2))
    side = slice(None, None, 1 if laterality == "L" else -1)
    return np.ascontiguousarray(image[:, side]), np.ascontiguousarray(label[:, side])


def lesion(laterality: str = "L") -> NDArray[np.bool_]:
    """Two lesions inside the breast."""
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[20:26, 8:14] = mask[34:36, 4:7] = True
    return mask[:, :: 1 if laterality == "L" else -1]


def write(path: Path, pixels: NDArray[Any]) -> Path:
    """Write one image with Pillow; a bool array as 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels).save(path)
    return path


def write_dicom(path: Path, pixels: NDArray[np.uint16], **attributes: Any) -> None:
    """Write a mammogram of 12 bits with these attributes."""
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["x"])
    header.Modality, header.PhotometricInterpretation, header.SamplesPerPixel = "MG", "MONOCHROME2", 1
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    for name, value in attributes.items():
        setattr(header, name, value)
    header.PixelData = pixels.tobytes()
    header.save_as(path, enforce_file_format=True)


def names(patients: int) -> Iterator[tuple[str, str, Literal["L", "R"], str]]:
    """Name, patient, laterality and view of the two views of both breasts of each patient."""
    sides: tuple[Literal["L", "R"], ...] = ("L", "R")
    for patient in range(patients):
        for side in sides:
            for view in ("CC", "MLO"):
                yield f"P{patient}_{side}_{view}", f"P{patient}", side, view


def write_views(folder: Path, patients: int = 4, masks: int = 3) -> list[View]:
    """Views of 16-bit PNG files; every ``masks``-th has a mask."""
    views = []
    for number, (name, patient, side, view) in enumerate(names(patients)):
        image, label = (
            FileImage(write(folder / part / f"{name}.png", pixels), (3000.0, 2000.0))
            for part, pixels in zip(("low", "subtracted"), breast(number, side), strict=True)
        )
        mask = FileMask(write(folder / "lesions" / f"{name}.png", lesion(side))) if number % masks == 0 else None
        views.append(View(name, patient, side, view, image, label, mask, info={"density": "AB"[number % 2]}))
    return views


@dataclass(frozen=True)
class Made:
    """An image that lies in memory; its path is only for naming it."""

    path: Path
    pixels: Pixels

    def read(self) -> Pixels:
        """The image."""
        return self.pixels


@dataclass(frozen=True)
class Deadly:
    """An image whose decoder kills the process."""

    path: Path

    def read(self) -> Pixels:
        """Die, but not in the process of the tests."""
        if "PYTEST_CURRENT_TEST" in os.environ and os.getpid() == int(os.environ.get("SPARED_PROCESS", "0")):
            raise RuntimeError("the tests would have been killed")
        os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("unreachable")
