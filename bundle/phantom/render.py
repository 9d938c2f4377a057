"""One phantom view as a pure function of (seed, patient, view, laterality, size, site)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.phantom.acquisition import acquire
from bundle.phantom.beams import site_named
from bundle.phantom.breast import draw_outline, make_breast
from bundle.phantom.fields import Array
from bundle.phantom.lesions import make_lesion
from bundle.phantom.patient import (
    BACKGROUND_IODINE,
    BACKGROUND_LEVELS,
    DENSITY_CLASSES,
    LATERALITIES,
    VIEWS,
    draw_patient,
    stream,
)

MIN_SIZE = 32
MUSCLE_IODINE = 0.06
"""Iodine of muscle, mg/cm2 per cm."""


@dataclass(frozen=True)
class PhantomView:
    """One rendered view; arrays are (rows, columns) as shown on a screen.

    Attributes:
        image: low-energy image as displayed, uint16, 1..4095 in the breast and 0 outside.
        label: dual-energy subtracted image (DES), uint16 stored values, 0 outside the breast.
        mask: True where the lesion's body lies; all False without a lesion.
        info: what is known about the case (density class, background, lesion).
    """

    image: NDArray[np.uint16]
    label: NDArray[np.uint16]
    mask: NDArray[np.bool_]
    info: dict[str, object]


@dataclass(frozen=True)
class TissueMaps:
    """Noise-free truth of one view in chest-wall-left orientation, each (size, size).

    Attributes:
        thickness: cm.
        gland: gland-equivalent cm.
        iodine: mg/cm2.
        chord: path through the lesion in cm.
        info: description of the case.
    """

    thickness: Array
    gland: Array
    iodine: Array
    chord: Array
    info: dict[str, object]


def tissue_maps(seed: int, patient: int, view: str, laterality: str, size: int, site: str) -> TissueMaps:
    """Return what lies in the beam, before any physics. Arguments as in :func:`render_view`."""
    check_view(view, laterality, size)
    place = site_named(site).index
    person = draw_patient(seed, place, patient)
    side, projection = LATERALITIES.index(laterality), VIEWS.index(view)
    outline = draw_outline(stream(seed, place, patient, 2, side, projection), person, view)
    breast = make_breast(stream(seed, place, patient, 3, side, projection), person, outline, view, size)
    gland = breast.thickness * breast.gland
    iodine = BACKGROUND_IODINE[person.background] * gland + MUSCLE_IODINE * breast.thickness * breast.muscle
    iodine = iodine + breast.vessel
    gland = gland + breast.thickness * breast.muscle + 0.3 * breast.vessel
    info: dict[str, object] = {
        "density": DENSITY_CLASSES[person.density],
        "background_enhancement": BACKGROUND_LEVELS[person.background],
        "thickness_cm": round(person.thickness_cm, 2),
        "site": site,
        "lesion": "none",
    }
    lesion = person.lesions[side]
    chord = np.zeros((size, size))
    if lesion is not None:
        maps = make_lesion(lesion, breast, outline, view, size)
        gland, iodine, chord = gland + maps.gland, iodine + maps.iodine, maps.chord
        info |= {
            "lesion": lesion.kind,
            "radius_mm": round(lesion.radius_mm, 2),
            "iodine_mg_cm3": round(lesion.iodine, 3),
        }
        info |= {"rim": lesion.rim}
    return TissueMaps(breast.thickness, gland, iodine * (breast.thickness > 0), chord, info)


def render_view(seed: int, patient: int, view: str, laterality: str, size: int = 256, site: str = "W") -> PhantomView:
    """Render one view. The same arguments give the same bytes; only noise and sampling depend on ``size``.

    Args:
        seed: non-negative number of the whole dataset.
        patient: non-negative number of the patient.
        view: ``"CC"`` or ``"MLO"``.
        laterality: ``"L"`` (chest wall at the left edge) or ``"R"`` (at the right edge).
        size: pixels per side, at least 32; the side is always 200 mm.
        site: ``"W"`` or ``"Rh"``.

    Raises:
        ValueError: for any argument outside these ranges.
    """
    maps = tissue_maps(seed, patient, view, laterality, size, site)
    place = site_named(site)
    path = (4, LATERALITIES.index(laterality), VIEWS.index(view))
    image, label = acquire(stream(seed, place.index, patient, *path), place, maps.thickness, maps.gland, maps.iodine)
    mask = maps.chord > 0
    if laterality == "R":
        image, label, mask = image[:, ::-1].copy(), label[:, ::-1].copy(), mask[:, ::-1].copy()
    return PhantomView(image, label, mask, maps.info)


def check_view(view: str, laterality: str, size: int) -> None:
    """Raise ValueError unless the arguments name a view that can be rendered."""
    if view not in VIEWS:
        raise ValueError(f"Unknown view {view!r}: expected one of {', '.join(VIEWS)}.")
    if laterality not in LATERALITIES:
        raise ValueError(f"Unknown laterality {laterality!r}: expected one of {', '.join(LATERALITIES)}.")
    if size < MIN_SIZE:
        raise ValueError(f"The size {size} is too small: expected at least {MIN_SIZE} pixels per side.")
