"""Random textures that are functions of position in mm, so that every pixel grid samples the same one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

FIELD_OF_VIEW_MM = 200.0
"""Side of every (square) phantom image."""

FINEST_MM = 1.6
"""Shortest period of any texture."""

Array = NDArray[np.float64]


def power_law_field(
    rng: np.random.Generator, size: int, beta: float = 3.0, low_mm: float = 60.0, high_mm: float = FINEST_MM
) -> Array:
    """Draw a Gaussian field whose power spectrum falls as ``f ** -beta``, as measured in mammograms.

    The Fourier coefficients are drawn on one lattice, whatever the image size, and truncated to what the pixels carry.

    Args:
        rng: source of randomness; the number of draws does not depend on ``size``.
        size: pixels per side.
        beta: exponent of the spectrum (mammograms: about 3, Burgess, Med Phys 1999).
        low_mm: longest period; longer ones are as strong as this one.
        high_mm: shortest period; shorter ones are left out.

    Returns:
        (size, size) field of mean 0 and, over the whole lattice, variance 1.
    """
    finest = int(FIELD_OF_VIEW_MM / high_mm)
    rows, columns = np.arange(-finest, finest + 1), np.arange(finest + 1)
    drawn = rng.standard_normal((2, rows.size, columns.size))
    cycles = np.hypot(rows[:, None], columns[None, :])
    amplitude = np.maximum(cycles, FIELD_OF_VIEW_MM / low_mm) ** (-beta / 2)
    amplitude[(cycles == 0) | (cycles > finest)] = 0
    # a coefficient off column 0 stands for itself and its conjugate; on column 0 only the real part survives
    amplitude /= np.sqrt(4 * np.sum(amplitude[:, 1:] ** 2) + 2 * np.sum(amplitude[:, 0] ** 2))
    keep = min(finest, (size - 1) // 2)
    kept = slice(finest - keep, finest + keep + 1)
    coefficients = (drawn[0, kept, : keep + 1] + 1j * drawn[1, kept, : keep + 1]) * amplitude[kept, : keep + 1]
    half_pixel = np.exp(1j * np.pi * np.arange(-keep, keep + 1) / size)  # pixel i lies at (i + 1/2) pitches
    spectrum = np.zeros((size, size // 2 + 1), dtype=np.complex128)
    spectrum[np.arange(-keep, keep + 1) % size, : keep + 1] = coefficients * half_pixel[:, None] * half_pixel[keep:]
    return np.asarray(fft.irfft2(spectrum, s=(size, size), norm="forward"), dtype=np.float64)


def pixel_grid(size: int) -> tuple[Array, Array]:
    """Return x (distance from the chest wall) and y (downwards) of the pixel centres in mm, broadcastable."""
    centres = (np.arange(size) + 0.5) * FIELD_OF_VIEW_MM / size
    return centres[None, :], centres[:, None]


def smooth_step(values: Array) -> Array:
    """Return 0 below 0, 1 above 1 and ``3 v^2 - 2 v^3`` between."""
    clipped = np.clip(values, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), dtype=np.float64)
