"""How far one image is from another: errors, structural similarity and visual information fidelity.

Every function takes batches ``(B, 1, W, H)`` with intensities in [0, 1] and returns ``(B,)``, one figure per image, in
float32. A figure whose region is absent (an empty region, an image too small for the filter) is NaN, never 0. The
formulas and their reasons are in ``docs/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "LabelMaps",
    "mae",
    "mean_ssim",
    "mse",
    "psnr",
    "psnr_of",
    "region_mean",
    "ssim",
    "ssim_map",
    "vif",
    "vif_maps",
    "vif_ratio",
]

Moments = tuple[Tensor, Tensor, Tensor]
_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5
_VIF_SIZES = (17, 9, 5, 3)
_VIF_NOISE, _VIF_SMALLEST_SIDE, _VIF_EPS = 2.0, 41, 1e-10


def region_mean(values: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of ``values`` over the image, or over ``region`` (bool, same shape); NaN where that is empty."""
    if region is None:
        return values.mean(dim=(1, 2, 3))
    return torch.where(region, values, 0.0).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3))  # 0 / 0 = NaN: no region


def mae(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of ``|pred - label|`` over the image, or over ``region`` (bool, same shape). Returns ``(B,)``."""
    return region_mean((pred.float() - label.float()).abs(), region)


def mse(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of ``(pred - label)^2`` over the image, or over ``region`` (bool, same shape). Returns ``(B,)``."""
    return region_mean((pred.float() - label.float()).square(), region)


def psnr(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio ``-10 log10(mse)`` in dB, data range 1; infinite for equal images."""
    return psnr_of(mse(pred, label, region))


def psnr_of(mean_square: Tensor) -> Tensor:
    """`psnr` of a mean squared error."""
    return -10.0 * torch.log10(mean_square)


class LabelMaps(NamedTuple):
    """What SSIM and VIF need of the real images alone: computed once for several predictions of them.

    Each entry holds the image as it is compared, its local mean and its local mean square; ``ssim`` is None and ``vif``
    empty where a side is too small.
    """

    ssim: Moments | None
    vif: list[Moments]

    @classmethod
    def of(cls, label: Tensor) -> LabelMaps:
        """The maps of ``label`` ``(B, 1, W, H)``."""
        return cls(_ssim_label(label), _vif_label(label))


def _ssim_label(label: Tensor) -> Moments | None:
    return None if min(label.shape[-2:]) < _SSIM_SIZE else _moments(_mirrored(label), _SSIM_SIZE, _SSIM_SIGMA)


def _mirrored(x: Tensor) -> Tensor:
    return functional.pad(x.float(), (_SSIM_SIZE // 2,) * 4, mode="reflect")


def ssim_map(pred: Tensor, label: Tensor, maps: LabelMaps | None = None) -> Tensor:
    """Structural similarity at every pixel, Gaussian window 11x11 with sigma 1.5, data range 1.

    ``(2 m_p m_l + c1)(2 s_pl + c2) / ((m_p^2 + m_l^2 + c1)(s_p^2 + s_l^2 + c2))``, ``c1 = 0.01^2``, ``c2 = 0.03^2``
    (Wang et al. 2004). Images are mirrored at their border. Returns ``(B, 1, W, H)``; NaN if a side is below 11.
    ``maps`` are those of ``label`` where they are known.
    """
    known = _ssim_label(label) if maps is None else maps.ssim
    if known is None:
        return torch.full_like(label, torch.nan, dtype=torch.float32)
    mean_p, mean_l, square_p, square_l, product = _blurred_moments(_mirrored(pred), known, _SSIM_SIZE, _SSIM_SIGMA)
    means, c1, c2 = mean_p * mean_l, 0.01**2, 0.03**2
    squares = mean_p.square() + mean_l.square()
    return (2 * means + c1) * (2 * (product - means) + c2) / ((squares + c1) * (square_p + square_l - squares + c2))


def ssim(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of `ssim_map` over ``region``, or over all pixels whose whole window lies in the image. Returns ``(B,)``."""
    return mean_ssim(ssim_map(pred, label), region)


def mean_ssim(similarity: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of a map made by `ssim_map`, see `ssim`."""
    if region is None and min(similarity.shape[-2:]) >= _SSIM_SIZE:
        similarity = _inside(similarity, _SSIM_SIZE)
    return region_mean(similarity, region)


def vif(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Visual information fidelity in the pixel domain, four scales (Sheikh and Bovik 2006), noise variance 2.

    The noise variance belongs to intensities 0 to 255, so the images are multiplied by 255 here. 1 = equal, 0 = nothing
    left of ``label``; a ``pred`` with more contrast can exceed 1. With ``region`` (bool, same shape) the information is
    summed over windows centred inside it. Returns ``(B,)``; NaN if a side is below 41 or ``label`` is constant.
    """
    return vif_ratio(vif_maps(pred, label), region)


def _vif_label(label: Tensor) -> list[Moments]:
    return [_moments(image, size, size / 5) for image, size in _vif_images(label)]


def _vif_images(x: Tensor) -> Iterator[tuple[Tensor, int]]:
    """The images of each scale and the size of its window; none where a side is too small."""
    if min(x.shape[-2:]) < _VIF_SMALLEST_SIDE:
        return
    image = x.float() * 255.0
    for scale, size in enumerate(_VIF_SIZES):
        if scale > 0:
            image = _blur(image, size, size / 5)[..., ::2, ::2]
        yield image, size


def vif_maps(pred: Tensor, label: Tensor, maps: LabelMaps | None = None) -> list[tuple[Tensor, Tensor]]:
    """Information that ``pred`` keeps of ``label``, and all that is in ``label``, around every pixel of four scales.

    Scale s (0 to 3) has windows of 17, 9, 5, 3 pixels; before each but the first the images are blurred with its
    window and every second pixel is kept. Only whole windows count. One scale of NaN if a side is below 41. ``maps``
    are those of ``label`` where they are known.
    """
    known = _vif_label(label) if maps is None else maps.vif
    if not known:
        absent = torch.full((len(pred), 1, 1, 1), torch.nan, device=label.device)
        return [(absent, absent)]
    scales = zip(_vif_images(pred), known, strict=True)
    return [_vif_scale(image, moments, size) for (image, size), moments in scales]


def vif_ratio(maps: list[tuple[Tensor, Tensor]], region: Tensor | None = None) -> Tensor:
    """Sum of the kept by the sum of all information of `vif_maps`, over the image or over ``region``: `vif`."""
    sums = torch.zeros(2, len(maps[0][0]), device=maps[0][0].device)
    for scale, information in enumerate(maps):
        pair = torch.cat(information, dim=1)
        if region is not None:
            region = region if scale == 0 else _inside(region, _VIF_SIZES[scale])[..., ::2, ::2]
            pair = torch.where(_inside(region, _VIF_SIZES[scale]), pair, 0.0)
        sums = sums + pair.sum(dim=(2, 3)).T
    kept, total = sums
    return torch.where(total > 0, kept / total, torch.nan)


def _blur(x: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian filter without padding, as shifted sums: exact on a GPU too (no TF32) and quick for single channels."""
    weights = [math.exp(-0.5 * ((i - (size - 1) / 2) / sigma) ** 2) for i in range(size)]
    for dim in (-1, -2):
        length = x.shape[dim] - size + 1
        total = x.narrow(dim, 0, length) * (weights[0] / sum(weights))
        for i in range(1, size):
            total.add_(x.narrow(dim, i, length), alpha=weights[i] / sum(weights))
        x = total
    return x


def _moments(image: Tensor, size: int, sigma: float) -> Moments:
    """The image ``(B, 1, W, H)`` and its local means and mean squares."""
    mean, square = _blur(torch.cat([image, image.square()], dim=1), size, sigma).tensor_split(2, dim=1)
    return image, mean, square


def _blurred_moments(pred: Tensor, label: Moments, size: int, sigma: float) -> tuple[Tensor, ...]:
    """Local means of p, l, p^2, l^2 and p l, each ``(B, 1, W, H)``."""
    blurred = _blur(torch.cat([pred, pred.square(), pred * label[0]], dim=1), size, sigma)
    mean, square, product = blurred.tensor_split(3, dim=1)
    return mean, label[1], square, label[2], product


def _vif_scale(pred: Tensor, label: Moments, size: int) -> tuple[Tensor, Tensor]:
    """Information that ``pred`` keeps of the label, and all that is in the latter, at one scale.

    Two maps ``(B, 1, W', H')``, one value for each whole window.
    """
    mean_p, mean_l, square_p, square_l, product = _blurred_moments(pred, label, size, size / 5)
    var_p = (square_p - mean_p.square()).clamp(min=0)
    var_l = (square_l - mean_l.square()).clamp(min=0)
    covariance = product - mean_p * mean_l
    gain = covariance / (var_l + _VIF_EPS)
    usable = (var_l >= _VIF_EPS) & (var_p >= _VIF_EPS) & (gain >= 0)
    var_l = torch.where(var_l >= _VIF_EPS, var_l, 0.0)
    gain = torch.where(usable, gain, 0.0)
    noise = (var_p - gain * covariance).clamp(min=_VIF_EPS)
    kept = torch.log10(1 + gain.square() * var_l / (noise + _VIF_NOISE))
    return kept, torch.log10(1 + var_l / _VIF_NOISE)


def _inside(x: Tensor, size: int) -> Tensor:
    """The pixels of ``x`` ``(B, 1, W, H)`` whose window of ``size`` lies in the image."""
    edge = size // 2
    return x[..., edge:-edge, edge:-edge]
