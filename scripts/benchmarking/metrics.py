"""All figures of a case beside the four of a whole image that libraries compute, one image at a time."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import visual_information_fidelity

from bundle.metrics import CASE_FIGURES, case_metrics, several_case_metrics
from scripts.benchmarking.measure import Row, compare, ratio

__all__ = ["rows"]

PART = "metrics"
PREDICTIONS = 4
"""Of each case in an evaluation: the model and its references."""


def rows(size: int = 256, cases: int = 16, budget_s: float = 12.0) -> list[Row]:
    """Agreement with the libraries, then time, with what 1,000 cases of an evaluation take."""
    image, label, mask, preds = _cases(size, cases)
    ours, theirs = case_metrics(preds[0], label, image, mask), _library(preds[0], label)
    found = [
        Row(PART, f"{name}: largest difference from the library", difference, "", limit)
        for name, limit in (("psnr", "<= 1e-5"), ("ssim", "<= 1e-6"), ("mae", "<= 1e-7"), ("vif", "<= 1e-6"))
        for difference in [float((ours[name].double() - theirs[name]).abs().max())]
    ]
    timings = compare(
        {
            "libraries": lambda: _library(preds[0], label),
            "ours": lambda: case_metrics(preds[0], label, image, mask),
            "evaluation": lambda: several_case_metrics(preds, label, image, mask),
        },
        budget_s=budget_s,
    )
    note = f"{len(CASE_FIGURES)} figures {timings['ours']} against 4 figures {timings['libraries']}, {cases} cases"
    gain = ratio(timings, "libraries", "ours")
    found.append(Row(PART, "all figures of a case against four of libraries", gain, "x", ">= 1", note))
    seconds = timings["evaluation"].median / cases * 1000
    what = f"1000 cases of {size} px with {PREDICTIONS} predictions each (scaled from {cases})"
    return [*found, Row(PART, what, seconds, "s", "", str(timings["evaluation"]))]


def _cases(size: int, cases: int) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Smooth noise inside half a disc, with a bright lesion."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((PREDICTIONS + 2, cases, size, size))
    smooth = np.stack([ndimage.gaussian_filter(one, (0, 2, 2)) for one in noise])
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(-1, 1, size), indexing="ij")
    breast = ((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1).astype(float)
    lesion = ((x - 0.3) ** 2 + y**2 < 0.01).astype(float)
    images = [torch.from_numpy(np.clip(breast * (0.4 + 0.3 * lesion + one), 0, 1)).float()[:, None] for one in smooth]
    mask = torch.from_numpy(lesion).float().expand(cases, 1, size, size)
    return images[0], images[1], mask, images[2:]


def _library(preds: Tensor, labels: Tensor) -> dict[str, Tensor]:
    found: dict[str, list[float]] = {"psnr": [], "ssim": [], "mae": [], "vif": []}
    for pred, label in zip(preds, labels, strict=True):
        one, other = pred[0].numpy().astype(np.float64), label[0].numpy().astype(np.float64)
        found["psnr"].append(peak_signal_noise_ratio(other, one, data_range=1.0))
        similarity = structural_similarity(
            other, one, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        found["ssim"].append(float(similarity))
        found["mae"].append(float(np.abs(one - other).mean()))
        fidelity = visual_information_fidelity(255 * pred[None], 255 * label[None])
        found["vif"].append(float(fidelity))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
