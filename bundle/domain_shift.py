"""How far the cases of an external test set are from those of the training: intensities in the breast and radiomics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from torch import Tensor

from bundle.metrics import breast_region, frechet_radiomics_distance, radiomics_remedy

__all__ = ["BINS", "DOMAINS", "CaseSample", "Reservoir", "domain_shift", "sample_case"]

DOMAINS = ("image", "label")
"""Low-energy image and real DES."""
BINS = 64
"""Bins of the histograms on [0, 1]."""
_FINE_BINS = 1024
"""Bins that the Wasserstein distance is taken on: its error is at most 0.001."""
_FEWEST_CASES = 10
"""Fewer cases than this give a radiomics distance that says more of the cases than of the sets."""
Floats = npt.NDArray[np.float64]


@dataclass
class CaseSample:
    """What is kept of one case: for either domain the shares of the breast's intensities, and pictures for a while."""

    shares: dict[str, Floats]
    pictures: dict[str, npt.NDArray[np.uint8]] | None
    """LE and DES with levels 0 to 255 and ``breast``, 0 or 1, each ``(W, H)``; None where the case is not chosen."""


class Reservoir:
    """A random choice of at most ``size`` of the cases that come by, each with the same chance (Vitter 1985).

    The choice depends on nothing but the number of cases.
    """

    def __init__(self, size: int) -> None:
        self.cases: list[tuple[str, CaseSample]] = []
        self.size = size
        self._chosen: list[int] = []
        self._rng = np.random.default_rng(0)

    def add(self, name: str, case: CaseSample) -> None:
        """Keep the case, and its pictures or those of a chosen one before it only if they fit in."""
        index = len(self.cases)
        self.cases.append((name, case))
        if len(self._chosen) < self.size:
            self._chosen.append(index)
            return
        place = int(self._rng.integers(index + 1))
        dropped = index
        if place < self.size:
            dropped, self._chosen[place] = self._chosen[place], index
        self.cases[dropped][1].pictures = None


def sample_case(image: Tensor, label: Tensor) -> CaseSample | None:
    """Take a case ``(1, 1, W, H)`` in [0, 1] of LE and real DES; None if there is no breast in it."""
    breast = breast_region(image)[0, 0].cpu().numpy()
    if not breast.any():
        return None
    pixels = {key: x[0, 0].float().cpu().numpy().clip(0, 1) for key, x in zip(DOMAINS, (image, label), strict=True)}
    shares = {}
    for key, values in pixels.items():
        counts, _ = np.histogram(values[breast], _FINE_BINS, (0.0, 1.0))
        shares[key] = counts / breast.sum()
    pictures = {key: np.rint(values * 255).astype(np.uint8) for key, values in pixels.items()}
    return CaseSample(shares, pictures | {"breast": breast.astype(np.uint8)})


def domain_shift(
    training: Sequence[CaseSample], external: Sequence[CaseSample], frd_cases: int = 50, workers: int = 1
) -> dict[str, Any]:
    """Compare the training with an external set of cases.

    Every case counts the same, however large its breast. The radiomics distance is taken on the breasts of the cases
    that have pictures, at most ``frd_cases`` of each set, with the training as reference.

    Returns:
        ``training`` and ``external`` with their number of ``cases``; for ``image`` (LE) and ``label`` (real DES)
        ``histogram`` (``edges``, and the shares of ``training`` and ``external`` in each of the 64 bins),
        ``wasserstein`` (distance of the intensities, 0 to 1: the mean way a pixel's level has to go),
        ``jensen_shannon`` (distance with base 2, 0 = equal, 1 = no level in common), ``frd`` (NaN where it cannot be
        had) and ``frd_note``, then the reason, otherwise None.

    Raises:
        ValueError: a set without any case with a breast.
    """
    if not training or not external:
        raise ValueError(
            f"There are {len(training)} training and {len(external)} external cases with a breast in them; a domain "
            "shift needs both. Check that images are scaled to [0, 1]."
        )
    result: dict[str, Any] = {"training": {"cases": len(training)}, "external": {"cases": len(external)}}
    for domain in DOMAINS:
        shares = [np.mean([case.shares[domain] for case in cases], axis=0) for cases in (training, external)]
        frd, note = _radiomics(domain, _pictures(training, frd_cases), _pictures(external, frd_cases), workers)
        result[domain] = _intensities(*shares) | {"frd": frd, "frd_note": note}
    return result


def _intensities(training: Floats, external: Floats) -> dict[str, Any]:
    centres = (np.arange(_FINE_BINS) + 0.5) / _FINE_BINS
    ours, theirs = (shares.reshape(BINS, -1).sum(axis=1) for shares in (training, external))
    with np.errstate(invalid="ignore"):  # of equal sets SciPy takes the root of a number just below 0
        jensen_shannon = np.nan_to_num(jensenshannon(ours, theirs, base=2))
    return {
        "histogram": {
            "edges": np.linspace(0, 1, BINS + 1).tolist(),
            "training": ours.tolist(),
            "external": theirs.tolist(),
        },
        "wasserstein": float(wasserstein_distance(centres, centres, training, external)),
        "jensen_shannon": float(jensen_shannon),
    }


def _pictures(cases: Sequence[CaseSample], most: int) -> list[dict[str, npt.NDArray[np.uint8]]]:
    """Pictures of the cases that have some; of more than ``most`` (the ranks together) evenly spread ones."""
    found = [case.pictures for case in cases if case.pictures is not None]
    if len(found) <= most:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]


def _radiomics(
    domain: str,
    training: list[dict[str, npt.NDArray[np.uint8]]],
    external: list[dict[str, npt.NDArray[np.uint8]]],
    workers: int,
) -> tuple[float, str | None]:
    if min(len(training), len(external)) < _FEWEST_CASES:
        found = f"{len(training)} training and {len(external)} external cases"
        return math.nan, f"too few cases for a radiomics distance: {found}, at least {_FEWEST_CASES} of each are needed"
    remedy = radiomics_remedy()
    if remedy is not None:
        return math.nan, remedy
    (ours, our_breasts), (theirs, their_breasts) = (
        ([picture[domain] / 255.0 for picture in pictures], [picture["breast"] > 0 for picture in pictures])
        for pictures in (training, external)
    )
    try:
        value = frechet_radiomics_distance(ours, theirs, our_breasts, their_breasts, workers=workers)
    except Exception as error:  # one figure of a library must not cost the evaluation
        return math.nan, f"frd-score failed: {type(error).__name__}: {error}"
    if not math.isfinite(value):
        return math.nan, f"the radiomics distance is {value}: its logarithm exists only for sets that differ"
    return value, None
