"""All figures of one case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bundle.metrics.image import LabelMaps, mean_ssim, psnr_of, region_mean, ssim_map, vif_maps, vif_ratio
from bundle.metrics.lesion import breast_region, lesion_diameter, lesion_ring

__all__ = ["CASE_FIGURES", "ENHANCING_CNR", "case_metrics", "several_case_metrics"]

CASE_FIGURES = (
    *("psnr", "ssim", "mae", "mse", "vif"),
    *("breast_psnr", "breast_ssim", "breast_mae", "breast_mse", "breast_vif"),
    *("lesion_psnr", "lesion_ssim", "lesion_mae", "lesion_mse", "lesion_mm", "false_enhancement"),
    *("lesion_contrast_real", "lesion_cnr_real", "lesion_contrast_virtual", "lesion_cnr_virtual", "lesion_dice"),
)
"""Names of the figures of one case, in the order of `case_metrics`."""

ENHANCING_CNR = 1.0
"""A pixel, or a lesion, enhances where it exceeds the ring by this many standard deviations of the ring."""


def case_metrics(
    pred: Tensor, label: Tensor, image: Tensor, mask: Tensor | None = None, pixel_mm: float | None = None
) -> dict[str, Tensor]:
    """All figures of a batch of cases.

    Args:
        pred: virtual DES. All images are ``(B, 1, W, H)`` in [0, 1].
        label: real DES.
        image: low-energy image; gives the breast region.
        mask: lesions as drawn on the real DES, > 0.5 inside; none given counts as no lesion.
        pixel_mm: side of a pixel in mm, see `lesion_ring`.

    Returns:
        name -> ``(B,)`` on the device of ``pred``. Whole image: ``psnr`` (dB), ``ssim``, ``mae``, ``mse``, ``vif``;
        breast: ``breast_psnr``, ``breast_ssim``, ``breast_mae``, ``breast_mse``, ``breast_vif``; lesion:
        ``lesion_psnr``, ``lesion_ssim``, ``lesion_mae``, ``lesion_mse``, ``lesion_mm`` (`lesion_diameter`),
        ``lesion_contrast_real`` and ``_virtual`` (`lesion_contrast`), ``lesion_cnr_real`` and ``_virtual`` (contrast
        by the standard deviation in the ring), ``lesion_dice`` (of the pixels that enhance); outside the lesion:
        ``false_enhancement``, the mean of ``max(pred - label, 0)`` over the breast without the lesion's margin.

    Raises:
        ValueError: shapes differ or intensities leave [0, 1], with the tensor's name and what to do.
    """
    return several_case_metrics([pred], label, image, mask, pixel_mm)[0]


def several_case_metrics(
    preds: Sequence[Tensor], label: Tensor, image: Tensor, mask: Tensor | None = None, pixel_mm: float | None = None
) -> list[dict[str, Tensor]]:
    """`case_metrics` of each of several predictions of the same cases; what they share is computed once."""
    mask = torch.zeros_like(label) if mask is None else mask
    _check(label, label=label, image=image, mask=mask)
    device = preds[0].device if preds else label.device
    label, image, mask = (_plain(x, device) for x in (label, image, mask))
    near, ring = lesion_ring(mask, breast := breast_region(image), pixel_mm)
    lesion_mm = lesion_diameter(mask, pixel_mm)
    shared = _Shared(label, LabelMaps.of(label), breast, mask > 0.5, near, ring, lesion_mm)
    found = []
    for pred in preds:
        _check(label, pred=pred)
        found.append(_figures(_plain(pred, device), shared))
    return found


class _Shared(NamedTuple):
    """What all predictions of a batch of cases are compared with."""

    label: Tensor
    maps: LabelMaps
    breast: Tensor
    lesion: Tensor
    near: Tensor
    ring: Tensor
    lesion_mm: Tensor


def _figures(pred: Tensor, shared: _Shared) -> dict[str, Tensor]:
    label, maps, breast, lesion, near, ring, lesion_mm = shared
    similarity, information = ssim_map(pred, label, maps), vif_maps(pred, label, maps)
    error = pred - label
    absolute, squared = error.abs(), error.square()
    figures = {}
    for part, region in (("", None), ("breast_", breast), ("lesion_", lesion)):
        mean_square = region_mean(squared, region)
        figures[f"{part}psnr"] = psnr_of(mean_square)
        figures[f"{part}ssim"] = mean_ssim(similarity, region)
        figures[f"{part}mae"] = region_mean(absolute, region)
        figures[f"{part}mse"] = mean_square
        if region is not lesion:
            figures[f"{part}vif"] = vif_ratio(information, region)
    figures["lesion_mm"] = lesion_mm
    figures["false_enhancement"] = region_mean(error.clamp(min=0), breast & ~near)
    return figures | _contrast_figures(pred, label, lesion & breast, near & breast, ring)


def _contrast_figures(pred: Tensor, label: Tensor, lesion: Tensor, near: Tensor, ring: Tensor) -> dict[str, Tensor]:
    figures, enhancing = {}, []
    for name, img in (("real", label), ("virtual", pred)):
        level = region_mean(img, ring)
        spread = region_mean((img - level.view(-1, 1, 1, 1)).square(), ring).sqrt()
        contrast = region_mean(img, lesion) - level
        figures[f"lesion_contrast_{name}"] = contrast
        figures[f"lesion_cnr_{name}"] = torch.where(spread > 1e-6, contrast / spread, torch.nan)
        enhancing.append(near & (img > (level + ENHANCING_CNR * spread).view(-1, 1, 1, 1)))
    real, virtual = enhancing
    overlap, size = ((real & virtual).sum((1, 2, 3)), real.sum((1, 2, 3)) + virtual.sum((1, 2, 3)))
    figures["lesion_dice"] = 2.0 * overlap / size  # 0 / 0 = NaN: neither image enhances
    return figures


def _plain(x: Tensor, device: torch.device) -> Tensor:
    """Float32 on ``device`` and no MetaTensor, whose bookkeeping would slow every operation."""
    return x.detach().as_subclass(Tensor).to(device=device, dtype=torch.float32)


def _check(like: Tensor, **tensors: Tensor) -> None:
    expected = like.shape
    for name, x in tensors.items():
        if x.ndim != 4 or x.shape[1] != 1 or x.shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; expected (B, 1, W, H) like label {tuple(expected)}. "
                "Bring all images of a case onto one grid before the metrics."
            )
        low, high = float(x.min()), float(x.max())
        if low < -0.1 or high > 1.1:  # NaN passes and shows up as NaN metrics
            raise ValueError(
                f"{name} has intensities from {low:.3g} to {high:.3g}; metrics are defined for [0, 1]. "
                "Scale it first: (x + 1) / 2 for images in [-1, 1], x / 255 for 8-bit images."
            )
