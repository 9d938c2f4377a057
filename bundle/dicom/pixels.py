"""Read one DICOM mammogram: its grey values as shown, dense tissue bright, and what the header says about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from bundle.dicom.chest_wall import chest_wall_edge
from bundle.dicom.decoding import decoded, opened
from bundle.dicom.header import first_item, is_big_endian, number, text
from bundle.dicom.identity import (
    Side,
    is_partial,
    laterality_of,
    names_feet_or_head,
    orientation_of,
    shows_both,
    view_of,
)
from bundle.dicom.padding import padding_mask, with_dark_padding, without_bright_edges
from bundle.dicom.spacing import aspect_of, pixel_mm_of
from bundle.dicom.tables import through_table
from bundle.dicom.voi import shown, window_of
from bundle.image_file_error import ImageFileError

__all__ = ["DicomImage", "bright_window_of", "dicom_image", "grey_values", "read_dicom"]

_ASPECT_TOLERANCE = 0.01
_EDGE_LATERALITY: dict[str, Side] = {"left": "L", "right": "R"}


@dataclass(frozen=True)
class DicomImage:
    """One DICOM mammogram.

    Attributes:
        values: (H, W) grey values as stored in the file, dense tissue bright; padding has the darkest value.
        window: display window (centre, width) in the units of ``values``, exactly [centre - width / 2,
            centre + width / 2]; None where the file gives none.
        pixel_mm: distance of neighbouring pixels in the breast in mm, None where unknown (see ``pixel_mm_of``).
        laterality: ``L`` or ``R``; from the pixels where no attribute says so, which ``notes`` then tells.
        view: ``CC``, ``MLO`` or another text; None where unknown.
        mirrored: left and right must be exchanged to have the chest wall of a left breast at the left edge and of a
            right breast at the right edge.
        upside_down: top and bottom must be exchanged.
        notes: what was repaired, ignored or guessed.
        header: all attributes but the pixels.
    """

    values: NDArray[Any]
    window: tuple[float, float] | None
    pixel_mm: float | None
    laterality: Side | None
    view: str | None
    mirrored: bool
    upside_down: bool
    notes: tuple[str, ...]
    header: Dataset


class _Modality(NamedTuple):
    """Values after the modality transformation, and the sum of the largest and smallest value there can be."""

    values: NDArray[Any]
    ends: float
    notes: tuple[str, ...]


def read_dicom(path: str | Path) -> DicomImage:
    """Read one 2-D grey image of a DICOM file. It need not be a low-energy one: ask ``kind_of``.

    The stored values go through the modality LUT or rescale; a VOI LUT or SIGMOID window is applied, a linear window
    is not: it is ``window``. Then MONOCHROME1 and PresentationLUTShape INVERSE are inverted, window included.

    Raises:
        ImageFileError: not DICOM, damaged, no image, several frames, coloured, both breasts, or pixels that are not
            square.
    """
    path = Path(path)
    return dicom_image(opened(path), path)


def dicom_image(header: Dataset, path: str | Path) -> DicomImage:
    """``read_dicom`` of an object that is in memory, which loses its pixel data; ``path`` is for errors."""
    path = Path(path)
    if shows_both(header):
        raise ImageFileError(path, "shows both breasts", "Cut it into one image for each breast, or leave it out")
    stored, notes = decoded(header, path)
    del header.PixelData
    if abs(aspect_of(header) - 1) > _ASPECT_TOLERANCE:
        found = f"pixels {aspect_of(header):.3g} times as high as wide, expected square ones"
        raise ImageFileError(path, found, "Resample the image to square pixels, or leave it out")
    modality = _modality(stored, header)
    image = shown(modality.values, header)
    values, window, inversion = image.values, image.window, _inversion(header)
    if inversion:
        ends = modality.ends if image.top is None else image.top
        values = _inverted(values, ends)
        window = None if window is None else (ends - window[0], window[1])
    values = with_dark_padding(values, padding_mask(stored, header))
    values, strips = without_bright_edges(values)
    notes += (*modality.notes, *image.notes, *_polarity_notes(header))
    notes += (f"{strips} pixels in blank strips at the edges were made dark",) if strips else ()
    way = _way_round(values, header)
    return DicomImage(
        values=values,
        window=window,
        pixel_mm=pixel_mm_of(header),
        laterality=way.laterality,
        view=view_of(header),
        mirrored=way.mirrored,
        upside_down=way.upside_down,
        notes=notes + way.notes,
        header=header,
    )


def grey_values(header: Dataset, path: str | Path) -> NDArray[Any]:
    """(H, W) values after the modality transformation, dense tissue bright, padding dark; no window, no VOI LUT.

    Args:
        header: the object with its pixel data.
        path: the file, for errors.

    Raises:
        ImageFileError: as ``read_dicom``, but pixels may have any aspect.
    """
    stored, _ = decoded(header, Path(path))
    modality = _modality(stored, header)
    values = _inverted(modality.values, modality.ends) if _inversion(header) else modality.values
    return without_bright_edges(with_dark_padding(values, padding_mask(stored, header)))[0]


def bright_window_of(header: Dataset) -> tuple[float, float] | None:
    """``window_of`` in the units of ``grey_values``: turned round where the image is inverted."""
    window = window_of(header)
    if window is None or not _inversion(header):
        return window
    none = np.zeros((1, 1), dtype=np.int32 if number(header, "PixelRepresentation") else np.uint32)
    return _modality(none, header).ends - window[0], window[1]


def _modality(stored: NDArray[Any], header: Dataset) -> _Modality:
    """Apply ModalityLUTSequence, or RescaleSlope and RescaleIntercept where they change anything (then float32)."""
    bits, signed = int(number(header, "BitsStored") or 8 * stored.dtype.itemsize), stored.dtype.kind == "i"
    ends = -1.0 if signed else float(2**bits - 1)
    notes: tuple[str, ...] = ()
    if (table := first_item(header, "ModalityLUTSequence")) is not None:
        try:
            values, top = through_table(stored, table, is_big_endian(header))
        except (TypeError, ValueError) as error:
            notes = (f"the modality LUT cannot be used ({error}): ignored",)
        else:
            return _Modality(values, top, ("modality LUT applied",))
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept") or 0.0
    if slope == 0:
        notes += ("RescaleSlope is 0: ignored",)
    if not slope or (slope, intercept) == (1.0, 0.0):
        return _Modality(stored, ends, notes)
    scaled = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    return _Modality(scaled, ends * slope + 2 * intercept, notes)


def _inversion(header: Dataset) -> bool:
    monochrome1 = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    return monochrome1 or text(header, "PresentationLUTShape") == "INVERSE"


def _polarity_notes(header: Dataset) -> tuple[str, ...]:
    photometric, shape = text(header, "PhotometricInterpretation"), text(header, "PresentationLUTShape")
    expected = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}.get(photometric, shape)
    if not shape or shape == expected:
        return ()
    known = shape if shape in ("INVERSE", "IDENTITY") else "of an unknown kind"
    return (f"{photometric} with PresentationLUTShape {known}: {'inverted' if _inversion(header) else 'as it is'}",)


def _inverted(values: NDArray[Any], ends: float) -> NDArray[Any]:
    """``ends - values``, in the same number type: it cannot overflow for values within the stored bits."""
    return np.asarray(values.dtype.type(ends) - values, dtype=values.dtype)


class _WayRound(NamedTuple):
    laterality: Side | None
    mirrored: bool
    upside_down: bool
    notes: tuple[str, ...]


def _way_round(values: NDArray[Any], header: Dataset) -> _WayRound:
    """Side and orientation from the attributes, and from the pixels where these are silent or plainly wrong."""
    laterality = laterality_of(header)
    wall, upside_down = orientation_of(header)
    seen = chest_wall_edge(values)
    notes: list[str] = []
    if wall is None:
        notes.append(f"no usable PatientOrientation: the chest wall is seen at the {seen.side} edge")
        wall = seen.side
    elif seen.certain and seen.side != wall and not is_partial(header):
        notes.append(
            f"PatientOrientation has the chest wall at the {wall} edge, the pixels at the {seen.side} one: taken"
        )
        wall = seen.side
        if upside_down and not names_feet_or_head(header):  # a CC view of the other breast has these directions
            notes[-1] += ", and its columns are not believed"
            upside_down = None
    if not seen.certain and notes:
        notes[-1] += " (uncertain)"
    if laterality is None:
        laterality = _EDGE_LATERALITY[wall]
        notes.append(f"no laterality: {laterality} because the chest wall is at the {wall} edge")
    mirrored = _EDGE_LATERALITY[wall] != laterality
    return _WayRound(laterality, mirrored, bool(upside_down), tuple(notes))
