"""Each lesion of a case by itself: its mask, the regions around it, and how it shows in both DES."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bundle.metrics import ENHANCING_CNR, lesion_diameter, lesion_ring, mae, region_mean

__all__ = ["LOST_SHARE", "REGIONS", "Regions", "lesion_figures", "lesion_masks", "regions_of"]

LOST_SHARE = 0.5
"""A lesion with less than this share of its real contrast is lost."""
LEAST_PIXELS = 4
"""Parts of a mask below this many pixels are what resizing leaves of its edge, and no lesion of their own."""


@dataclass(frozen=True)
class Regions:
    """The parts of an image as one lesion divides it, bool ``(1, 1, W, H)`` each; a pixel is in exactly one.

    Attributes:
        lesion: the lesion itself.
        margin: up to 2 mm from it, in the breast or not.
        ring: breast more than 2 and up to 8 mm from it.
        elsewhere: the rest of the breast.
        outside: the background.
    """

    lesion: Tensor
    margin: Tensor
    ring: Tensor
    elsewhere: Tensor
    outside: Tensor


REGIONS = tuple(field.name for field in fields(Regions))
"""Their names, from the lesion outwards."""


def lesion_masks(mask: Tensor, breast: Tensor) -> list[Tensor]:
    """The connected parts (8 neighbours) of a mask inside the breast, the largest first.

    Args:
        mask: lesions as drawn on the real DES, ``(1, 1, W, H)``, inside where > 0.5.
        breast: bool, same shape.

    Returns:
        bool tensors of the same shape; none where nothing is drawn.
    """
    inside = ((mask > 0.5) & breast)[0, 0].cpu().numpy()
    labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    order = [number for number in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[number] >= LEAST_PIXELS]
    return [torch.from_numpy(labels == number)[None, None].to(mask.device) for number in order]


def regions_of(lesion: Tensor, breast: Tensor) -> Regions:
    """The regions around one lesion, by the distances of `bundle.metrics.lesion_ring`; ``(1, 1, W, H)``, bool."""
    near, ring = lesion_ring(lesion.float(), breast)
    rest = ~near & ~ring
    return Regions(lesion, near & ~lesion, ring, rest & breast, rest & ~breast)


def lesion_figures(pred: Tensor, label: Tensor, lesion: Tensor, others: Tensor, breast: Tensor) -> dict[str, float]:
    """How one lesion shows in the virtual and in the real DES, as in ``docs/metrics.md``, but for this lesion alone.

    Args:
        pred: virtual DES; all are ``(1, 1, W, H)``, images in [0, 1].
        label: real DES.
        lesion: bool.
        others: the other lesions of the case with their margins, bool; they are no reference tissue.
        breast: bool.

    Returns:
        ``lesion_mm`` (`bundle.metrics.lesion_diameter`), ``lesion_mae``, ``lesion_contrast_real`` and ``_virtual``
        (mean in the lesion minus mean in the ring), ``lesion_cnr_real`` (by the standard deviation in the ring), and
        ``lost``: 1 where the real lesion enhances (CNR above `ENHANCING_CNR`) and the virtual contrast is less than
        half of the real one, 0 where it enhances and is kept. NaN where there is no ring, or no enhancement to lose.
    """
    _, ring = lesion_ring(lesion.float(), breast & ~others)
    figures = {"lesion_mm": lesion_diameter(lesion.float()), "lesion_mae": mae(pred, label, lesion)}
    for name, image in (("real", label), ("virtual", pred)):
        figures[f"lesion_contrast_{name}"] = region_mean(image, lesion) - region_mean(image, ring)
    level = region_mean(label, ring).view(-1, 1, 1, 1)
    spread = region_mean((label - level).square(), ring).sqrt()
    figures["lesion_cnr_real"] = torch.where(spread > 1e-6, figures["lesion_contrast_real"] / spread, torch.nan)
    found = {name: float(value) for name, value in figures.items()}
    enhances = found["lesion_cnr_real"] > ENHANCING_CNR
    lost = float(found["lesion_contrast_virtual"] < LOST_SHARE * found["lesion_contrast_real"])
    return found | {"lost": lost if enhances else math.nan}
