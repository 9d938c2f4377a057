"""Images and masks that lie in plain files, read by the bundle's own reader."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.reader import ImageFileError, MammogramReader, read_pixels
from scripts.prepare.direction import direction_of
from scripts.prepare.view import Pixels

__all__ = ["DicomImageFile", "DicomInPlace", "FileImage", "FileMask", "report_name"]

_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class _File:
    """One image file.

    Attributes:
        path: the file.
        window: display window (centre, width) in stored pixel values, in place of the one that a DICOM header gives.
        shown: how reports name the file; default: its path.
    """

    path: Path
    window: tuple[float, float] | None = None
    shown: str = ""

    @property
    def report_name(self) -> str:
        """How reports name the file."""
        return self.shown or str(self.path)


@dataclass(frozen=True)
class FileImage(_File):
    """An image file of any format that ``bundle.reader`` knows, upright, with the chest wall where it belongs."""

    def read(self) -> Pixels:
        """Decode the file."""
        reader = MammogramReader()
        values, meta = reader.get_data(reader.read(self.path))
        pixel_mm = _pixel_mm(self.path, meta)
        return Pixels(np.ascontiguousarray(values.T), self.window, pixel_mm, direction=direction_of(self.path))


@dataclass(frozen=True)
class DicomInPlace(_File):
    """A DICOM mammogram as training reads it from its file: ``bundle.reader``'s values, not turned or mirrored."""

    def read(self) -> Pixels:
        """Decode the file; the header's first window is taken where it is a linear one."""
        found = FileImage(self.path, self.window).read()
        return found if self.window is not None else replace(found, window=_header_window(self.path))


@dataclass(frozen=True)
class DicomImageFile(_File):
    """A DICOM mammogram, brought upright as its header says."""

    def read(self) -> Pixels:
        """Decode the file."""
        from bundle.dicom import read_dicom

        found = read_dicom(self.path)
        window = self.window or found.window
        return Pixels(found.values, window, found.pixel_mm, found.mirrored, found.upside_down, found.notes)


@dataclass(frozen=True)
class FileMask:
    """A mask file on the grid of its image: 0 and one other value.

    Attributes:
        path: the file.
        shown: how reports name the file; default: its path.
    """

    path: Path
    shown: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    @property
    def direction(self) -> tuple[float, ...] | None:
        """Where its columns and rows run, as ``direction_of`` gives it."""
        return direction_of(self.path)

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Decode the file; True where it is not 0.

        Raises:
            ImageFileError: as ``read_pixels``, and for another size or more than two values.
        """
        values = read_pixels(self.path).T
        if values.shape != shape:
            sizes = [f"{width}x{height}" for height, width in (values.shape, shape)]
            problem = f"a mask of {sizes[0]} pixels, its image has {sizes[1]}"
            raise ImageFileError(self.path, problem, "Draw or export the mask at the size of its image")
        lesion = values != 0
        if len(np.unique(values[lesion])) > 1 or not np.isfinite(values).all() or (values < 0).any():
            problem = f"not a binary mask (values from {values.min():g} to {values.max():g}, expected 0 and one other)"
            raise ImageFileError(self.path, problem, "Write it as 0 (background) and 255 (lesion), not as JPEG")
        return np.ascontiguousarray(lesion)

    @property
    def report_name(self) -> str:
        """How reports name the file."""
        return self.shown or str(self.path)


def report_name(source: Any) -> str:
    """How reports may name the file of a source: its ``report_name``, if it has one, else the file's name alone."""
    named = getattr(source, "report_name", None)
    if named is not None:
        return str(named)
    path: Path | None = getattr(source, "path", None) or next(iter(getattr(source, "paths", ())), None)
    return "" if path is None else path.name


def _pixel_mm(path: Path, meta: dict[str, Any]) -> float | None:
    """The distance of pixels in mm; None where the file says none, as the unit matrix does."""
    if "affine" not in meta:
        return None
    spacing = np.linalg.norm(np.asarray(meta["affine"], dtype=float)[:3, :2], axis=0)
    if not np.isclose(spacing[0], spacing[1], rtol=_ASPECT_TOLERANCE):
        found = f"pixels of {spacing[0]:.3g} by {spacing[1]:.3g} mm, expected square ones"
        raise ImageFileError(path, found, "Resample the image to square pixels, or leave it out")
    return round(float(spacing[0]), 6) if 0 < spacing[0] != 1 else None


def _header_window(path: Path) -> tuple[float, float] | None:
    """The window in the values of ``bundle.reader``, which turns inverse grey scales round within their range."""
    from bundle.dicom import bright_window_of
    from bundle.dicom.decoding import opened

    return bright_window_of(opened(path, pixels=False))
