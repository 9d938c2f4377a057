"""Find the scale and shift that bring the DES onto the LE image of a view. Arrays are (H, W), row 0 on top.

The two images of a view show the same breast at the same moment, but archives crop, shrink or shift them apart. The map
sought is the one with the largest sum of two figures, both within the common field of view:

- the overlap of the two breasts, as intersection over union (IoU);
- the agreement of the directions of edges. With the gradient g as a complex number, z = g^2 / (|g|^2 + eps^2) has the
  direction of an edge, whatever its contrast (vessels are bright in both images, fat is not), and the agreement is
  the real part of the normalised scalar product of the two z (normalised gradient fields: Haber and Modersitzki,
  Intensity gradient based registration and fusion of multi-modal images, 2006).

The outline alone leaves the scale open by some percent, for much of it is cut off by the borders of the images.
A tiny common field of view would overlap perfectly: it must hold `LEAST_KEPT` of both breasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize

from bundle.neighbourhoods import all_around
from scripts.prepare.silhouette import reduced, silhouette

__all__ = ["ALIGNED_OVERLAP", "LARGEST_SCALE", "LEAST_KEPT", "MARGIN", "Alignment", "align"]

LEAST_KEPT = 0.85
"""Part of either breast that the common field of view must hold. It was above 0.9 in well aligned real pairs."""
LARGEST_SCALE = 1.25
"""Scales between its inverse and this are tried."""
MARGIN = 0.01
"""What another scale than 1 must add to the sum of both figures: archives crop more often than they shrink."""
ALIGNED_OVERLAP = 0.995
"""Images of one size whose breasts overlap by this as they are count as aligned. Two crops of one size that lay 94
pixels apart still overlapped by 0.957."""
_RIM = 0.04
"""Width of the rim, as part of the longer side, whose edges do not count at the finest resolution: they lead the search
to the right place, but thin tissue at the skin may be black in the LE image alone."""
_COARSE_SCALES = tuple(float(scale) for scale in np.geomspace(1 / LARGEST_SCALE, LARGEST_SCALE, 13))
_COARSE, _MIDDLE, _FINE = 96, 256, 512


@dataclass(frozen=True)
class Alignment:
    """How the DES lies on the LE image: its pixel (x, y) is at (scale * x + shift_x, scale * y + shift_y).

    All in pixels of the source images; whole numbers are pixel centres. At scale 1 the shifts are whole numbers, so
    that grey values need no interpolation.

    Attributes:
        scale: LE pixels a DES pixel is wide.
        shift_x: where the first DES column lies, in LE columns.
        shift_y: where the first DES row lies, in LE rows.
        overlap_before: IoU of the two breasts within the common field of view, with the DES laid onto the LE image at
            scale 1 from the top corner at the chest wall.
        overlap_after: the same with this scale and shift.
        registered: False if the DES is laid on as for ``overlap_before``.
    """

    scale: float
    shift_x: float
    shift_y: float
    overlap_before: float
    overlap_after: float
    registered: bool


class _Map(NamedTuple):
    scale: float
    x: float
    y: float

    def shrunk(self, factor: float) -> _Map:
        """The same map between images shrunk by ``factor``; pixel edges, not centres, are what shrinks."""
        half = 0.5 * (1 - self.scale)
        return _Map(self.scale, (self.x + half) * factor - half, (self.y + half) * factor - half)

    def at_unit_scale(self, shape: tuple[int, ...]) -> _Map:
        """The shift at scale 1 that leaves the middle of a DES of this shape where it is."""
        grown = self.scale - 1
        return _Map(1.0, self.x + grown * shape[1] / 2, self.y + grown * shape[0] / 2)


class _Scene(NamedTuple):
    """What is compared: breast 0 to 1 and edge directions, (H, W) each, and the area of the breast."""

    breast: NDArray[np.float32]
    edges: NDArray[np.complex64]
    area: float


class _Pair(NamedTuple):
    """LE and DES of a view, shrunk from the source images by ``factor``."""

    first: _Scene
    second: _Scene
    factor: float


def align(
    image: NDArray[Any], label: NDArray[Any], laterality: str, aligned_overlap: float = ALIGNED_OVERLAP
) -> Alignment:
    """Find the scale and shift that bring the DES onto the LE image.

    Args:
        image: (H, W) LE image.
        label: (h, w) DES image of the same view.
        laterality: ``L``: the chest wall is at the left edge of both; ``R``: at the right.
        aligned_overlap: images of one size that overlap by this are left as they are; 0: all are; above 1: none is.

    Returns:
        The map found, or the one before if that scores better. The caller judges ``overlap_after``.
    """
    longer = max(*image.shape, *label.shape)
    fine = min(1.0, _FINE / longer)
    images = [reduced(one, fine) for one in (image, label)]
    breasts = [silhouette(one) for one in images]
    corner = _Map(1.0, float(image.shape[1] - label.shape[1]) if laterality == "R" else 0.0, 0.0)
    before = _overlap(breasts[0], breasts[1], corner.shrunk(fine))
    empty = not breasts[0].any() or not breasts[1].any()
    if empty or (image.shape == label.shape and before >= aligned_overlap):
        return Alignment(*corner, before, before, registered=False)
    factors = [min(fine, size / longer) for size in (_COARSE, _MIDDLE, _FINE)]
    coarse, middle, finest = (
        _pair(images, breasts, factor / fine, rim)._replace(factor=factor)
        for factor, rim in zip(factors, (0.0, 0.0, _RIM), strict=True)
    )
    found = _searched(coarse, middle, finest, corner)
    if found is None:
        return Alignment(*corner, before, before, registered=False)
    return Alignment(*found, before, _overlap(breasts[0], breasts[1], found.shrunk(fine)), registered=True)


def _pair(images: list[NDArray[np.float32]], breasts: list[NDArray[np.bool_]], factor: float, rim: float) -> _Pair:
    first, second = (_scene(one, breast, factor, rim) for one, breast in zip(images, breasts, strict=True))
    return _Pair(first, second, factor)


def _scene(image: NDArray[np.float32], breast: NDArray[np.bool_], factor: float, rim: float) -> _Scene:
    small, inside = reduced(image, factor), reduced(breast, factor)
    down, right = (ndimage.gaussian_filter(small, 1.0, order=order) for order in ((1, 0), (0, 1)))
    gradient = right + 1j * down
    strength = np.abs(gradient)
    usual = float((strength * inside).sum()) / max(float(inside.sum()), 1.0)
    edges = gradient**2 / (strength**2 + max(usual, 1e-6) ** 2)
    if rim:
        width = max(1, round(rim * max(inside.shape)))
        edges *= all_around(inside > 0.5, width, width, "nearest")
    return _Scene(inside, edges.astype(np.complex64), float(inside.sum()))


def _searched(coarse: _Pair, middle: _Pair, fine: _Pair, corner: _Map) -> _Map | None:
    """The best map between the source images, or None if it is worse than ``corner``."""
    start = _coarse(coarse).shrunk(middle.factor / coarse.factor)
    start = _climbed(middle, start, 2.0, free=True)[1].shrunk(fine.factor / middle.factor)
    best, found = _climbed(fine, start, 1.0, free=True)
    unit, plain = _climbed(fine, found.at_unit_scale(fine.second.breast.shape), 1.0, free=False)
    if max(best, unit) < _score(fine, corner.shrunk(fine.factor)):
        return None
    if unit < best - MARGIN:
        return found.shrunk(1 / fine.factor)
    plain = plain.shrunk(1 / fine.factor)
    return _Map(1.0, float(round(plain.x)), float(round(plain.y)))


def _climbed(pair: _Pair, start: _Map, step: float, *, free: bool) -> tuple[float, _Map]:
    """The best map near ``start``, with its score; scale and shift are about the middle of the DES."""
    middle = np.array(pair.second.breast.shape[::-1]) / 2

    def at(values: NDArray[np.float64]) -> _Map:
        scale = start.scale + (values[2] if free else 0.0) / middle.max()
        x, y = np.array([start.x, start.y]) + values[:2] - (scale - start.scale) * middle
        return _Map(float(scale), float(x), float(y))

    def worse(values: NDArray[np.float64]) -> float:
        return -_score(pair, at(values))

    count = 3 if free else 2
    simplex = np.vstack([np.zeros(count), step * np.eye(count)])
    result = optimize.minimize(
        worse,
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 0.05, "fatol": 1e-4, "maxfev": 80},
    )
    return -float(result.fun), at(result.x)


def _common(shape: tuple[int, ...], label_shape: tuple[int, ...], found: _Map) -> tuple[slice, slice]:
    """The LE rows and columns whose centre lies in the DES; of large images every second."""
    step = 2 if max(shape) > _MIDDLE else 1
    spans = []
    for length, label_length, shift in zip(shape, label_shape, (found.y, found.x), strict=True):
        low = max(0, math.ceil(shift - 0.5 * found.scale))
        high = min(length, math.floor(shift + found.scale * (label_length - 0.5)) + 1)
        spans.append(slice(low, max(low, high), step))
    return spans[0], spans[1]


def _overlap(breast: NDArray[np.bool_], label_breast: NDArray[np.bool_], found: _Map) -> float:
    """IoU of the breasts within the common field of view; 0 without one."""
    rows, columns = _common(breast.shape, label_breast.shape, found)
    first = breast[rows, columns]
    if not first.size:
        return 0.0
    second = _taken(label_breast.astype(np.float32), rows, columns, found) >= 0.5
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


def _taken(values: NDArray[Any], rows: slice, columns: slice, found: _Map) -> NDArray[Any]:
    """The DES at these LE rows and columns, by linear interpolation."""
    for axis, (span, shift) in enumerate(((rows, found.y), (columns, found.x))):
        last = values.shape[axis] - 1
        place = ((np.arange(span.start, span.stop, span.step) - shift) / found.scale).clip(0, last)
        low = np.minimum(place.astype(np.intp), max(last - 1, 0))
        part = (place - low).astype(np.float32)
        part = part[:, None] if axis == 0 else part
        lower = values.take(low, axis)
        values = lower + part * (values.take(np.minimum(low + 1, last), axis) - lower)
    return values


def _score(pair: _Pair, found: _Map) -> float:
    """Overlap of the breasts plus agreement of the edges; below 0 where too little of a breast is in both images."""
    first, second = pair.first, pair.second
    rows, columns = _common(first.breast.shape, second.breast.shape, found)
    breast, edges = first.breast[rows, columns], first.edges[rows, columns]
    if breast.size < 4 or abs(math.log(max(found.scale, 1e-3))) > math.log(LARGEST_SCALE):
        return -1.0
    label_breast = _taken(second.breast, rows, columns, found)
    label_edges = _taken(second.edges, rows, columns, found)
    own, its = float(breast.sum()), float(label_breast.sum())
    kept = rows.step**2 * min(own / first.area, its / (second.area * found.scale**2))
    if kept < LEAST_KEPT:
        return float(kept) - 1.0
    both = float(np.minimum(breast, label_breast).sum())
    product = float(np.vdot(edges, label_edges).real)
    norm = float(np.linalg.norm(edges) * np.linalg.norm(label_edges))
    return both / (own + its - both) + (product / norm if norm else 0.0)


def _coarse(pair: _Pair) -> _Map:
    """The best of all shifts at all scales."""
    found = []
    for scale in _COARSE_SCALES:
        height, width = (max(2, round(length * scale)) for length in pair.second.breast.shape)
        about = _Map(scale, 0.5 * (scale - 1), 0.5 * (scale - 1))
        breast, edges = (
            _taken(one, slice(0, height, 1), slice(0, width, 1), about)
            for one in (pair.second.breast, pair.second.edges)
        )
        score, x, y = _best_shift(pair.first, _Scene(breast, edges, float(breast.sum())))
        found.append((score, _Map(scale, x + about.x, y + about.y)))
    return max(found)[1]


def _best_shift(first: _Scene, second: _Scene) -> tuple[float, int, int]:
    """The score of all whole shifts at once, by correlation; returns the best one and its x and y."""
    shape = [fft.next_fast_len(a + b - 1) for a, b in zip(first.breast.shape, second.breast.shape, strict=True)]

    def spectra(scene: _Scene) -> list[NDArray[Any]]:
        power = np.abs(scene.edges) ** 2
        return [fft.fft2(one, shape) for one in (scene.breast, scene.edges, power, np.ones_like(power))]

    own, its = spectra(first), [np.conj(one) for one in spectra(second)]

    def correlated(one: int, other: int) -> NDArray[Any]:
        return np.asarray(fft.ifft2(own[one] * its[other]).real)

    mine, yours, both = correlated(0, 3), correlated(3, 0), correlated(0, 0)
    overlap = both / np.maximum(mine + yours - both, 1.0)
    norm = np.sqrt(np.maximum(correlated(2, 3), 1.0) * np.maximum(correlated(3, 2), 1.0))
    kept = np.minimum(mine / first.area, yours / second.area)
    score = np.where(kept >= LEAST_KEPT, overlap + correlated(1, 1) / norm, kept - 1.0)
    y, x = (int(one) for one in np.unravel_index(int(score.argmax()), score.shape))
    height, width = first.breast.shape
    return float(score[y, x]), x if x < width else x - shape[1], y if y < height else y - shape[0]
