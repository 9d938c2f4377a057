"""What the report knows of each figure of docs/metrics.md: its title, unit, digits and what is good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["HEADLINE", "METRICS", "Metric", "metric_of"]


@dataclass(frozen=True)
class Metric:
    """How a figure is shown.

    Attributes:
        name: its column in ``cases.csv``.
        title: in words.
        unit: "" for a pure number.
        digits: after the point.
        good: ``high``, ``low``, ``1`` (closest to one), ``0`` (closest to zero), or "" where neither end is good.
    """

    name: str
    title: str
    unit: str = ""
    digits: int = 3
    good: str = ""

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    def badness(self, value: float | None) -> float:
        """A number that is larger the worse ``value`` is; NaN where the figure has no direction or does not exist."""
        if value is None or not self.good:
            return math.nan
        return {"high": -value, "low": value, "1": abs(value - 1), "0": abs(value)}[self.good]


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("psnr", "PSNR", "dB", 2, "high"),
            Metric("ssim", "SSIM", "", 3, "1"),
            Metric("vif", "VIF", "", 3, "1"),
            Metric("mae", "MAE", "", 4, "low"),
            Metric("mse", "MSE", "", 5, "low"),
            Metric("breast_psnr", "breast PSNR", "dB", 2, "high"),
            Metric("breast_ssim", "breast SSIM", "", 3, "1"),
            Metric("breast_vif", "breast VIF", "", 3, "1"),
            Metric("breast_mae", "breast MAE", "", 4, "low"),
            Metric("breast_mse", "breast MSE", "", 5, "low"),
            Metric("lesion_psnr", "lesion PSNR", "dB", 2, "high"),
            Metric("lesion_ssim", "lesion SSIM", "", 3, "1"),
            Metric("lesion_mae", "lesion MAE", "", 4, "low"),
            Metric("lesion_mse", "lesion MSE", "", 5, "low"),
            Metric("lesion_contrast_real", "lesion contrast, real", "", 3),
            Metric("lesion_contrast_virtual", "lesion contrast, virtual", "", 3),
            Metric("lesion_cnr_real", "lesion CNR, real", "", 2),
            Metric("lesion_cnr_virtual", "lesion CNR, virtual", "", 2),
            Metric("lesion_contrast_r", "lesion contrast r", "", 2, "1"),
            Metric("contrast_recovery", "contrast recovery", "", 2, "1"),
            Metric("lesion_dice", "lesion Dice", "", 3, "1"),
            Metric("enhancement_auc", "enhancement AUC", "", 3, "1"),
            Metric("false_enhancement", "false enhancement", "", 4, "0"),
            Metric("diversity", "diversity", "", 2, "1"),
            Metric("lesion_mm", "lesion size", "mm", 1),
        )
    }
)
"""By name, in the order they are shown."""

HEADLINE = (
    "psnr",
    "ssim",
    "vif",
    "breast_psnr",
    "breast_ssim",
    "breast_mae",
    "lesion_psnr",
    "lesion_ssim",
    "lesion_mae",
    "lesion_contrast_r",
    "contrast_recovery",
    "lesion_dice",
    "enhancement_auc",
    "false_enhancement",
)
"""The figures of the first table."""


def metric_of(name: str) -> Metric:
    """The metric of this name; an unknown one is shown under its own name, without a direction."""
    return METRICS.get(name, Metric(name, name.replace("_", " ")))
