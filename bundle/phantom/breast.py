"""The breast of one view in mm: outline, thickness, gland, muscle, skin and vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bundle.phantom.fields import FIELD_OF_VIEW_MM, Array, pixel_grid, power_law_field, smooth_step
from bundle.phantom.patient import VOLUMETRIC_DENSITY, Patient

DENSEST = 0.88
"""Gland share where there is only gland: some fat stays between the lobules."""
DENSITY_GRID = 64
"""Grid on which the density of a breast is set, so that it does not depend on the image size."""


@dataclass(frozen=True)
class Outline:
    """Shape of the breast in one view; the chest wall is x = 0, y points down, all in mm."""

    reach: float
    centre: float
    above: float
    below: float
    exponent: float
    muscle: tuple[float, float]
    axilla: float

    def skin_distance(self, x: Array, y: Array) -> Array:
        """Return the distance to the skin, positive inside, to first order near the skin."""
        height = y - self.centre
        half = np.where(height < 0, self.above, self.below)
        n = self.exponent
        u, v = np.abs(x) / self.reach, np.abs(height) / half
        level = np.maximum((u**n + v**n) ** (1 / n), 1e-3)
        slope = level ** (1 - n) * np.hypot(u ** (n - 1) / self.reach, v ** (n - 1) / half)
        distance = (1 - level) / np.maximum(slope, 1e-4)
        nipple = 5.5 - np.hypot(x - self.reach + 1.5, height)
        distance = soft_union(distance, nipple, 1.5)
        if self.axilla > 0:
            # the tail towards the armpit: left of a line that leans from the armpit to the breast
            lean = 0.35
            line = (self.axilla + lean * y - x) / np.hypot(1, lean)
            distance = soft_union(distance, np.minimum(line, self.centre - 10.0 - y), 6.0)
        return distance


def soft_union(first: Array, second: Array, width: float) -> Array:
    """Return a maximum of two distances that is rounded over ``width`` mm where they meet."""
    gap = np.abs(first - second)
    return np.asarray(np.maximum(first, second) + width * np.log1p(np.exp(-gap / width)), dtype=np.float64)


def draw_outline(rng: np.random.Generator, patient: Patient, view: str) -> Outline:
    """Draw the outline of a view around the patient's size."""
    reach = float(np.clip(patient.reach_mm * rng.normal(1.0, 0.03), 50, 135))
    half = patient.half_height_mm * rng.normal(1.0, 0.03)
    lopsided = rng.normal(0, 0.05)
    exponent = float(rng.uniform(1.95, 2.35))
    top, bottom = rng.uniform(28, 52), rng.uniform(85, 130)
    axilla, middle, behind = rng.uniform(0.42, 0.62) * reach, rng.normal(0, 3), rng.random() < 0.3
    half_view = FIELD_OF_VIEW_MM / 2
    if view == "CC":
        muscle = (float(rng.uniform(3, 8)), 0.0) if behind else (0.0, 0.0)
        centre = half_view + middle
        room = half_view - abs(middle) - 1
        return Outline(
            reach, centre, min(half * (1 + lopsided), room), min(half * (1 - lopsided), room), exponent, muscle, 0.0
        )
    centre = half_view + 20 + middle
    below = min(half * 0.88, FIELD_OF_VIEW_MM - centre - 4)
    return Outline(reach, centre, half * 1.15, below, exponent, (float(top), float(bottom)), float(axilla))


def thickness_map(skin: Array, patient: Patient) -> Array:
    """Return thickness in cm: flat under the paddle, rounded off towards the skin like half an ellipse."""
    rounding = 3.6 * patient.thickness_cm  # mm
    inward = np.clip(skin / rounding, 0, 1)
    return np.asarray(patient.thickness_cm * np.sqrt(1 - (1 - inward) ** 2), dtype=np.float64)


def muscle_map(outline: Outline, view: str, x: Array, y: Array) -> Array:
    """Return the share of thickness that is pectoral muscle: the upper corner in MLO, a sliver in some CC."""
    if view == "CC":
        depth, height = outline.muscle[0], (y - outline.centre) / 45
        return 0.5 * smooth_step((depth * (1 - height**2) - x) / 4 + 0.5) if depth > 0 else np.zeros_like(x + y)
    top, bottom = outline.muscle
    along = np.clip(y / bottom, 0, None)
    edge = top * (1 - along) + 5 * np.sin(np.pi * np.clip(along, 0, 1))
    distance = (edge - x) / np.hypot(1, top / bottom)
    return smooth_step(distance / 7 + 0.5) * (0.55 + 0.25 * smooth_step(distance / 40))


@dataclass(frozen=True)
class Breast:
    """Maps of one view, each (size, size).

    Attributes:
        skin: distance to the skin in mm, positive inside.
        thickness: cm.
        gland: fibroglandular share of the thickness, 0..1.
        muscle: muscle share of the thickness, 0..1.
        vessel: iodine of vessels, mg/cm2.
    """

    skin: Array
    thickness: Array
    gland: Array
    muscle: Array
    vessel: Array


