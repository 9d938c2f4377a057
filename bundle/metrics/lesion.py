"""Where the breast, a lesion and the tissue around it lie, and how much a lesion stands out."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bundle.metrics.image import region_mean
from bundle.neighbourhoods import filled

__all__ = [
    "BREAST_THRESHOLD",
    "FIELD_OF_VIEW_MM",
    "RING_MM",
    "breast_region",
    "lesion_contrast",
    "lesion_diameter",
    "lesion_ring",
]

BREAST_THRESHOLD = 0.02
"""Low-energy intensity above which a pixel is breast; the background is 0 and JPEG noise stays below 5/255."""
RING_MM = (2.0, 8.0)
"""Inner and outer distance of the reference ring from the lesion's edge, in mm."""
FIELD_OF_VIEW_MM = 220.0
"""Longer side of the image in mm where the pixel size is not known: the phantom has 200, CDD-CESM 234 on average."""


def breast_region(image: Tensor) -> Tensor:
    """Breast in the low-energy ``image`` ``(B, 1, W, H)``: above `BREAST_THRESHOLD`, holes filled. Returns bool."""
    above = (image > BREAST_THRESHOLD).cpu().numpy()
    whole = np.stack([filled(one[0])[None] for one in above])
    return torch.from_numpy(whole).to(image.device)


def lesion_ring(mask: Tensor, breast: Tensor, pixel_mm: float | None = None) -> tuple[Tensor, Tensor]:
    """The lesion with a margin, and the ring of breast tissue around it.

    A pixel is in the margin at up to 2 mm from the lesion, and in the ring at more than 2 and up to 8 mm if it is
    breast (`RING_MM`). Without ``pixel_mm`` the longer side of the image counts as `FIELD_OF_VIEW_MM`: at 256 pixels
    the ring reaches from 2.3 to 9.3 pixels.

    Args:
        mask: lesion, ``(B, 1, W, H)``, inside where > 0.5.
        breast: bool, same shape, from `breast_region`.
        pixel_mm: side of a pixel in mm.

    Returns:
        two bool tensors of the same shape: (lesion and margin, ring). Both are empty where there is no lesion.
    """
    spacing = _pixel_side(mask, pixel_mm)
    inside = (mask > 0.5).cpu().numpy()
    distance = np.full(inside.shape, np.inf, dtype=np.float32)
    for b in range(len(inside)):
        if inside[b].any():
            distance[b, 0] = ndimage.distance_transform_edt(~inside[b, 0], sampling=spacing)
    from_lesion = torch.from_numpy(distance).to(mask.device)
    near = from_lesion <= RING_MM[0]
    return near, ~near & (from_lesion <= RING_MM[1]) & breast


def lesion_contrast(img: Tensor, mask: Tensor, breast: Tensor, pixel_mm: float | None = None) -> Tensor:
    """Mean of ``img`` in the lesion minus its mean in the ring around it (`lesion_ring`), both within the breast."""
    _, ring = lesion_ring(mask, breast, pixel_mm)
    return region_mean(img.float(), (mask > 0.5) & breast) - region_mean(img.float(), ring)


def lesion_diameter(mask: Tensor, pixel_mm: float | None = None) -> Tensor:
    """Diameter in mm of the disc with the area of the lesion, ``2 sqrt(area / pi)``; NaN without lesion.

    ``mask`` is ``(B, 1, W, H)``, inside where > 0.5; several lesions count as one area. Returns ``(B,)``.
    """
    pixels = (mask > 0.5).sum(dim=(1, 2, 3)).float()
    return torch.where(pixels > 0, 2.0 * _pixel_side(mask, pixel_mm) * (pixels / math.pi).sqrt(), torch.nan)


def _pixel_side(mask: Tensor, pixel_mm: float | None) -> float:
    return pixel_mm if pixel_mm is not None else FIELD_OF_VIEW_MM / max(mask.shape[-2:])
