"""Further terms of the generators' objective, which compare the virtual DES with the real one of the pair.

The paper's objective has none: its cycle and identity terms never set ``G_AB x`` beside ``y``. Each term is a module
that takes the images of a step and gives named scalars, already weighted; ``GeneratorObjective(terms=[...])`` adds them
up and logs each. All of them are off by default.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.losses import Normalisation, masked_mean
from bundle.metrics.lesion import BREAST_THRESHOLD, FIELD_OF_VIEW_MM, RING_MM
from bundle.step_images import PairedImages

__all__ = ["LesionContrast", "PairedL1", "PairedLesionL1", "lesion_and_ring"]


class _Term(nn.Module):
    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight of a term is {weight}; expected 0 or more")
        self.weight = weight


class PairedL1(_Term):
    """``weight * mean|G_AB x - y|`` over the whole image, as pix2pix has it (Isola et al. 2017, equation 3).

    Args:
        weight: of the term, not negative.
    """

    def forward(self, images: PairedImages) -> dict[str, Tensor]:
        """The term as ``paired``."""
        return {"paired": self.weight * (images.fake_B - images.real_B).abs().mean()}


class PairedLesionL1(_Term):
    """``weight * mean|m_B (G_AB x - y)|``: the error where the lesion lies on the real DES.

    Args:
        weight: of the term, not negative.
        normalisation: what the sum is divided by, see :func:`~bundle.losses.masked_mean`. With ``mask`` a small lesion
            counts as much as a large one.
    """

    def __init__(self, weight: float = 10.0, normalisation: Normalisation = "mask") -> None:
        super().__init__(weight)
        self.normalisation = normalisation

    def forward(self, images: PairedImages) -> dict[str, Tensor]:
        """The term as ``paired_lesion``."""
        error = (images.fake_B - images.real_B).abs()
        return {"paired_lesion": self.weight * masked_mean(error, images.mask_B, self.normalisation)}


class LesionContrast(_Term):
    """``weight * |c(G_AB x) - c(y)|``, where c is the mean in the lesion less the mean in the ring of tissue around it.

    What radiologists look at is how much a lesion stands out. L1 alone lets it fade: where it is uncertain whether a
    lesion enhances, the median of what may be is dim. The ring is that of ``bundle.metrics.lesion_ring``, found on the
    device; a case without a lesion, or without tissue around it, counts as 0.

    Args:
        weight: of the term, not negative.
    """

    def forward(self, images: PairedImages) -> dict[str, Tensor]:
        """The term as ``contrast``."""
        lesion, ring = lesion_and_ring(images.mask_B, images.real_A)
        whole = (lesion.flatten(1).any(1) & ring.flatten(1).any(1)).to(images.real_B.dtype)
        difference = images.fake_B - images.real_B
        contrast = _mean_inside(difference, lesion) - _mean_inside(difference, ring)
        return {"contrast": self.weight * (whole * contrast.abs()).mean()}


def lesion_and_ring(mask: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """The lesion inside the breast and the ring of breast tissue around it, without leaving the device.

    A pixel's distance from a lesion is at most r where a disc of radius r around it meets the lesion.

    Args:
        mask: lesions, ``(B, 1, W, H)``, inside where > 0.5.
        image: the low-energy image in [0, 1], same shape; breast is where it exceeds ``BREAST_THRESHOLD``.

    Returns:
        Two bool tensors of the same shape.
    """
    inside = mask > 0.5
    breast = image > BREAST_THRESHOLD
    side = FIELD_OF_VIEW_MM / max(mask.shape[-2:])
    margin, reach = (_grown(inside, mm / side) for mm in RING_MM)
    return inside & breast, reach & ~margin & breast


def _grown(inside: Tensor, radius: float) -> Tensor:
    """The pixels at most ``radius`` pixels from ``inside``."""
    half = int(radius)
    offset = torch.arange(-half, half + 1, device=inside.device, dtype=torch.float32)
    disc = (offset[:, None].square() + offset.square() <= radius**2).float()[None, None]
    return functional.conv2d(inside.float(), disc, padding=half) > 0.5


def _mean_inside(values: Tensor, region: Tensor) -> Tensor:
    """``(B,)``; 0 where the region is empty."""
    weight = region.to(values.dtype)
    return (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1.0)
