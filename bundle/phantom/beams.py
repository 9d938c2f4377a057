"""X-ray constants of the two phantom sites and the dual-energy subtraction that follows from them.

The numbers are log-signal slopes of an energy-integrating detector behind 4.5 cm of breast (25 % gland), from SpekPy
spectra and xraydb attenuation. They are embedded to keep the phantom free of both packages;
``scripts/derive_phantom_constants.py`` re-derives them, to within 6 %, from the tubes and tissues that it lists.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Beam:
    """Attenuation (natural logarithm of the signal) that one unit of material adds in one beam.

    Attributes:
        iodine: per mg/cm2 of iodine.
        gland: per cm of fibroglandular tissue that replaces adipose tissue.
        thickness: per cm of breast thickness.
    """

    iodine: float
    gland: float
    thickness: float


@dataclass(frozen=True)
class Site:
    """One mammography unit: its two beams and what its detector and processing leave in the images.

    Attributes:
        low: low-energy beam (LE).
        high: high-energy beam (HE).
        noise: relative noise of one exposure in a 0.78 mm pixel; it grows as 1 / pixel pitch.
        psf_mm: standard deviation of the point spread function.
        index: number of the site in the random streams, so that no two sites share a patient.
    """

    low: Beam
    high: Beam
    noise: float
    psf_mm: float
    index: int

    @property
    def weight(self) -> float:
        """Weight w of ``DES = HE - w * LE`` (attenuations) at which gland against adipose tissue cancels exactly."""
        return self.high.gland / self.low.gland

    @property
    def iodine_signal(self) -> float:
        """DES per mg/cm2 of iodine: ``high.iodine - weight * low.iodine``."""
        return self.high.iodine - self.weight * self.low.iodine

    @property
    def thickness_signal(self) -> float:
        """DES per cm of breast thickness; not zero, which is the origin of the halo at the breast's edge."""
        return self.high.thickness - self.weight * self.low.thickness


SITES: dict[str, Site] = {
    "W": Site(  # LE W/Rh 29 kVp, HE W/Cu 49 kVp
        low=Beam(iodine=0.0231, gland=0.248, thickness=0.541),
        high=Beam(iodine=0.0207, gland=0.0602, thickness=0.249),
        noise=0.0030,
        psf_mm=0.40,
        index=0,
    ),
    "Rh": Site(  # LE Rh/Ag 34 kVp, HE Rh/Cu 49 kVp
        low=Beam(iodine=0.0200, gland=0.211, thickness=0.484),
        high=Beam(iodine=0.0213, gland=0.0580, thickness=0.246),
        noise=0.0036,
        psf_mm=0.45,
        index=1,
    ),
}


def site_named(name: str) -> Site:
    """Return the site called ``name``.

    Raises:
        ValueError: if there is no such site; the message lists those there are.
    """
    if name not in SITES:
        raise ValueError(f"Unknown phantom site {name!r}: expected one of {', '.join(SITES)}.")
    return SITES[name]
