"""The lesion of one view: body (the mask), strands and iodine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bundle.phantom.breast import Breast, Outline
from bundle.phantom.fields import Array, pixel_grid, power_law_field
from bundle.phantom.patient import VIEWS, Lesion

FARTHEST = 2.5
"""No lesion reaches farther from its centre than this many radii, spicules included."""
CORE_RADIUS, CORE_EMPTY = 0.68, 0.85
"""Rim enhancement: relative radius of the core, and the share of its path that takes up no iodine."""


@dataclass(frozen=True)
class LesionMaps:
    """What a lesion adds in one view, each (size, size).

    Attributes:
        chord: path length through the body in cm; the mask is exactly where it is above 0.
        gland: gland-equivalent path length to add, cm.
        iodine: iodine to add, mg/cm2.
    """

    chord: Array
    gland: Array
    iodine: Array


def lesion_centre(lesion: Lesion, outline: Outline, view: str) -> tuple[float, float]:
    """Return x and y in mm of the lesion in a view."""
    across = lesion.across[VIEWS.index(view)]
    half = outline.above if across < 0 else outline.below
    width = (1 - lesion.depth**outline.exponent) ** (1 / outline.exponent)
    return lesion.depth * outline.reach, outline.centre + across * half * width


def make_lesion(lesion: Lesion, breast: Breast, outline: Outline, view: str, size: int) -> LesionMaps:
    """Render a lesion; the shape's harmonics are shared by the views and turned from one to the other."""
    texture_rng, turn_rng = np.random.default_rng([lesion.stream, VIEWS.index(view)]).spawn(2)
    x, y = pixel_grid(size)
    x0, y0 = lesion_centre(lesion, outline, view)
    reach = FARTHEST * lesion.radius_mm
    box = np.ix_(np.abs(y[:, 0] - y0) <= reach, np.abs(x[0] - x0) <= reach)
    across, down = (x - x0)[:, box[1][0]], (y - y0)[box[0][:, 0]]
    texture = power_law_field(texture_rng, size, low_mm=lesion.radius_mm * 1.5)[box]
    turned = np.arctan2(down, across) + turn_rng.uniform(0, 2 * np.pi)
    patch = Patch(np.hypot(across, down), turned, texture, breast.gland[box], breast.thickness[box])
    small = non_mass_maps(lesion, patch) if lesion.kind == "non_mass" else mass_maps(lesion, patch)
    maps = LesionMaps(*(np.zeros((size, size)) for _ in range(3)))
    maps.chord[box], maps.gland[box], maps.iodine[box] = small.chord, small.gland, small.iodine
    return maps


@dataclass(frozen=True)
class Patch:
    """What surrounds the lesion, on the small part of the image that it can reach.

    Attributes:
        ray: distance to the lesion's centre in mm.
        angle: direction from it, turned as the view demands.
        texture: random field, mean 0, variance 1.
        gland: the breast's gland share here.
        thickness: the breast's thickness here in cm.
    """

    ray: Array
    angle: Array
    texture: Array
    gland: Array
    thickness: Array


def mass_maps(lesion: Lesion, patch: Patch) -> LesionMaps:
    """Return a solid lesion, an ellipsoid with rough outline: denser than what it replaces, with iodine and strands."""
    rng = np.random.default_rng(lesion.stream)
    edge = lesion.radius_mm * outline_factor(rng, patch.angle, lesion.roughness)
    relative = patch.ray / edge
    longest = 0.2 * lesion.radius_mm  # the diameter in cm
    chord = np.minimum(longest * half_sphere(relative), 0.9 * patch.thickness)
    core = CORE_EMPTY * CORE_RADIUS * longest * half_sphere(relative / CORE_RADIUS) * lesion.rim
    strands = spicule_map(rng, lesion, patch, edge)
    denser = np.clip(lesion.gland - patch.gland, 0, None) * chord
    patchy = np.clip(1 + 0.22 * patch.texture, 0.3, None)
    iodine = np.clip(chord - core, 0, None) * patchy + 0.12 * strands
    return LesionMaps(chord, denser + 0.35 * strands * (1 - patch.gland), lesion.iodine * iodine)


def non_mass_maps(lesion: Lesion, patch: Patch) -> LesionMaps:
    """Return non-mass enhancement: a flat area of iodine in clumps that the low-energy image hardly shows."""
    rng = np.random.default_rng(lesion.stream)
    relative = patch.ray / (lesion.radius_mm * outline_factor(rng, patch.angle, lesion.roughness))
    flat = min(0.14 * lesion.radius_mm, 1.4) * np.sqrt(half_sphere(relative))
    chord = np.minimum(flat, 0.9 * patch.thickness)
    clumps = chord * np.clip(0.55 + 0.9 * patch.texture, 0, None)
    return LesionMaps(chord, clumps * lesion.gland * (1 - patch.gland), clumps * lesion.iodine)


def half_sphere(relative: Array) -> Array:
    """Return ``sqrt(1 - relative^2)`` inside the unit circle, 0 outside."""
    return np.asarray(np.sqrt(np.clip(1 - relative**2, 0, None)), dtype=np.float64)


def outline_factor(rng: np.random.Generator, angle: Array, roughness: float) -> Array:
    """Return the relative radius over ``angle``: harmonics 2 to 7 of falling amplitude, an ellipse first of all."""
    factor = np.ones_like(angle)
    for order in range(2, 8):
        amplitude, phase = rng.normal(0, 1.4 * roughness / order), rng.uniform(0, 2 * np.pi)
        factor += amplitude * np.cos(order * angle + phase)
    return np.clip(factor, 0.5, 1.6)


def spicule_map(rng: np.random.Generator, lesion: Lesion, patch: Patch, edge: Array) -> Array:
    """Return radial strands around the body, 0..1, thin and tapering; zero for lesions without spicules."""
    total = np.zeros_like(patch.ray)
    for _ in range(lesion.spicules):
        direction, length = rng.uniform(0, 2 * np.pi), lesion.radius_mm * rng.uniform(0.5, 1.3)
        turn = patch.angle - direction
        outside = (patch.ray - 0.7 * edge) / length
        width = np.clip(0.9 * (1 - 0.7 * outside), 0.2, None)
        strand = np.exp(-((patch.ray * np.sin(turn) / width) ** 2)) * np.clip(1 - outside, 0, 1)
        total = np.maximum(total, strand * (outside > 0) * (np.cos(turn) > 0))
    return total
