"""Metrics of one virtual DES against the real one: whole image, breast and lesion.

Every function takes batches ``(B, 1, W, H)`` with intensities in [0, 1] and returns ``(B,)``, one figure per image, in
float32. A figure whose region is absent (no lesion, no breast, an image too small for the filter) is NaN, never 0, so
means over cases must skip NaN, as `summarise` does. The formulas and their reasons are in ``docs/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

__all__ = [
    "BREAST_THRESHOLD",
    "FIELD_OF_VIEW_MM",
    "RING_MM",
    "breast_region",
    "case_metrics",
    "diversity",
    "lesion_contrast",
    "lesion_ring",
    "mae",
    "mse",
    "psnr",
    "ssim",
    "ssim_map",
    "summarise",
    "vif",
]

BREAST_THRESHOLD = 0.02
"""Low-energy intensity above which a pixel is breast; the background is 0 and JPEG noise stays below 5/255."""
RING_MM = (2.0, 8.0)
"""Inner and outer distance of the reference ring from the lesion's edge, in mm."""
FIELD_OF_VIEW_MM = 220.0
"""Longer side of the image in mm where the pixel size is not known: the phantom has 200, CDD-CESM 234 on average."""
ENHANCING_CNR = 1.0
"""A pixel, or a lesion, enhances where it exceeds the ring by this many standard deviations of the ring."""

_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5
_VIF_NOISE, _VIF_SMALLEST_SIDE, _VIF_EPS = 2.0, 41, 1e-10


