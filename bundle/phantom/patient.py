"""Who is imaged: density, breast size and lesions, drawn once per patient and shared by all views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DENSITY_CLASSES = ("a", "b", "c", "d")
DENSITY_SHARE = (0.12, 0.40, 0.40, 0.08)
VOLUMETRIC_DENSITY = (0.06, 0.13, 0.22, 0.36)
BACKGROUND_LEVELS = ("minimal", "mild", "moderate", "marked")
BACKGROUND_IODINE = (0.02, 0.05, 0.10, 0.20)
"""Background parenchymal enhancement in mg/cm2 of iodine per cm of gland."""
BACKGROUND_SHARE = (0.35, 0.35, 0.20, 0.10)
LATERALITIES = ("L", "R")
VIEWS = ("CC", "MLO")
LESION_SHARE_OF_BREASTS = 0.65
LESION_KINDS = ("malignant", "benign", "benign_non_enhancing", "non_mass")
LESION_KIND_SHARE = (0.50, 0.15, 0.20, 0.15)
TYPICAL_LESION = {
    "malignant": (8.0, 1.0, 1.2, 0.12),
    "benign": (6.5, 0.42, 0.9, 0.04),
    "benign_non_enhancing": (7.0, 0.0, 1.0, 0.04),
    "non_mass": (14.0, 0.8, 0.08, 0.18),
}
"""Median radius (mm), median iodine (mg/cm3), gland-equivalent density and roughness of the outline, by kind."""
RIM_SHARE = 0.25
"""Share of malignant lesions that enhance in the rim."""
BOTH_BREASTS_SHARE = 0.8
BOTH_VIEWS_SHARE = 0.9


@dataclass(frozen=True)
class Lesion:
    """One lesion of one breast, in units that hold in every view.

    Attributes:
        kind: one of ``LESION_KINDS``.
        radius_mm: mean radius of the body.
        depth: distance from the chest wall as a share of the distance to the nipple.
        across: offset from the nipple line as a share of the breast's half height there, in CC and in MLO.
        iodine: iodine in mg per cm3 of lesion; 0 for a non-enhancing one.
        gland: attenuation of its tissue, 0 = adipose, 1 = gland.
        rim: whether iodine sits in the rim and not in the centre.
        spicules: number of radial strands.
        roughness: relative amplitude of the outline's harmonics.
        stream: number that seeds the shape, shared by all views.
    """

    kind: str
    radius_mm: float
    depth: float
    across: tuple[float, float]
    iodine: float
    gland: float
    rim: bool
    spicules: int
    roughness: float
    stream: int


@dataclass(frozen=True)
class Patient:
    """What all views of a patient share.

    Attributes:
        density: index into ``DENSITY_CLASSES``.
        background: index into ``BACKGROUND_LEVELS``.
        thickness_cm: compressed thickness.
        reach_mm: chest wall to nipple in CC.
        half_height_mm: half height at the chest wall in CC.
        views: (laterality, view) pairs that were taken.
        lesions: lesion of the left and of the right breast, or None.
    """

    density: int
    background: int
    thickness_cm: float
    reach_mm: float
    half_height_mm: float
    views: tuple[tuple[str, str], ...]
    lesions: tuple[Lesion | None, Lesion | None]


def stream(seed: int, site: int, patient: int, *path: int) -> np.random.Generator:
    """Return the generator for one purpose; every purpose has its own, so that no draw shifts another."""
    return np.random.default_rng([seed, site, patient, *path])


def draw_patient(seed: int, site: int, patient: int) -> Patient:
    """Draw the patient with number ``patient`` of a seed and site."""
    rng = stream(seed, site, patient, 0)
    thickness = float(np.clip(rng.normal(5.4, 1.1), 2.5, 8.5))
    # thick breasts are also larger
    reach = float(np.clip(92 + 6 * (thickness - 5.4) + rng.normal(0, 7), 60, 125))
    half_height = float(np.clip(0.55 * reach + 36 + rng.normal(0, 4), 60, 98))
    density = int(rng.choice(4, p=DENSITY_SHARE))
    background = int(rng.choice(4, p=BACKGROUND_SHARE))
    both_breasts, one_breast = rng.random() < BOTH_BREASTS_SHARE, LATERALITIES[int(rng.integers(2))]
    both_views, one_view = rng.random() < BOTH_VIEWS_SHARE, VIEWS[int(rng.integers(2))]
    views = tuple(
        (side, view)
        for side in LATERALITIES
        for view in VIEWS
        if (both_breasts or side == one_breast) and (both_views or view == one_view)
    )
    left, right = (draw_lesion(stream(seed, site, patient, 1, side)) for side in range(2))
    return Patient(density, background, thickness, reach, half_height, views, (left, right))


def draw_lesion(rng: np.random.Generator) -> Lesion | None:
    """Draw the lesion of one breast, or None for the 35 % without."""
    present = rng.random() < LESION_SHARE_OF_BREASTS
    kind = LESION_KINDS[int(rng.choice(4, p=LESION_KIND_SHARE))]
    size, amount, rim, many = rng.lognormal(0, 0.3), rng.lognormal(0, 0.4), rng.random() < RIM_SHARE, rng.random()
    depth = float(rng.uniform(0.28, 0.66))
    across = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.25, 0.55)))
    number = int(rng.integers(2**31))
    if not present:
        return None
    radius, iodine, gland, roughness = TYPICAL_LESION[kind]
    malignant = kind == "malignant"
    return Lesion(
        kind=kind,
        radius_mm=float(np.clip(radius * size, 4.0, 22.0)),
        depth=depth,
        across=across,
        iodine=float(iodine * amount),
        gland=gland,
        rim=bool(malignant and rim),
        spicules=8 + int(many * 9) if malignant else 0,
        roughness=roughness,
        stream=number,
    )
