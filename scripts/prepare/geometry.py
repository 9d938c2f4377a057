"""Put the LE and the DES image of a view, and their masks, on one grid. Arrays are (H, W), row 0 on top."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scripts.prepare.registration import Alignment, align
from scripts.prepare.silhouette import background_level, silhouette

__all__ = ["Alignment", "align", "common_field", "mask_onto_grid", "onto_grid", "silhouette", "target_shape", "within"]

Shape = tuple[int, int]
_TOLERANCE = 1e-6
"""Part of a pixel by which rounding may place an edge wrongly."""


@dataclass(frozen=True)
class _Axis:
    """One axis of a resampling: where the field of the LE image begins and ends in an array.

    Attributes:
        low: its beginning in pixels of the array, 0 being the outer edge of the first one.
        high: its end.
        length: pixels of the array.
        count: pixels of the target, which share the field evenly.
    """

    low: float
    high: float
    length: int
    count: int

    @property
    def same(self) -> bool:
        """Whether the target pixels are those of the array."""
        return self.low == 0 and self.high == self.length == self.count

    @property
    def margins(self) -> tuple[int, int]:
        """Pixels that the field reaches beyond the array at both ends."""
        return max(0, int(np.ceil(-self.low))), max(0, int(np.ceil(self.high - self.length)))

    def inside(self) -> NDArray[np.bool_]:
        """Which target pixels have their centre in the array."""
        centres = self.low + (np.arange(self.count) + 0.5) * (self.high - self.low) / self.count
        return (centres >= 0) & (centres <= self.length)

    def target(self, pixels: NDArray[np.intp]) -> NDArray[np.intp]:
        """The target pixels that hold the centres of pixels of the array; outside it too."""
        part = (pixels + 0.5 - self.low) / (self.high - self.low)
        return np.asarray(np.floor(part * self.count), dtype=np.intp)


def target_shape(shape: Shape, size: int | None) -> Shape:
    """The (H, W) with ``size`` as its longer side and the aspect of ``shape``; None keeps the shape."""
    if size is None:
        return shape
    factor = size / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def common_field(shape: Shape, label_shape: Shape, alignment: Alignment) -> tuple[slice, slice]:
    """The rows and the columns of the LE image that the DES shows too.

    What only one of the two images shows is no pair: black beside the DES would teach that no breast is there.

    Args:
        shape: (H, W) of the LE image.
        label_shape: (H, W) of the DES.
        alignment: how the DES lies on the LE image.
    """

    def span(number: int, shift: float) -> slice:
        # Pixel centres are at whole numbers: an image reaches half a pixel of its own beyond the outer ones.
        low = math.ceil(shift - alignment.scale / 2 + 0.5 - _TOLERANCE)
        high = math.floor(shift + alignment.scale * (label_shape[number] - 0.5) - 0.5 + _TOLERANCE)
        return slice(max(0, low), min(shape[number], high + 1))

    return span(0, alignment.shift_y), span(1, alignment.shift_x)


def within(field: tuple[slice, slice], alignment: Alignment) -> tuple[slice, slice]:
    """The rows and the columns of the DES whose centre lies in a field of the LE image."""

    def span(pixels: slice, shift: float) -> slice:
        low, high = ((edge - 0.5 - shift) / alignment.scale for edge in (pixels.start, pixels.stop))
        return slice(max(0, math.ceil(low - _TOLERANCE)), max(0, math.floor(high + _TOLERANCE) + 1))

    return span(field[0], alignment.shift_y), span(field[1], alignment.shift_x)


def onto_grid(
    values: NDArray[Any],
    alignment: Alignment | None,
    source_shape: Shape,
    target_shape: Shape,
    background: float | None = None,
) -> NDArray[np.float32]:
    """Resample an image onto the pixels that cover the field of the LE image.

    One linear interpolation with anti-aliasing: the values are weighted by a triangle as wide as two target pixels, or
    two of the image's own where these are wider. Values are exact where the grids agree.

    Args:
        values: (H, W) grey values of any number type.
        alignment: how they lie on the LE image; None for the LE image itself.
        source_shape: (H, W) of the LE image.
        target_shape: (H, W) of the result.
        background: what is beside the image; default: its air, as ``background_level`` finds it.
    """
    rows, columns = _axes(_shape(values), alignment, source_shape, target_shape)
    if rows.same and columns.same:
        return values.astype(np.float32)
    padded = values.astype(np.float32)
    if any(rows.margins) or any(columns.margins):
        padded = np.pad(padded, (rows.margins, columns.margins), mode="edge")
    (top, left), shape = (rows.margins[0], columns.margins[0]), target_shape[::-1]
    box = columns.low + left, rows.low + top, columns.high + left, rows.high + top
    resampled = np.asarray(Image.fromarray(padded).resize(shape, Image.Resampling.BILINEAR, box), dtype=np.float32)
    inside = rows.inside()[:, None] & columns.inside()
    if inside.all():
        return resampled
    beside = background_level(values) if background is None else background
    return np.where(inside, resampled, np.float32(beside))


def mask_onto_grid(
    mask: NDArray[np.bool_], alignment: Alignment | None, source_shape: Shape, target_shape: Shape
) -> NDArray[np.bool_]:
    """Resample a mask as ``onto_grid`` does its image.

    A pixel is lesion where half of its weight is. Each region keeps at least one pixel, the one that holds most of it,
    unless all of it lies beside the LE image.
    """
    rows, columns = axes = _axes(_shape(mask), alignment, source_shape, target_shape)
    if rows.same and columns.same:
        return mask.astype(np.bool_)
    result = onto_grid(mask, alignment, source_shape, target_shape, 0.0) >= 0.5
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    at = np.nonzero(mask)
    y, x = (axis.target(pixels) for axis, pixels in zip(axes, at, strict=True))
    within = (y >= 0) & (y < rows.count) & (x >= 0) & (x < columns.count)
    regions, cells = labels[at][within], (y * columns.count + x)[within]
    kept = np.zeros(count + 1, dtype=np.bool_)
    kept[regions[result.ravel()[cells]]] = True
    for region in np.setdiff1d(regions, np.flatnonzero(kept)):
        own, parts = np.unique(cells[regions == region], return_counts=True)
        result.flat[own[parts.argmax()]] = True
    return result


def _shape(values: NDArray[Any]) -> Shape:
    height, width = values.shape
    return height, width


def _axes(shape: Shape, alignment: Alignment | None, source_shape: Shape, target_shape: Shape) -> tuple[_Axis, _Axis]:
    """The row axis and the column axis of an array of this shape."""
    if alignment is None:
        scale, shifts = 1.0, (0.0, 0.0)
        source_shape = shape
    else:
        scale, shifts = alignment.scale, (alignment.shift_y, alignment.shift_x)

    def axis(number: int) -> _Axis:
        # Pixel centres are at whole numbers: the outer edge of the first pixel is at -0.5.
        low, high = ((edge - shifts[number]) / scale + 0.5 for edge in (-0.5, source_shape[number] - 0.5))
        return _Axis(low, high, shape[number], target_shape[number])

    return axis(0), axis(1)
