"""Which pixels of the low-energy image drive the enhancement of one lesion: integrated gradients and occlusion.

What is explained is one number, the mean of the virtual DES over the lesion (`lesion_mean`), so a map is in units of
output intensity: integrated gradients say how much each pixel adds to it, occlusion how much of it is lost without the
patch around a pixel. Both compare the image with the same baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from bundle.metrics import FIELD_OF_VIEW_MM, region_mean
from scripts.explaining.lesions import REGIONS, Regions

__all__ = [
    "SMOOTHING_MM",
    "Attribution",
    "Baseline",
    "baseline_of",
    "batch_size_for",
    "integrated_gradients",
    "lesion_mean",
    "occlusion",
    "pixel_mm",
    "shares",
]

Target = Callable[[Tensor], Tensor]
"""From images ``(B, 1, W, H)`` to the number that is explained, ``(B,)``."""
Baseline = Literal["smoothed", "median"]

SMOOTHING_MM = 30.0
"""Standard deviation of the smoothed baseline: of a lesion of 30 mm an eighth of its contrast stays, of 15 mm 3 %."""
_GREY_LEVEL = 1 / 255
_PIXELS_AT_ONCE = 4 * 256 * 256
"""Pixels that go through the network together, whatever the size of the images: bounds the memory of gradients."""


@dataclass(frozen=True)
class Attribution:
    """A signed map, and what its sum should be.

    Attributes:
        map: ``(1, 1, W, H)`` float32, in units of output intensity.
        difference: of the explained number, image minus baseline.
        delta: sum of the map minus ``difference``; 0 if the map is complete.
    """

    map: Tensor
    difference: float
    delta: float


def pixel_mm(image: Tensor) -> float:
    """Side of a pixel in mm, by the convention of the metrics: the longer side of the image is 220 mm."""
    return FIELD_OF_VIEW_MM / max(image.shape[-2:])


def batch_size_for(image: Tensor) -> int:
    """Images of this size that may go through the network at once, at least 1."""
    return max(1, _PIXELS_AT_ONCE // (image.shape[-2] * image.shape[-1]))


def lesion_mean(network: nn.Module, lesion: Tensor) -> Target:
    """The mean of the virtual DES inside ``lesion`` (bool, ``(1, 1, W, H)``), for images ``(B, 1, W, H)``."""

    def target(images: Tensor) -> Tensor:
        virtual = network(images).float()
        return region_mean(virtual, lesion.expand(virtual.shape))

    return target


def baseline_of(image: Tensor, breast: Tensor, kind: Baseline = "smoothed") -> Tensor:
    """The image without its structure: what the attribution compares it with. The background is 0.

    ``smoothed``: inside the breast a Gaussian mean of the breast's own tissue (background does not count,
    `SMOOTHING_MM`), which keeps thickness and the skin's outline and takes lesions, glands and texture away.
    ``median``: one value, the median of the breast.

    Args:
        image: LE, ``(1, 1, W, H)`` in [0, 1].
        breast: bool, same shape.
        kind: see above.
    """
    inside = breast[0, 0].cpu().numpy()
    pixels = image[0, 0].detach().cpu().numpy().astype(np.float64)
    tissue = np.zeros_like(pixels)
    if inside.any() and kind == "median":
        tissue[inside] = np.median(pixels[inside])
    elif inside.any():
        sigma = SMOOTHING_MM / pixel_mm(image)
        total, weight = (
            ndimage.gaussian_filter(one, sigma, mode="constant") for one in (pixels * inside, inside.astype(float))
        )
        tissue[inside] = total[inside] / weight[inside]
    return torch.from_numpy(tissue)[None, None].to(image)


def integrated_gradients(target: Target, image: Tensor, baseline: Tensor, steps: int) -> Attribution:
    """Integrated gradients along the straight line from ``baseline`` to ``image`` (Sundararajan et al. 2017, eq. 1).

    Args:
        target: what is explained.
        image: ``(1, 1, W, H)``.
        baseline: same shape.
        steps: points of the Gauss-Legendre quadrature.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(target)
    found = method.attribute(image, baselines=baseline, n_steps=steps, internal_batch_size=batch_size_for(image))
    with torch.no_grad():
        difference = float(target(image) - target(baseline))
    return Attribution(found.detach().float(), difference, float(found.double().sum()) - difference)


def occlusion(target: Target, image: Tensor, baseline: Tensor, patch_mm: float) -> Attribution:
    """What ``target`` loses when a square patch is replaced by the baseline (Zeiler and Fergus 2014, section 4.2).

    The patch moves by half its side, and a pixel gets the mean over the patches that cover it. Only the rectangle in
    which image and baseline differ (by a grey level of 8 bits or more) is gone through: elsewhere nothing changes.

    Args:
        target: what is explained.
        image: ``(1, 1, W, H)``.
        baseline: same shape.
        patch_mm: side of the patch.

    Returns:
        the map, the loss when all of the rectangle is replaced, and NaN for ``delta``: patches overlap, so their sum
        means nothing.
    """
    from captum.attr import Occlusion

    left, right, top, bottom = _rectangle((image - baseline).abs() >= _GREY_LEVEL)
    result = torch.zeros_like(image)
    if right == left:
        return Attribution(result, 0.0, float("nan"))
    here = (..., slice(left, right), slice(top, bottom))

    def pasted(parts: Tensor) -> Tensor:
        whole = image.repeat(len(parts), 1, 1, 1)
        whole[here] = parts
        return target(whole)

    wanted = max(1, round(patch_mm / pixel_mm(image)))
    sides = [min(wanted, right - left), min(wanted, bottom - top)]
    strides = [max(1, side // 2) for side in sides]
    result[here] = Occlusion(pasted).attribute(
        image[here],
        sliding_window_shapes=(1, *sides),
        strides=(1, *strides),
        baselines=baseline[here],
        perturbations_per_eval=batch_size_for(image),
    )
    with torch.no_grad():
        difference = float(target(image) - pasted(baseline[here]))
    return Attribution(result.float(), difference, float("nan"))


def _rectangle(where: Tensor) -> tuple[int, int, int, int]:
    """Bounds ``(left, right, top, bottom)`` of the pixels of ``(1, 1, W, H)`` that are True; all 0 for none."""
    places = where[0, 0].nonzero()
    if not len(places):
        return 0, 0, 0, 0
    (left, top), (right, bottom) = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
    return left, right, top, bottom


def shares(attribution: Tensor, regions: Regions) -> dict[str, float]:
    """The part of the sum of ``|attribution|`` in each region; NaN where the map is 0 everywhere."""
    size = attribution.abs().double()
    total = float(size.sum())
    inside = {name: float(size[getattr(regions, name)].sum()) for name in REGIONS}
    return {name: value / total if total > 0 else float("nan") for name, value in inside.items()}
