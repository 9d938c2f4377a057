"""Phantom views that the synthetic archives are made of, with the truth that importing must give back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bundle.phantom.render import render_view


@dataclass(frozen=True)
class PhantomPair:
    """A view as it was made: LE 0 to 4095 as displayed, DES as stored, (H, W), chest wall of L at the left edge."""

    patient: int
    laterality: str
    view: str
    image: NDArray[np.uint16]
    label: NDArray[np.uint16]
    mask: NDArray[np.bool_]


@cache
def phantom_pairs(patients: int = 4, size: int = 64) -> tuple[PhantomPair, ...]:
    """Both views of both breasts of each patient."""
    pairs = []
    for patient in range(patients):
        for laterality in "LR":
            for view in ("CC", "MLO"):
                made = render_view(0, patient, view, laterality, size)
                image, label = (np.asarray(one, dtype=np.uint16) for one in (made.image, made.label))
                pairs.append(PhantomPair(patient, laterality, view, image, label, made.mask))
    return tuple(pairs)