def mae(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of ``|pred - label|`` over the image, or over ``region`` (bool, same shape). Returns ``(B,)``."""
    return _mean((pred.float() - label.float()).abs(), region)


def mse(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of ``(pred - label)^2`` over the image, or over ``region`` (bool, same shape). Returns ``(B,)``."""
    return _mean((pred.float() - label.float()).square(), region)


def psnr(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio ``-10 log10(mse)`` in dB, data range 1; infinite for equal images."""
    return -10.0 * torch.log10(mse(pred, label, region))


def ssim_map(pred: Tensor, label: Tensor) -> Tensor:
    """Structural similarity at every pixel, Gaussian window 11x11 with sigma 1.5, data range 1.

    ``(2 m_p m_l + c1)(2 s_pl + c2) / ((m_p^2 + m_l^2 + c1)(s_p^2 + s_l^2 + c2))``, ``c1 = 0.01^2``, ``c2 = 0.03^2``
    (Wang et al. 2004). Images are mirrored at their border. Returns ``(B, 1, W, H)``; NaN if a side is below 11.
    """
    if min(pred.shape[-2:]) < _SSIM_SIZE:
        return torch.full_like(label, torch.nan, dtype=torch.float32)
    padded = torch.cat([pred, label], dim=1).float()
    padded = functional.pad(padded, (_SSIM_SIZE // 2,) * 4, mode="reflect")
    mean_p, mean_l, square_p, square_l, product = _blurred_moments(padded, _SSIM_SIZE, _SSIM_SIGMA)
    means, c1, c2 = mean_p * mean_l, 0.01**2, 0.03**2
    squares = mean_p.square() + mean_l.square()
    return (2 * means + c1) * (2 * (product - means) + c2) / ((squares + c1) * (square_p + square_l - squares + c2))


def ssim(pred: Tensor, label: Tensor, region: Tensor | None = None) -> Tensor:
    """Mean of `ssim_map` over ``region``, or over all pixels whose whole window lies in the image. Returns ``(B,)``."""
    return _mean_ssim(ssim_map(pred, label), region)


def vif(pred: Tensor, label: Tensor) -> Tensor:
    """Visual information fidelity in the pixel domain, four scales (Sheikh and Bovik 2006), noise variance 2.

    The noise variance belongs to intensities 0 to 255, so the images are multiplied by 255 here. 1 = equal, 0 = nothing
    left of ``label``; a ``pred`` with more contrast can exceed 1. Returns ``(B,)``; NaN if a side is below 41 or
    ``label`` is constant.
    """
    if min(pred.shape[-2:]) < _VIF_SMALLEST_SIDE:
        return torch.full((len(pred),), torch.nan, device=label.device)
    images = torch.cat([pred, label], dim=1).float() * 255.0
    kept, total = torch.zeros(2, len(pred), device=images.device)
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        if scale > 0:
            images = _blur(images, size, size / 5)[..., ::2, ::2]
        kept_here, total_here = _vif_scale(images, size)
        kept, total = kept + kept_here, total + total_here
    return torch.where(total > 0, kept / total, torch.nan)


def breast_region(image: Tensor) -> Tensor:
    """Breast in the low-energy ``image`` ``(B, 1, W, H)``: above `BREAST_THRESHOLD`, holes filled. Returns bool."""
    above = (image > BREAST_THRESHOLD).cpu().numpy()
    filled = np.stack([ndimage.binary_fill_holes(one[0])[None] for one in above])
    return torch.from_numpy(filled).to(image.device)


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
    spacing = pixel_mm if pixel_mm is not None else FIELD_OF_VIEW_MM / max(mask.shape[-2:])
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
    return _mean(img.float(), (mask > 0.5) & breast) - _mean(img.float(), ring)


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
        breast: ``breast_psnr``, ``breast_ssim``, ``breast_mae``; lesion: ``lesion_psnr``, ``lesion_ssim``,
        ``lesion_mae``, ``lesion_contrast_real`` and ``_virtual`` (`lesion_contrast`), ``lesion_cnr_real`` and
        ``_virtual`` (contrast by the standard deviation in the ring), ``lesion_dice`` (of the pixels that enhance);
        outside the lesion: ``false_enhancement``, the mean of ``max(pred - label, 0)`` over the breast without the
        lesion's margin.

    Raises:
        ValueError: shapes differ or intensities leave [0, 1], with the tensor's name and what to do.
    """
    mask = torch.zeros_like(label) if mask is None else mask
    _check(pred=pred, label=label, image=image, mask=mask)
    pred, label, image, mask = (_plain(x, pred.device) for x in (pred, label, image, mask))
    breast, lesion, similarity = breast_region(image), mask > 0.5, ssim_map(pred, label)
    near, ring = lesion_ring(mask, breast, pixel_mm)
    figures = {
        "psnr": psnr(pred, label),
        "ssim": _mean_ssim(similarity, None),
        "mae": mae(pred, label),
        "mse": mse(pred, label),
        "vif": vif(pred, label),
        "breast_psnr": psnr(pred, label, breast),
        "breast_ssim": _mean_ssim(similarity, breast),
        "breast_mae": mae(pred, label, breast),
        "lesion_psnr": psnr(pred, label, lesion),
        "lesion_ssim": _mean_ssim(similarity, lesion),
        "lesion_mae": mae(pred, label, lesion),
        "false_enhancement": _mean((pred - label).clamp(min=0), breast & ~near),
    }
    return figures | _contrast_figures(pred, label, lesion & breast, near & breast, ring)


def diversity(preds: Tensor, labels: Tensor) -> float:
    """Spread of the outputs over the cases against the spread of the real images: 0 = always the same output.

    ``sqrt(mean_pixels var_cases(preds) / mean_pixels var_cases(labels))`` for ``(N, ...)``; NaN for fewer than 2 cases.
    """
    if len(preds) < 2:
        return math.nan
    ours, real = (x.float().var(dim=0).mean() for x in (preds, labels))
    return float((ours / real).sqrt()) if real > 0 else math.nan


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """Means over the cases, without NaN, and the figures that exist only over several cases.

    Args:
        rows: one row per case; every numeric column is averaged.

    Returns:
        column -> mean, and where the contrast columns exist ``lesion_contrast_r`` (Pearson's correlation of virtual and
        real lesion contrast; NaN for fewer than 3 lesions), ``contrast_recovery`` (mean virtual by mean real contrast)
        and ``enhancement_auc`` (how well virtual CNR tells lesions that enhance, real CNR above 1, from the others).
    """
    means = {str(name): float(column.mean()) for name, column in rows.select_dtypes("number").items()}
    if "lesion_contrast_real" not in rows or "lesion_contrast_virtual" not in rows:
        return means
    real, virtual = _both_finite(rows, "lesion_contrast_real", "lesion_contrast_virtual")
    means["lesion_contrast_r"] = _pearson(real, virtual)
    means["contrast_recovery"] = float(virtual.mean() / real.mean()) if len(real) and real.mean() != 0 else math.nan
    if "lesion_cnr_real" in rows and "lesion_cnr_virtual" in rows:
        real, virtual = _both_finite(rows, "lesion_cnr_real", "lesion_cnr_virtual")
        means["enhancement_auc"] = _auc(virtual, real > ENHANCING_CNR)
    return means


def _contrast_figures(pred: Tensor, label: Tensor, lesion: Tensor, near: Tensor, ring: Tensor) -> dict[str, Tensor]:
    figures, enhancing = {}, []
    for name, img in (("real", label), ("virtual", pred)):
        level = _mean(img, ring)
        spread = _mean((img - level.view(-1, 1, 1, 1)).square(), ring).sqrt()
        contrast = _mean(img, lesion) - level
        figures[f"lesion_contrast_{name}"] = contrast
        figures[f"lesion_cnr_{name}"] = torch.where(spread > 1e-6, contrast / spread, torch.nan)
        enhancing.append(near & (img > (level + ENHANCING_CNR * spread).view(-1, 1, 1, 1)))
    real, virtual = enhancing
    overlap, size = ((real & virtual).sum((1, 2, 3)), real.sum((1, 2, 3)) + virtual.sum((1, 2, 3)))
    figures["lesion_dice"] = 2.0 * overlap / size  # 0 / 0 = NaN: neither image enhances
    return figures


def _mean(values: Tensor, region: Tensor | None) -> Tensor:
    if region is None:
        return values.mean(dim=(1, 2, 3))
    return torch.where(region, values, 0.0).sum(dim=(1, 2, 3)) / region.sum(dim=(1, 2, 3))  # 0 / 0 = NaN: no region


def _mean_ssim(similarity: Tensor, region: Tensor | None) -> Tensor:
    if region is None and min(similarity.shape[-2:]) >= _SSIM_SIZE:
        edge = _SSIM_SIZE // 2
        similarity = similarity[..., edge:-edge, edge:-edge]
    return _mean(similarity, region)


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


def _blurred_moments(pair: Tensor, size: int, sigma: float) -> tuple[Tensor, ...]:
    """Local means of p, l, p^2, l^2 and p l of images ``(B, 2, W, H)`` = (p, l), each ``(B, 1, W, H)``."""
    product = pair[:, :1] * pair[:, 1:]
    return torch.tensor_split(_blur(torch.cat([pair, pair.square(), product], dim=1), size, sigma), 5, dim=1)


def _vif_scale(images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Information that ``images[:, 0]`` keeps of ``images[:, 1]``, and all that is in the latter, at one scale."""
    mean_p, mean_l, square_p, square_l, product = _blurred_moments(images, size, size / 5)
    var_p = (square_p - mean_p.square()).clamp(min=0)
    var_l = (square_l - mean_l.square()).clamp(min=0)
    covariance = product - mean_p * mean_l
    gain = covariance / (var_l + _VIF_EPS)
    usable = (var_l >= _VIF_EPS) & (var_p >= _VIF_EPS) & (gain >= 0)
    var_l = torch.where(var_l >= _VIF_EPS, var_l, 0.0)
    gain = torch.where(usable, gain, 0.0)
    noise = (var_p - gain * covariance).clamp(min=_VIF_EPS)
    kept = torch.log10(1 + gain.square() * var_l / (noise + _VIF_NOISE))
    return kept.sum(dim=(1, 2, 3)), torch.log10(1 + var_l / _VIF_NOISE).sum(dim=(1, 2, 3))


def _plain(x: Tensor, device: torch.device) -> Tensor:
    """Float32 on ``device`` and no MetaTensor, whose bookkeeping would slow every operation."""
    return x.detach().as_subclass(Tensor).to(device=device, dtype=torch.float32)


def _check(**tensors: Tensor) -> None:
    expected = tensors["label"].shape
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


def _both_finite(rows: pd.DataFrame, *names: str) -> Sequence[pd.Series[float]]:
    finite = rows[list(names)].replace([np.inf, -np.inf], np.nan).dropna()
    return [finite[name].astype(float) for name in names]


def _pearson(x: pd.Series[float], y: pd.Series[float]) -> float:
    if len(x) < 3 or x.std() < 1e-6 or y.std() < 1e-6:
        return math.nan
    return float(x.corr(y))


def _auc(score: pd.Series[float], positive: pd.Series[bool]) -> float:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return math.nan
    return float((score.rank()[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
