"""Where the columns and rows of NIfTI, NRRD and MetaImage files run, as far as their headers tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.reader import SUFFIXES, ImageFileError, file_suffix
from bundle.volume_header import require_sound_header

__all__ = ["direction_of", "require_same"]

_LIKENESS = 0.9
"""Cosine of the largest angle between directions that count as the same."""
_DAMAGED = "The file is damaged: copy it again from its source, or leave the case out"
_REMEDY = "Write both in one direction, or without directions: pixels are taken in stored order, rows from the top"


def direction_of(path: Path) -> tuple[float, ...] | None:
    """The unit vectors along columns and rows (to the right, to the front, upwards), from the header alone.

    None for formats without directions, and for the unit matrix, which tools write where they know nothing.

    Raises:
        ImageFileError: the header is damaged.
    """
    library = SUFFIXES[file_suffix(path)]
    if library not in ("nibabel", "itk"):
        return None
    try:
        matrix = _nifti(path) if library == "nibabel" else _itk(path)
    except ImageFileError:
        raise
    except Exception as error:  # the libraries raise whatever they like
        raise ImageFileError(path, f"its header cannot be read ({type(error).__name__})", _DAMAGED) from error
    if matrix is None or np.array_equal(matrix, np.eye(3)[:, :2]):
        return None
    if library == "itk":  # it counts to the left and to the back
        matrix = matrix * np.array([[-1.0], [-1.0], [1.0]])
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(lengths).all() or not lengths.all():
        return None
    return tuple(float(value) for value in (matrix / lengths).T.ravel())


def require_same(path: Path, own: tuple[float, ...] | None, other: tuple[float, ...] | None, image: str) -> None:
    """Refuse a file whose pixels run another way than those of its image.

    Args:
        path: the file.
        own: its direction.
        other: that of the image.
        image: what the image is called in the message.

    Raises:
        ImageFileError: both directions are known, and differ.
    """
    if own is not None and other is not None:
        cosines = (np.reshape(own, (2, 3)) * np.reshape(other, (2, 3))).sum(axis=1)
        if cosines.min() < _LIKENESS:
            raise ImageFileError(path, f"stored in another direction than {image}", _REMEDY)


def _nifti(path: Path) -> NDArray[np.float64] | None:
    """The first two columns of the affine; None where the header codes say that there is none."""
    import nibabel

    image: Any = nibabel.load(path)
    if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
        return None
    return np.asarray(image.affine, dtype=np.float64)[:3, :2]


def _itk(path: Path) -> NDArray[np.float64]:
    """The first two columns of direction times spacing."""
    import itk

    require_sound_header(path)
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    header.SetFileName(str(path))
    header.ReadImageInformation()
    matrix = np.zeros((3, 2))
    for axis in range(2):
        own = list(header.GetDirection(axis))[:3]
        matrix[: len(own), axis] = np.array(own) * header.GetSpacing(axis)
    return matrix
