"""Re-derive the X-ray constants of the phantom (bundle/phantom/beams.py) and compare them with the embedded ones.

Optional: needs ``pip install spekpy xraydb`` (MIT), which nothing else here uses.
Example: python scripts/derive_phantom_constants.py
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.phantom.beams import SITES, Beam
from scripts.arguments import command_parser

Array = NDArray[np.float64]

THICKNESS_CM, GLAND_SHARE = 4.5, 0.25
"""The breast at which the slopes are taken."""
PADDLE_MM = 2.0
ANODE_ANGLE = 20.0
MINERALS = ("P", "S", "K", "Ca")
TISSUES: dict[str, tuple[dict[str, float], float]] = {  # mass fractions and density in g/cm3, Hammerstein et al. 1979
    "adipose": ({"H": 0.112, "C": 0.619, "N": 0.017, "O": 0.251} | dict.fromkeys(MINERALS, 0.00025), 0.93),
    "gland": ({"H": 0.102, "C": 0.184, "N": 0.032, "O": 0.677} | dict.fromkeys(MINERALS, 0.00125), 1.04),
}
TUBES: dict[tuple[str, str], tuple[str, float, str, float]] = {  # anode, kVp, filter, mm
    ("W", "low"): ("W", 29.0, "Rh", 0.05),
    ("W", "high"): ("W", 49.0, "Cu", 0.3),
    ("Rh", "low"): ("Rh", 34.0, "Ag", 0.03),
    ("Rh", "high"): ("Rh", 49.0, "Cu", 0.3),
}


def slopes(weight: Array, attenuation: Mapping[str, Array]) -> Beam:
    """Return the log-signal slopes of one beam behind the reference breast, by central differences.

    Args:
        weight: detector response per energy bin without a breast (fluence x energy), any unit.
        attenuation: per energy bin, ``adipose`` and ``gland`` in 1/cm and ``iodine`` in cm2/mg.
    """
    adipose, gland, iodine = (attenuation[name] for name in ("adipose", "gland", "iodine"))
    breast = (1 - GLAND_SHARE) * adipose + GLAND_SHARE * gland

    def signal(extra: Array) -> float:
        return float(-np.log(np.sum(weight * np.exp(-THICKNESS_CM * breast - extra))))

    def slope(material: Array) -> float:
        return signal(material / 2) - signal(-material / 2)

    return Beam(iodine=slope(iodine), gland=slope(gland - adipose), thickness=slope(breast))


def spectrum(
    spekpy: ModuleType, anode: str, kilovolts: float, material: str, millimetres: float
) -> tuple[Array, Array]:
    """Return the energies (keV) and the fluence of a filtered tube behind the compression paddle."""
    tube = spekpy.Spek(kvp=kilovolts, th=ANODE_ANGLE, targ=anode, dk=0.5, physics="casim")
    tube.filter(material, millimetres)
    tube.filter("Polymethyl Methacrylate (Lucite Perspex or Plexiglas)", PADDLE_MM)
    energies, fluence = tube.get_spectrum()
    return np.asarray(energies, dtype=np.float64), np.asarray(fluence, dtype=np.float64)


def coefficients(xraydb: ModuleType, energies: Array) -> dict[str, Array]:
    """Return the attenuation of adipose and gland tissue (1/cm) and of iodine (cm2/mg) at energies in keV."""
    table = {
        name: density * sum(share * xraydb.mu_elam(element, energies * 1e3) for element, share in parts.items())
        for name, (parts, density) in TISSUES.items()
    }
    return table | {"iodine": xraydb.mu_elam("I", energies * 1e3) / 1e3}


def optional_module(name: str) -> ModuleType:
    """Import a package that only this script needs."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise SystemExit(f"The package {name} is not installed; get it with: pip install spekpy xraydb") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both sets of constants; the exit status is 1 where they differ by more than the tolerance."""
    parser = command_parser(__doc__)
    parser.add_argument("--tolerance", type=float, default=0.06, help="relative difference to accept (default: 0.06)")
    tolerance = parser.parse_args(arguments).tolerance
    spekpy, xraydb = optional_module("spekpy"), optional_module("xraydb")
    worst = 0.0
    print(f"{'beam':8} {'':10} {'iodine':>8} {'gland':>8} {'thickness':>10}")
    for (site, energy), tube in TUBES.items():
        energies, fluence = spectrum(spekpy, *tube)
        derived = astuple(slopes(fluence * energies, coefficients(xraydb, energies)))
        embedded = astuple(SITES[site].low if energy == "low" else SITES[site].high)
        differences = [found / kept - 1 for found, kept in zip(derived, embedded, strict=True)]
        worst = max(worst, *map(abs, differences))
        print("{:8} {:10} {:8.4f} {:8.4f} {:10.4f}".format(f"{site} {energy}", "derived", *derived))
        print("{:8} {:10} {:8.4f} {:8.4f} {:10.4f}".format("", "embedded", *embedded))
        print("{:8} {:10} {:+8.1%} {:+8.1%} {:+10.1%}".format("", "difference", *differences))
    return int(worst > tolerance)


if __name__ == "__main__":
    sys.exit(main())
