"""Write a virtual DES in the same kind of file, on the same grid and with the same sample depth as its source.

MONAI's ``SaveImage`` writes every result in one format and one data type chosen beforehand. A folder of mammograms may
hold many kinds of file, so the kind, depth and geometry are read from the header of each source here; the pixels are
written by Pillow, nibabel and itk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from bundle.files import naming
from bundle.memory_order import in_rows
from bundle.reader import SUFFIXES, file_suffix

Samples = NDArray[np.generic]
FloatImage = NDArray[np.float32]
FormatWriter = Callable[[FloatImage, Path, Path], None]

_EXIF_ORIENTATION = 0x0112
_DEEP_PIL_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}


def to_samples(pred: FloatImage, source_dtype: DTypeLike) -> Samples:
    """Scale a prediction to the sample depth of its source.

    Args:
        pred: ``(W, H)`` virtual DES in 0..255; values outside are clipped.
        source_dtype: data type of the source's pixels.

    Returns:
        ``(W, H)``: float32 in [0, 1] for a floating point source, uint8 (0..255) for a source of one byte a pixel,
        else uint16 over the full range 0..65535.

    Raises:
        ValueError: the prediction holds NaN or infinite values.
    """
    if not np.isfinite(pred).all():
        raise ValueError("the prediction holds NaN or infinite values; check the weights and, if it is on, AMP")
    clipped = np.clip(pred, 0, 255)
    dtype = np.dtype(source_dtype)
    if dtype.kind == "f":
        return np.asarray(clipped / 255, dtype=np.float32)
    if dtype.itemsize == 1:
        return np.rint(clipped).astype(np.uint8)
    return np.rint(clipped * 257).astype(np.uint16)


def _check_grid(pred: FloatImage, columns: int, rows: int) -> None:
    if pred.shape != (columns, rows):
        raise ValueError(
            f"the prediction has {pred.shape[0]} columns x {pred.shape[1]} rows but the source has {columns} x {rows}; "
            "the postprocessing must undo every change of geometry (Invertd) before the image is written"
        )


def _write_pil(pred: FloatImage, source: Path, target: Path) -> None:
    with Image.open(source) as image:
        _check_grid(pred, *image.size)
        dtype = np.float32 if image.mode == "F" else np.uint16 if image.mode in _DEEP_PIL_MODES else np.uint8
        options = {"dpi": image.info["dpi"]} if image.info.get("dpi") else {}
        # Pillow turns a TIFF upright while it reads; in the other formats the tag alone says which way is up.
        orientation = None if image.format == "TIFF" else image.getexif().get(_EXIF_ORIENTATION)
    if orientation:
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        options["exif"] = exif
    if target.suffix.lower() in {".jpg", ".jpeg"}:
        options["quality"] = 95
    Image.fromarray(in_rows(to_samples(pred, dtype).T)).save(target, **options)


def _write_nifti(pred: FloatImage, source: Path, target: Path) -> None:
    image = nibabel.load(source)
    if not isinstance(image, nibabel.Nifti1Image):
        raise TypeError(f"expected a NIfTI file, found {type(image).__name__}; convert it to .nii or .nii.gz")
    columns, rows = (*image.shape, 1)[:2]
    _check_grid(pred, columns, rows)
    samples = to_samples(pred, image.get_data_dtype()).reshape(image.shape)
    header = image.header.copy()
    header.set_data_dtype(samples.dtype)
    header.set_slope_inter(1, 0)
    # Free text of the scanner describes the source and may name the patient.
    header["descrip"], header["aux_file"], header["cal_min"], header["cal_max"] = b"virtual DES", b"", 0, 0
    header.extensions.clear()
    nibabel.save(type(image)(samples, image.affine, header), target)


def _write_itk(pred: FloatImage, source: Path, target: Path) -> None:
    import itk  # slow to import, and needed for these files alone

    header = itk.ImageIOFactory.CreateImageIO(str(source), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("itk finds no reader for this file; it is damaged or not what its suffix says")
    header.SetFileName(str(source))
    header.ReadImageInformation()
    dimensions = header.GetNumberOfDimensions()
    size = [header.GetDimensions(axis) for axis in range(dimensions)]
    _check_grid(pred, size[0], size[1])
    component = header.GetComponentTypeAsString(header.GetComponentType())
    dtype = np.float32 if component in {"float", "double"} else np.uint8 if component.endswith("char") else np.uint16
    # numpy's first axis is itk's last one
    image = itk.image_from_array(in_rows(to_samples(pred, dtype).T).reshape(size[::-1]))
    image.SetSpacing([header.GetSpacing(axis) for axis in range(dimensions)])
    image.SetOrigin([header.GetOrigin(axis) for axis in range(dimensions)])
    # the ImageIO lists the direction cosines of each axis: the columns of the image's direction matrix
    image.SetDirection(itk.matrix_from_array(np.array([header.GetDirection(axis) for axis in range(dimensions)]).T))
    itk.imwrite(image, str(target), compression=True)


FORMAT_WRITERS: dict[str, FormatWriter] = {"pillow": _write_pil, "nibabel": _write_nifti, "itk": _write_itk}
#: Suffixes of the files that can be written: those that the reader knows, but for DICOM.
WRITABLE_SUFFIXES = tuple(suffix for suffix, library in SUFFIXES.items() if library in FORMAT_WRITERS)


def split_name(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file name as the reader sees it: ``a.1.nii.gz`` -> ``("a.1", ".nii.gz")``."""
    name, length = path.name.strip(), len(file_suffix(path))
    return name[: len(name) - length], name[len(name) - length :]


def write_like_source(pred: FloatImage, source: Path, target: Path) -> None:
    """Write ``pred`` to ``target``, in the file format, sample depth, spacing and orientation of ``source``.

    The file appears under its name only when it is complete: it is written into a hidden folder beside the target and
    then renamed. A detached header (``.mhd``, ``.nhdr``)
    has its pixels in a second file, which is put in place first.

    Args:
        pred: ``(W, H)`` virtual DES in 0..255 on the grid of the source.
        source: the low-energy image that ``pred`` was made from.
        target: file to write, with the suffix of the source.

    Raises:
        ValueError: the format cannot be written, or ``pred`` does not lie on the grid of the source or is not finite.
        OSError: the source cannot be read or the target cannot be written; of a full disk with the target's name.
    """
    suffix = file_suffix(source)
    if suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f"files of type {suffix!r} cannot be written; expected {' '.join(WRITABLE_SUFFIXES)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.partial"
    try:
        with naming(target):
            _write_parts(FORMAT_WRITERS[SUFFIXES[suffix]], pred, source, partial / target.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_parts(write: FormatWriter, pred: FloatImage, source: Path, unfinished: Path) -> None:
    partial = unfinished.parent
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir(parents=True)
    write(pred, source, unfinished)
    parts = sorted(partial.iterdir(), key=lambda file: file.name == unfinished.name)
    for part in parts:
        with part.open("r+b") as file:
            os.fsync(file.fileno())
    for part in parts:
        part.replace(partial.parent / part.name)
