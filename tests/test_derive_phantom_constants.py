"""The optional derivation of the phantom's constants, without the packages that it needs."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bundle.phantom import SITES
from scripts.derive_phantom_constants import TUBES, main, slopes


def test_slopes_of_a_single_energy_are_its_coefficients() -> None:
    table = {"adipose": np.array([0.45]), "gland": np.array([0.70]), "iodine": np.array([0.0231])}
    beam = slopes(np.array([3.0]), table)
    assert beam.iodine == pytest.approx(0.0231)
    assert beam.gland == pytest.approx(0.25)
    assert beam.thickness == pytest.approx(0.75 * 0.45 + 0.25 * 0.70)


def test_slopes_of_a_spectrum_lean_towards_the_energies_that_get_through() -> None:
    table = {"adipose": np.array([0.45, 0.90]), "gland": np.array([0.70, 1.40]), "iodine": np.array([0.02, 0.04])}
    assert 0.02 < slopes(np.array([1.0, 1.0]), table).iodine < 0.03


def test_every_site_has_its_two_tubes() -> None:
    assert set(TUBES) == {(site, energy) for site in SITES for energy in ("low", "high")}


@pytest.mark.skipif(importlib.util.find_spec("spekpy") is not None, reason="spekpy is installed")
def test_missing_package_is_named_with_the_remedy() -> None:
    with pytest.raises(SystemExit, match="pip install spekpy xraydb"):
        main([])