def make_breast(rng: np.random.Generator, patient: Patient, outline: Outline, view: str, size: int) -> Breast:
    """Render the maps of one view on ``size`` x ``size`` pixels; the anatomy does not depend on ``size``."""
    x, y = pixel_grid(size)
    skin = outline.skin_distance(x, y)
    gland_rng, strands_rng, vessel_rng = rng.spawn(3)
    muscle = muscle_map(outline, view, x, y)
    gland = gland_map(gland_rng, strands_rng, patient, outline, skin, muscle, size)
    vessel = vessel_map(vessel_rng, outline, x, y, skin)
    return Breast(skin, thickness_map(skin, patient), gland, muscle, vessel)


def gland_map(
    rng: np.random.Generator,
    strands_rng: np.random.Generator,
    patient: Patient,
    outline: Outline,
    skin: Array,
    muscle: Array,
    size: int,
) -> Array:
    """Return the gland's share: a logistic of a power-law field inside an envelope, with strands and ducts."""
    x, y = pixel_grid(size)
    texture = power_law_field(rng, size, high_mm=2.5)
    strands = strand_map(strands_rng, outline, x, y, size)
    logit = 1.2 * texture + gland_envelope(outline, x, y, skin) + 0.8 * strands
    level = level_for_density(logit, skin, patient)
    gland = DENSEST / (1 + np.exp(-(logit + level)))
    gland = gland + 0.07 * strands * smooth_step((skin - 1.5) / 8) * (1 - gland)
    return np.asarray(gland * (1 - smooth_step(muscle * 2)), dtype=np.float64)


def gland_envelope(outline: Outline, x: Array, y: Array, skin: Array) -> Array:
    """Return where gland is likely (logits): behind the nipple, not under the skin nor at the chest wall."""
    height = (y - outline.centre) / (0.75 * np.where(y < outline.centre, outline.above, outline.below))
    along = (x / outline.reach - 0.55) / 0.5
    return np.asarray(2.0 - 2.2 * (along**2 + height**2) - 5 * (1 - smooth_step((skin - 2) / 14)), dtype=np.float64)


def level_for_density(logit: Array, skin: Array, patient: Patient) -> float:
    """Return the shift of ``logit`` at which the breast's mean gland share is its class's volumetric density."""
    step = logit.shape[0] / DENSITY_GRID
    picked = ((np.arange(DENSITY_GRID) + 0.5) * step).astype(int)
    inside = skin[np.ix_(picked, picked)] > 0
    values = logit[np.ix_(picked, picked)][inside]
    target, low, high = VOLUMETRIC_DENSITY[patient.density], -20.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(DENSEST / (1 + np.exp(-values - middle))) < target else (low, middle)
    return (low + high) / 2


def strand_map(rng: np.random.Generator, outline: Outline, x: Array, y: Array, size: int) -> Array:
    """Return fibrous lines, 0..1: ligaments (zero lines of smooth fields) and ducts (rays from the nipple)."""
    total = np.zeros((size, size))
    for shortest, width, strength in ((18.0, 0.22, 1.0), (10.0, 0.26, 0.8), (7.0, 0.3, 0.6)):
        field = power_law_field(rng, size, beta=2.2, low_mm=45.0, high_mm=shortest)
        presence = power_law_field(rng, size, beta=3.0, low_mm=50.0, high_mm=20.0)
        total += strength * np.exp(-((field / width) ** 2)) * smooth_step(0.5 + 0.5 * presence)
    wobble = power_law_field(rng, size, beta=3.0, low_mm=60.0, high_mm=12.0)
    ray = np.hypot(outline.reach - x, y - outline.centre)
    angle = np.arctan2(y - outline.centre, outline.reach + 4 - x)
    ducts = np.exp(-((np.sin(9 * angle + 1.2 * wobble + rng.uniform(0, 6)) / 0.25) ** 2))
    return np.asarray(np.minimum(total + ducts * np.exp(-ray / 35) * smooth_step(ray / 8), 1.5), dtype=np.float64)


def vessel_map(rng: np.random.Generator, outline: Outline, x: Array, y: Array, skin: Array) -> Array:
    """Return the iodine (mg/cm2) of up to three vessels that wind from the chest wall towards the nipple."""
    total = np.zeros((x + y).shape)
    for _ in range(int(rng.integers(0, 4))):
        start, end = rng.uniform(-0.8, 0.8) * outline.above, rng.uniform(-0.3, 0.3) * outline.above
        bends, phases = rng.normal(0, (4.0, 2.0)), rng.uniform(0, 6, 2)
        amount, width, stop = rng.uniform(0.15, 0.6), rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.95)
        share = np.clip(x / outline.reach, 0, 1)
        line = outline.centre + start + (end - start) * share**1.5
        line = line + bends[0] * np.sin(6 * share + phases[0]) + bends[1] * np.sin(15 * share + phases[1])
        slope = np.gradient(line, x[0, 1] - x[0, 0], axis=1)
        away = (y - line) / np.hypot(1, slope)
        total += amount * np.exp(-((away / width) ** 2)) * smooth_step((stop - share) * 8)
    return np.asarray(total * smooth_step(skin / 4), dtype=np.float64)
