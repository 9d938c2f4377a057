"""From tissue maps to the two images a CESM unit stores: exposure, recombination, display scaling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from bundle.phantom.beams import Beam, Site
from bundle.phantom.fields import FIELD_OF_VIEW_MM, Array

LABEL_WINDOW = (2105.0, 380.0)
"""DICOM window centre and width of the DES."""
IMAGE_LIMITS = (1936.0, 2786.0)
"""Ends of the window in which the LE is presented: it is stored as displayed, not as measured."""
IMAGE_TOP = 4095
"""Stored value of the window's upper end; the lower end is the background's 0."""
DES_ZERO, DES_PER_IODINE = 2048.0, 36.0
"""Stored value of a DES without iodine, and what 1 mg/cm2 of iodine adds."""
LE_ZERO, LE_PER_GLAND = 2060.0, 130.0
"""Value of adipose tissue in the LE before its window is applied, and what 1 cm of gland adds."""
SCATTER_LOW, SCATTER_HIGH, SCATTER_MM = 0.10, 0.15, 18.0
"""Scatter-to-primary ratio of the two exposures behind the grid, and the reach of scatter."""
MOTION_MM = 0.15
"""Standard deviation of the shift between the two exposures that registration leaves, per axis (0.2 px at 256)."""
NOISE_PIXELS = 1.28
"""Pixels per mm at which a site's noise is stated (256 px per image); finer pixels catch fewer photons each."""
EDGE_BLUR_MM, EDGE_LEFT_LE, EDGE_LEFT_DES = 14.0, 0.30, 0.18
"""Periphery equalisation: its smoothing, and the share of the edge's thickness signal that it leaves."""


def attenuation(beam: Beam, thickness: Array, gland: Array, iodine: Array) -> Array:
    """Return ``-ln(signal)`` of the primary beam behind ``thickness`` cm, ``gland`` cm and ``iodine`` mg/cm2."""
    return np.asarray(beam.thickness * thickness + beam.gland * gland + beam.iodine * iodine, dtype=np.float64)


def recombine(site: Site, low: Array, high: Array) -> Array:
    """Return ``high - w * low`` (attenuations): gland cancels, iodine stays at ``site.iodine_signal`` per mg/cm2."""
    return high - site.weight * low


def blur(image: Array, sigma_mm: float) -> Array:
    """Return ``image`` blurred by a Gaussian of ``sigma_mm``, zero outside (FFT, any width costs the same)."""
    size = image.shape[0]
    sigma = sigma_mm * size / FIELD_OF_VIEW_MM
    side = int(fft.next_fast_len(size + int(np.ceil(3 * sigma)), real=True))
    falloff = np.exp(-2 * (np.pi * sigma * fft.fftfreq(side)) ** 2)
    spectrum = fft.rfft2(image, s=(side, side)) * falloff[:, None] * falloff[None, : side // 2 + 1]
    return np.asarray(fft.irfft2(spectrum, s=(side, side))[:size, :size], dtype=np.float64)


def scattered(primary: Array, inside: NDArray[np.bool_], share: Array, scatter: float) -> Array:
    """Return the attenuation that is measured with scatter: ``-ln(signal + scatter * local mean of signal)``."""
    signal = np.exp(-primary)
    veil = scatter * blur(signal * inside, SCATTER_MM) / np.maximum(share, 0.3)
    return np.asarray(-np.log(signal + veil), dtype=np.float64)


def expose(rng: np.random.Generator, site: Site, measured: Array, shift_mm: Array) -> Array:
    """Return what the detector records: motion (y, x in mm since the first exposure), point spread and noise."""
    size = measured.shape[0]
    pixels = size / FIELD_OF_VIEW_MM
    if np.any(shift_mm):
        measured = ndimage.shift(measured, shift_mm * pixels, order=1, mode="nearest")
    measured = ndimage.gaussian_filter(measured, site.psf_mm * pixels, mode="nearest")
    return np.asarray(
        measured + site.noise * pixels / NOISE_PIXELS * rng.standard_normal(measured.shape), dtype=np.float64
    )


def edge_signal(thickness: Array, inside: NDArray[np.bool_]) -> Array:
    """Return thickness minus its local mean inside the breast (cm): what an equalised periphery still shows."""
    share = blur(inside.astype(np.float64), EDGE_BLUR_MM)
    return np.asarray((thickness - blur(thickness, EDGE_BLUR_MM) / np.maximum(share, 0.05)) * inside, dtype=np.float64)


def displayed(values: Array) -> Array:
    """Return LE values clipped to their window and stretched to 0..`IMAGE_TOP`, as a unit exports for presentation."""
    low, high = IMAGE_LIMITS
    return np.asarray((np.clip(values, low, high) - low) * (IMAGE_TOP / (high - low)), dtype=np.float64)


def stored(values: Array, inside: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return stored pixel values: at least 1 in the breast, 0 in the background."""
    return np.where(inside, np.clip(np.rint(values), 1, 65535), 0).astype(np.uint16)


def acquire(
    rng: np.random.Generator, site: Site, thickness: Array, gland: Array, iodine: Array
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the stored LE (1..`IMAGE_TOP` in the breast) and DES of one view.

    Args:
        rng: stream of this view's exposures.
        site: beams and detector.
        thickness: cm, 0 outside the breast.
        gland: gland-equivalent cm.
        iodine: mg/cm2.
    """
    inside = thickness > 0
    share = blur(inside.astype(np.float64), SCATTER_MM)
    low_rng, high_rng, motion_rng = rng.spawn(3)
    exposures, nothing = [], np.zeros_like(thickness)
    for beam, stream, scatter, motion in (
        (site.low, low_rng, SCATTER_LOW, np.zeros(2)),
        (site.high, high_rng, SCATTER_HIGH, motion_rng.normal(0, MOTION_MM, 2)),
    ):
        measured = scattered(attenuation(beam, thickness, gland, iodine), inside, share, scatter)
        fat = scattered(attenuation(beam, thickness, nothing, nothing), inside, share, scatter)
        # the unit is calibrated for scatter: it restores the contrast that a uniform veil takes away
        exposures.append((1 + scatter) * expose(stream, site, measured - fat, motion))
    edge = edge_signal(thickness, inside)
    low, high = exposures
    low_shown = low + EDGE_LEFT_LE * site.low.thickness * edge
    des_shown = recombine(site, low, high) + EDGE_LEFT_DES * site.thickness_signal * edge
    image = LE_ZERO + LE_PER_GLAND * low_shown / site.low.gland
    label = DES_ZERO + DES_PER_IODINE * des_shown / site.iodine_signal
    return stored(displayed(image), inside), stored(label, inside)
