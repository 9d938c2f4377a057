"""How large a pixel is."""

from __future__ import annotations

from pydicom import Dataset

from bundle.dicom.header import floats, number

__all__ = ["pixel_mm_of", "spacing_of"]

#: Magnification that a mammography unit can have; anything else in the attribute is a slip.
_MAGNIFICATION = (1.0, 3.0)


def _pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    found = floats(header, keyword)
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def spacing_of(header: Dataset) -> tuple[float, float] | None:
    """The distance of rows and the distance of columns in mm, in the breast as far as the header tells.

    PixelSpacing where it says more than ImagerPixelSpacing, that is where it was calibrated. Else ImagerPixelSpacing,
    measured at the detector, divided by EstimatedRadiographicMagnificationFactor (about 1.05 in contact views, 1.5 to
    2 in magnified ones) where that is given. Else NominalScannedPixelSpacing of a film.
    """
    calibrated, detector = _pair(header, "PixelSpacing"), _pair(header, "ImagerPixelSpacing")
    if detector is not None and calibrated in (None, detector):
        factor = number(header, "EstimatedRadiographicMagnificationFactor") or 1.0
        factor = factor if _MAGNIFICATION[0] <= factor <= _MAGNIFICATION[1] else 1.0
        return detector[0] / factor, detector[1] / factor
    return calibrated or _pair(header, "NominalScannedPixelSpacing")


def pixel_mm_of(header: Dataset) -> float | None:
    """The distance of neighbouring pixels in mm, None where unknown. See ``spacing_of``; the pixels must be square."""
    spacing = spacing_of(header)
    return None if spacing is None else (spacing[0] + spacing[1]) / 2


def aspect_of(header: Dataset) -> float:
    """Distance of rows divided by distance of columns: 1 for square pixels, and where nothing is said."""
    spacing = spacing_of(header) or _pair(header, "PixelAspectRatio") or (1.0, 1.0)
    return spacing[0] / spacing[1]
