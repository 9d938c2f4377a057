from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu, pearsonr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import visual_information_fidelity

from bundle import metrics


def breast_image(batch: int = 2, side: int = 96) -> Tensor:
    """A textured half disc against the left edge, background 0."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = x**2 + (y - side // 2) ** 2 < (0.45 * side) ** 2
    coarse = torch.rand(batch, 1, side // 8, side // 8, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return inside * (0.3 + 0.4 * texture)


def disc(side: int = 96, centre: tuple[int, int] = (20, 48), radius: float = 5) -> Tensor:
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2).float()[None, None]


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    label = breast_image()
    noise = 0.05 * torch.randn(label.shape, generator=torch.Generator().manual_seed(5))
    return (label * 0.9 + noise).clamp(0, 1), label


def test_psnr_and_mse_equal_skimage(pair: tuple[Tensor, Tensor]) -> None:
    pred, label = pair
    for i in range(2):
        expected = peak_signal_noise_ratio(label[i].double().numpy(), pred[i].double().numpy(), data_range=1)
        assert float(metrics.psnr(pred, label)[i]) == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_skimage_with_gaussian_weights(pair: tuple[Tensor, Tensor]) -> None:
    pred, label = pair
    for i in range(2):
        expected, expected_map = structural_similarity(
            label[i, 0].double().numpy(),
            pred[i, 0].double().numpy(),
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        assert float(metrics.ssim(pred, label)[i]) == pytest.approx(expected, abs=1e-5)
        ours = metrics.ssim_map(pred, label)[i, 0, 5:-5, 5:-5]
        np.testing.assert_allclose(ours, expected_map[5:-5, 5:-5], atol=1e-4)


def test_vif_equals_torchmetrics_on_0_to_255(pair: tuple[Tensor, Tensor]) -> None:
    pred, label = pair
    expected = visual_information_fidelity(pred.double() * 255, label.double() * 255, reduction="none")
    torch.testing.assert_close(metrics.vif(pred, label).double(), expected, atol=1e-4, rtol=0)


def test_equal_images_are_perfect() -> None:
    image = breast_image()
    figures = metrics.case_metrics(image, image, image, disc().expand(2, -1, -1, -1))
    for name in ("ssim", "vif", "breast_ssim", "lesion_ssim"):
        torch.testing.assert_close(figures[name], torch.ones(2), atol=1e-4, rtol=0)
    for name in ("mae", "mse", "breast_mae", "lesion_mae", "false_enhancement"):
        assert figures[name].tolist() == [0.0, 0.0]
    assert figures["psnr"].tolist() == [math.inf, math.inf]


def test_a_region_limits_the_mean_to_its_pixels() -> None:
    label = torch.zeros(1, 1, 8, 8)
    pred = label.clone()
    pred[..., :2, :] = 0.5
    region = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    region[..., :4, :] = True
    assert metrics.mae(pred, label, region).item() == pytest.approx(0.25)
    assert metrics.mae(pred, label).item() == pytest.approx(0.125)
    assert metrics.psnr(pred, label, region).item() == pytest.approx(-10 * math.log10(0.125))


def test_nan_outside_the_region_does_not_count() -> None:
    pred, label = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    pred[..., 0, 0] = math.nan
    region = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    region[..., 0, 0] = False
    assert metrics.mae(pred, label, region).item() == 0.0


def test_the_breast_is_what_is_brighter_than_the_background_without_holes() -> None:
    image = breast_image(1)
    expected = image > 0
    image[..., 10:14, 44:50] = 0.0
    image[..., 80:, :] = 2 / 255  # noise of a JPEG background
    assert torch.equal(metrics.breast_region(image), expected)


def test_the_ring_lies_between_2_and_8_mm_from_the_lesion_and_inside_the_breast() -> None:
    mask, breast = disc(radius=5), breast_image(1) > 0
    near, ring = metrics.lesion_ring(mask, breast, pixel_mm=1.0)
    x, y = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    lesion = torch.nonzero(mask[0, 0])
    distance = torch.cdist(torch.stack([x.flatten(), y.flatten()], 1).float(), lesion.float()).amin(1).view(96, 96)
    assert torch.equal(near[0, 0], distance <= 2)
    assert torch.equal(ring[0, 0], (distance > 2) & (distance <= 8) & breast[0, 0])


def test_without_a_pixel_size_the_ring_scales_with_the_side_of_the_image() -> None:
    small, large = disc(192, (96, 96), 20), disc(384, (192, 192), 40)
    areas = [metrics.lesion_ring(m, torch.ones_like(m, dtype=torch.bool))[1].float().mean() for m in (small, large)]
    assert areas[0].item() == pytest.approx(areas[1].item(), rel=0.1)


def test_lesion_contrast_is_the_difference_of_the_means() -> None:
    breast, mask = breast_image(1) > 0, disc()
    image = 0.3 * breast + 0.25 * mask
    assert metrics.lesion_contrast(image, mask, breast).item() == pytest.approx(0.25, abs=1e-6)


def test_the_background_beside_a_lesion_at_the_skin_does_not_make_contrast() -> None:
    breast = breast_image(1) > 0
    mask = disc(centre=(40, 48), radius=6)  # reaches over the skin
    assert metrics.lesion_contrast(0.3 * breast, mask, breast).item() == pytest.approx(0.0, abs=1e-6)


def test_cases_without_lesion_have_nan_lesion_figures_and_do_not_lower_the_mean() -> None:
    image = breast_image()
    mask = torch.cat([disc(), torch.zeros_like(disc())])
    figures = metrics.case_metrics(0.9 * image, image, image, mask)
    lesion = {name: value for name, value in figures.items() if name.startswith("lesion_")}
    assert all(math.isnan(value[1]) for value in lesion.values())
    assert not any(math.isnan(value[0]) for name, value in lesion.items() if name != "lesion_dice")
    summary = metrics.summarise(pd.DataFrame({name: value.tolist() for name, value in figures.items()}))
    assert summary["lesion_mae"] == pytest.approx(figures["lesion_mae"][0].item())


def test_no_mask_counts_as_no_lesion() -> None:
    image = breast_image(1)
    figures = metrics.case_metrics(image, image, image)
    assert math.isnan(figures["lesion_mae"])
    assert not math.isnan(figures["false_enhancement"])


def test_an_empty_image_has_no_breast_figures() -> None:
    black = torch.zeros(1, 1, 96, 96)
    figures = metrics.case_metrics(black, black, black)
    assert math.isnan(figures["breast_mae"])
    assert math.isnan(figures["vif"])
    assert figures["mae"].item() == 0.0


def test_images_too_small_for_the_filters_give_nan() -> None:
    image = torch.rand(1, 1, 8, 8)
    figures = metrics.case_metrics(image, image, image)
    assert math.isnan(figures["ssim"])
    assert math.isnan(figures["vif"])
    assert figures["mse"].item() == 0.0


def test_erasing_the_lesion_moves_lesion_figures_strongly_and_global_psnr_hardly() -> None:
    side = 256
    breast = breast_image(1, side)
    mask = disc(side, (40, 128), 6)
    label = (0.5 * breast + 0.2 * mask).clamp(0, 1)
    noise = 0.045 * torch.randn(label.shape, generator=torch.Generator().manual_seed(7))
    good = (label + noise).clamp(0, 1)
    erased = (good - 0.2 * mask).clamp(0, 1)
    before, after = (metrics.case_metrics(p, label, breast, mask) for p in (good, erased))
    assert abs(after["psnr"] - before["psnr"]).item() < 0.3
    assert abs(after["ssim"] - before["ssim"]).item() < 0.01
    assert after["lesion_mae"] / before["lesion_mae"] > 4
    assert (before["lesion_psnr"] - after["lesion_psnr"]).item() > 10
    assert before["lesion_contrast_virtual"].item() == pytest.approx(0.2, abs=0.03)
    assert after["lesion_contrast_virtual"].item() == pytest.approx(0.0, abs=0.03)
    assert after["lesion_dice"] < 0.5 < before["lesion_dice"]


def test_false_enhancement_is_the_mean_excess_outside_the_lesion() -> None:
    breast = breast_image(1)
    inside = breast > 0
    mask = disc()
    near, _ = metrics.lesion_ring(mask, inside)
    pred = 0.2 * inside + 0.5 * near + 0.1 * inside  # much too bright in the lesion, 0.1 elsewhere
    figures = metrics.case_metrics(pred, 0.2 * inside.float(), breast, mask)
    assert figures["false_enhancement"].item() == pytest.approx(0.1, abs=1e-6)


def test_every_case_of_a_batch_is_scored_as_if_alone(pair: tuple[Tensor, Tensor]) -> None:
    pred, label = pair
    mask = torch.cat([disc(), disc(centre=(15, 60), radius=3)])
    together = metrics.case_metrics(pred, label, label, mask)
    for i in range(2):
        alone = metrics.case_metrics(pred[i : i + 1], label[i : i + 1], label[i : i + 1], mask[i : i + 1])
        for name, value in alone.items():
            torch.testing.assert_close(together[name][i], value[0], equal_nan=True, msg=name)


def test_half_precision_input_is_computed_in_float32(pair: tuple[Tensor, Tensor]) -> None:
    pred, label = (x.half() for x in pair)
    expected = metrics.ssim(pred.float(), label.float())
    assert torch.equal(metrics.ssim(pred, label), expected)


@pytest.mark.parametrize(("name", "factor"), [("pred", 255.0), ("label", 255.0), ("image", -1.0)])
def test_intensities_outside_0_to_1_are_refused_by_name(name: str, factor: float) -> None:
    images = {key: breast_image(1) * (factor if key == name else 1) for key in ("pred", "label", "image")}
    with pytest.raises(ValueError, match=f"{name} has intensities from .* defined for \\[0, 1\\]"):
        metrics.case_metrics(images["pred"], images["label"], images["image"])


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pred has shape \(1, 1, 64, 64\)"):
        metrics.case_metrics(torch.zeros(1, 1, 64, 64), breast_image(1), breast_image(1))


def test_diversity_is_1_for_the_real_images_and_0_for_one_output() -> None:
    labels = torch.rand(5, 16, 16)
    assert metrics.diversity(labels, labels) == pytest.approx(1.0)
    assert metrics.diversity(labels[:1].expand(5, -1, -1), labels) == 0.0
    assert math.isnan(metrics.diversity(labels[:1], labels[:1]))


def test_summary_has_correlation_recovery_and_auc_of_the_lesions() -> None:
    rng = np.random.default_rng(0)
    real = np.append(rng.uniform(0, 0.3, 20), math.nan)
    virtual = 0.5 * real + rng.normal(0, 0.02, 21)
    rows = pd.DataFrame({"patient_id": "P1", "lesion_contrast_real": real, "lesion_contrast_virtual": virtual})
    rows["lesion_cnr_real"], rows["lesion_cnr_virtual"] = real / 0.1, virtual / 0.1
    summary = metrics.summarise(rows)
    assert summary["lesion_contrast_r"] == pytest.approx(pearsonr(real[:-1], virtual[:-1]).statistic)
    assert summary["contrast_recovery"] == pytest.approx(virtual[:-1].mean() / real[:-1].mean())
    enhancing = real[:-1] > 0.1
    u = mannwhitneyu(virtual[:-1][enhancing], virtual[:-1][~enhancing]).statistic
    assert summary["enhancement_auc"] == pytest.approx(u / (enhancing.sum() * (~enhancing).sum()))
    assert "patient_id" not in summary


def test_correlation_of_two_lesions_or_of_a_constant_does_not_exist() -> None:
    two = pd.DataFrame({"lesion_contrast_real": [0.1, 0.2], "lesion_contrast_virtual": [0.1, 0.3]})
    constant = pd.DataFrame({"lesion_contrast_real": [0.1, 0.2, 0.4], "lesion_contrast_virtual": [1e-9, 0, 0]})
    assert math.isnan(metrics.summarise(two)["lesion_contrast_r"])
    assert math.isnan(metrics.summarise(constant)["lesion_contrast_r"])
