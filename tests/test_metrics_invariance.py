"""What must not change a figure, and what must change it by a known amount."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import visual_information_fidelity

from bundle import metrics
from bundle.metrics import CASE_FIGURES, case_metrics

SIDE = 97
"""Of this side every second pixel of every VIF scale is the same from either end, so that VIF is mirrored exactly."""
Case = tuple[Tensor, Tensor, Tensor, Tensor]


def make_case(seed: int = 1, side: int = SIDE) -> Case:
    """pred, label, image, mask: a textured breast at one edge, with a lesion; far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    breast = (x**2 + (y - side // 2) ** 2 < (0.45 * side) ** 2).float()[None, None]
    mask = ((x - 20) ** 2 + (y - side // 2 - 7) ** 2 <= 25).float()[None, None]
    noise = torch.rand(3, 1, 1, side, side, generator=generator)
    image = breast * (0.3 + 0.2 * noise[0])
    label = breast * (0.2 + 0.2 * noise[1] + 0.15 * mask)
    return 0.9 * label + 0.05 * noise[2] * breast, label, image, mask


def figures_of(case: Case) -> dict[str, float]:
    return {name: float(value) for name, value in case_metrics(*case).items()}


@pytest.mark.parametrize("dims", [(-1,), (-2,), (-1, -2)])
def test_mirrored_images_have_the_same_figures(dims: tuple[int, ...]) -> None:
    pred, label, image, mask = (x.flip(dims) for x in make_case())
    assert figures_of((pred, label, image, mask)) == pytest.approx(figures_of(make_case()), rel=1e-3)


def test_images_of_swapped_axes_have_the_same_figures() -> None:
    pred, label, image, mask = (x.transpose(-1, -2) for x in make_case())
    assert figures_of((pred, label, image, mask)) == pytest.approx(figures_of(make_case()), rel=1e-3)


def test_a_constant_on_both_images_leaves_errors_and_contrasts() -> None:
    pred, label, image, mask = make_case()
    before, after = figures_of((pred, label, image, mask)), figures_of((pred + 0.1, label + 0.1, image, mask))
    untouched = [name for name in CASE_FIGURES if "ssim" not in name]  # SSIM compares means relative to their level
    assert {name: after[name] for name in untouched} == pytest.approx({n: before[n] for n in untouched}, rel=1e-3)
    assert after["ssim"] > before["ssim"]


def test_a_factor_on_both_images_scales_errors_and_contrasts_and_leaves_cnr() -> None:
    pred, label, image, mask = make_case()
    before, after = figures_of((pred, label, image, mask)), figures_of((0.5 * pred, 0.5 * label, image, mask))
    factors = {
        **dict.fromkeys(["mae", "breast_mae", "lesion_mae", "false_enhancement"], 0.5),
        **dict.fromkeys(["mse", "breast_mse", "lesion_mse"], 0.25),
        **dict.fromkeys(["lesion_contrast_real", "lesion_contrast_virtual"], 0.5),
        **dict.fromkeys(["lesion_cnr_real", "lesion_cnr_virtual", "lesion_dice", "lesion_mm"], 1.0),
    }
    for name, factor in factors.items():
        assert after[name] == pytest.approx(factor * before[name], rel=1e-3), name
    for name in ("psnr", "breast_psnr", "lesion_psnr"):
        assert after[name] == pytest.approx(before[name] + 20 * math.log10(2), rel=1e-4), name


def test_exchanging_the_images_exchanges_their_contrasts_and_leaves_errors() -> None:
    pred, label, image, mask = make_case()
    before, after = figures_of((pred, label, image, mask)), figures_of((label, pred, image, mask))
    for name in ("psnr", "ssim", "mae", "breast_mse", "breast_ssim", "lesion_psnr", "lesion_mse", "lesion_dice"):
        assert after[name] == pytest.approx(before[name], rel=1e-4), name
    for name in ("lesion_contrast", "lesion_cnr"):
        assert after[f"{name}_virtual"] == pytest.approx(before[f"{name}_real"], rel=1e-4)


def test_the_order_of_the_cases_matters_to_no_figure_of_the_set() -> None:
    cases = [make_case(seed) for seed in range(6)]
    rows = pd.DataFrame([figures_of((p * (0.7 + 0.05 * i), *rest)) for i, (p, *rest) in enumerate(cases)])  # type: ignore[arg-type]
    shuffled = rows.sample(frac=1.0, random_state=1)
    assert metrics.summarise(shuffled) == pytest.approx(metrics.summarise(rows), nan_ok=True)
    preds, labels = (torch.cat([case[i] for case in cases]) for i in (0, 1))
    assert metrics.diversity(preds.flip(0), labels.flip(0)) == pytest.approx(metrics.diversity(preds, labels))


def test_a_case_without_lesion_leaves_the_lesion_figures_of_the_set_as_they_were() -> None:
    pred, label, image, mask = make_case()
    rows = [figures_of((pred, label, image, mask)), figures_of((pred, label, image, torch.zeros_like(mask)))]
    alone, both = metrics.summarise(pd.DataFrame(rows[:1])), metrics.summarise(pd.DataFrame(rows))
    lesion = [name for name in CASE_FIGURES if name.startswith("lesion_")]
    assert all(math.isnan(rows[1][name]) for name in lesion)
    assert {name: both[name] for name in lesion} == pytest.approx({name: alone[name] for name in lesion})


def test_psnr_of_pure_noise_is_what_arithmetic_says() -> None:
    # of two independent uniform numbers the mean squared difference is 1/6: 10 log10(6) = 7.78 dB
    pred, label = torch.rand(2, 1, 1, 512, 512, generator=torch.Generator().manual_seed(1))
    assert metrics.mse(pred, label).item() == pytest.approx(1 / 6, rel=0.01)
    assert metrics.psnr(pred, label).item() == pytest.approx(10 * math.log10(6), abs=0.05)


def test_ssim_and_vif_of_pure_noise_are_near_0() -> None:
    pred, label = torch.rand(2, 1, 1, 256, 256, generator=torch.Generator().manual_seed(1))
    assert abs(metrics.ssim(pred, label).item()) < 0.02
    assert metrics.vif(pred, label).item() < 0.02


def test_vif_of_the_breast_is_the_global_one_where_everything_is_breast() -> None:
    pred, label, *_ = make_case()
    everything = torch.ones_like(label, dtype=torch.bool)
    torch.testing.assert_close(metrics.vif(pred, label, everything), metrics.vif(pred, label), rtol=1e-5, atol=0)


def test_pixels_far_from_the_breast_do_not_change_its_vif() -> None:
    side = 192
    pred, label, image, _ = make_case(side=side)
    expected = case_metrics(pred, label, image)
    far = torch.zeros_like(pred)
    far[..., 150:, :] = torch.rand(side - 150, side, generator=torch.Generator().manual_seed(3))
    changed = case_metrics(pred + far, label + far.flip(-1), image)
    for name in ("breast_vif", "breast_mse", "breast_ssim"):
        torch.testing.assert_close(changed[name], expected[name], rtol=1e-4, atol=0, msg=name)
    assert abs(changed["vif"] - expected["vif"]) > 0.05


def test_vif_of_a_breast_far_from_the_borders_is_that_of_its_part_of_the_image() -> None:
    # in a half of the image that is bright and textured, against a constant other half without information
    pred, label = torch.full((2, 1, 1, 192, 192), 0.5)
    generator = torch.Generator().manual_seed(2)
    label[..., 48:144, 48:144] = torch.rand(96, 96, generator=generator)
    pred = label + 0.2 * (torch.rand(label.shape, generator=generator) - 0.5) * (label != 0.5)
    region = torch.zeros_like(label, dtype=torch.bool)
    region[..., 8:184, 8:184] = True
    expected = visual_information_fidelity(pred.double() * 255, label.double() * 255)
    assert metrics.vif(pred, label, region).item() == pytest.approx(expected.item(), rel=1e-3)


def test_breast_and_lesion_errors_are_the_means_over_their_pixels() -> None:
    pred, label, image, mask = make_case()
    figures = figures_of((pred, label, image, mask))
    errors = (pred - label).double().numpy() ** 2
    assert figures["breast_mse"] == pytest.approx(np.mean(errors[image.numpy() > 0.02]), rel=1e-5)
    assert figures["lesion_mse"] == pytest.approx(np.mean(errors[mask.numpy() > 0.5]), rel=1e-5)
    assert figures["lesion_psnr"] == pytest.approx(-10 * math.log10(figures["lesion_mse"]), rel=1e-5)


def test_the_size_of_a_disc_is_its_diameter_and_the_square_has_that_of_the_disc_of_its_area() -> None:
    x, y = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    disc = ((x - 100) ** 2 + (y - 100) ** 2 <= 50**2).float()[None, None]
    square = torch.zeros_like(disc)
    square[..., 10:40, 10:40] = 1
    assert metrics.lesion_diameter(disc, pixel_mm=0.1).item() == pytest.approx(10.0, rel=0.01)
    assert metrics.lesion_diameter(square, pixel_mm=0.5).item() == pytest.approx(2 * math.sqrt(15**2 / math.pi))
    assert metrics.lesion_diameter(disc).item() == pytest.approx(100 * 220 / 200, rel=0.01)
    assert math.isnan(metrics.lesion_diameter(torch.zeros_like(disc)))
