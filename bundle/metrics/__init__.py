"""Metrics of virtual DES images against the real ones: whole image, breast and lesion; cases and sets of cases.

A figure that does not exist (no lesion, no breast, an image too small for the filter) is NaN, never 0, so means over
cases must skip NaN, as `summarise` does. The formulas and their reasons are in ``docs/metrics.md``.
"""

from __future__ import annotations

from bundle.metrics.case import CASE_FIGURES, ENHANCING_CNR, case_metrics, several_case_metrics
from bundle.metrics.distribution import (
    frechet_distance,
    frechet_inception_distance,
    frechet_radiomics_distance,
    kernel_distance,
    kernel_inception_distance,
    network_features,
    perceptual_distance,
    radiomics_remedy,
)
from bundle.metrics.ignite_metrics import CaseFigure, SetDistance, SetFigure
from bundle.metrics.image import mae, mean_ssim, mse, psnr, region_mean, ssim, ssim_map, vif, vif_maps, vif_ratio
from bundle.metrics.lesion import (
    BREAST_THRESHOLD,
    FIELD_OF_VIEW_MM,
    RING_MM,
    breast_region,
    lesion_contrast,
    lesion_diameter,
    lesion_ring,
)
from bundle.metrics.summary import SET_FIGURES, diversity, summarise

__all__ = [
    "BREAST_THRESHOLD",
    "CASE_FIGURES",
    "ENHANCING_CNR",
    "FIELD_OF_VIEW_MM",
    "RING_MM",
    "SET_FIGURES",
    "CaseFigure",
    "SetDistance",
    "SetFigure",
    "breast_region",
    "case_metrics",
    "diversity",
    "frechet_distance",
    "frechet_inception_distance",
    "frechet_radiomics_distance",
    "kernel_distance",
    "kernel_inception_distance",
    "lesion_contrast",
    "lesion_diameter",
    "lesion_ring",
    "mae",
    "mean_ssim",
    "mse",
    "network_features",
    "perceptual_distance",
    "psnr",
    "radiomics_remedy",
    "region_mean",
    "several_case_metrics",
    "ssim",
    "ssim_map",
    "summarise",
    "vif",
    "vif_maps",
    "vif_ratio",
]
