"""Whether a map is faithful: without the pixels that it names first, the enhancement falls more than without others.

After the deletion figure of Petsiuk et al. 2018 (arXiv 1806.07421), section 3.2, beside random pixels of the breast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.explaining.attribution import Target, batch_size_for

__all__ = ["FRACTIONS", "Deletion", "deletion"]

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Parts of the breast that are replaced by the baseline."""
_DRAWS = 5


@dataclass(frozen=True)
class Deletion:
    """What is left of the explained number when a part of the breast is replaced by the baseline.

    Attributes:
        start: with nothing replaced.
        named: for each of `FRACTIONS`, without the pixels with the largest attribution.
        random: without as many random pixels, mean of five draws.
    """

    start: float
    named: tuple[float, ...]
    random: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean of ``random - named``, in output intensity: above 0 where the map is faithful."""
        return sum(b - a for a, b in zip(self.named, self.random, strict=True)) / len(self.named)


def deletion(
    target: Target, image: Tensor, baseline: Tensor, attribution: Tensor, breast: Tensor, seed: int = 0
) -> Deletion:
    """Replace growing parts of the breast by the baseline, once by attribution and once at random.

    Args:
        target: what is explained.
        image: ``(1, 1, W, H)``, as are the others.
        baseline: what takes the place of the pixels.
        attribution: signed; the largest go first.
        breast: bool; only its pixels are replaced.
        seed: of the random pixels.
    """
    places = breast.flatten().nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(len(places), generator=generator).to(places.device) for _ in range(_DRAWS)]
    by_size = attribution.flatten()[places].argsort(descending=True, stable=True)
    counts = [max(1, round(fraction * len(places))) for fraction in FRACTIONS]
    picked = [places[order[:count]] for order in (by_size, *shuffled) for count in counts]
    with torch.no_grad():
        start = float(target(image))
        size = batch_size_for(image)
        parts = [target(_without(image, baseline, picked[i : i + size])) for i in range(0, len(picked), size)]
    values = torch.cat(parts).double().view(1 + _DRAWS, len(FRACTIONS))
    return Deletion(start, tuple(values[0].tolist()), tuple(values[1:].mean(0).tolist()))


def _without(image: Tensor, baseline: Tensor, picked: list[Tensor]) -> Tensor:
    """One image for each set of pixels, ``(len(picked), 1, W, H)``, with the baseline there."""
    images = image.repeat(len(picked), 1, 1, 1)
    for one, places in zip(images, picked, strict=True):
        one.view(-1)[places] = baseline.flatten()[places]
    return images
