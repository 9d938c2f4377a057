"""Attributions of a lesion's enhancement: known answers on networks whose reasons are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundle.metrics import breast_region
from scripts.explaining.attribution import (
    SMOOTHING_MM,
    baseline_of,
    integrated_gradients,
    lesion_mean,
    occlusion,
    pixel_mm,
    shares,
)
from scripts.explaining.deletion import deletion
from scripts.explaining.lesions import REGIONS, lesion_figures, lesion_masks, regions_of

SIZE = 40
PATCH = 4
"""Pixels of the occluding patch in these tests."""
PATCH_MM = PATCH * 220 / SIZE


class Network(nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def breast(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A textured LE image of a breast, and where the breast is."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 1, SIZE, SIZE)
    image[..., :28, 4:36] = 0.3 + 0.5 * torch.rand(28, 32, generator=generator)
    return image, breast_region(image)


def spot(x: int, y: int, side: int = 4) -> Tensor:
    lesion = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    lesion[..., x : x + side, y : y + side] = True
    return lesion


def smoothing_kernel() -> nn.Conv2d:
    """A linear network: one 5 x 5 kernel without a bias."""
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    conv.weight.data = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(1)) - 0.3
    return conv.requires_grad_(False)


def analytic(network: nn.Conv2d, lesion: Tensor, image: Tensor, baseline: Tensor) -> Tensor:
    """Weight of each input pixel for the mean over the lesion, times image minus baseline."""
    weight = nn.functional.conv_transpose2d(lesion.float() / lesion.sum(), network.weight, padding=2)
    return weight * (image - baseline)


def test_a_network_that_copies_a_shifted_pixel_has_its_attribution_at_that_shift() -> None:
    image, inside = breast()
    network = Network(lambda x: x.roll((5, -3), dims=(2, 3)))
    lesion = spot(12, 12)
    target, baseline = lesion_mean(network, lesion), baseline_of(image, inside)
    where = lesion.roll((-5, 3), dims=(2, 3))
    ig = integrated_gradients(target, image, baseline, steps=4)
    assert ig.map[~where].abs().max() == 0
    torch.testing.assert_close(ig.map[where], ((image - baseline) / 16)[where])
    occluded = occlusion(target, image, baseline, PATCH_MM).map
    reach = nn.functional.max_pool2d(where.float(), 2 * PATCH - 1, 1, PATCH - 1) > 0
    assert occluded[~reach].abs().max() < 1e-6
    assert occluded[where].abs().min() > 0


def test_integrated_gradients_of_a_linear_network_are_its_weights_times_the_change_and_complete() -> None:
    image, inside = breast()
    network, lesion = smoothing_kernel(), spot(10, 14)
    baseline = baseline_of(image, inside)
    found = integrated_gradients(lesion_mean(network, lesion), image, baseline, steps=3)
    torch.testing.assert_close(found.map, analytic(network, lesion, image, baseline))
    assert found.map.sum().item() == pytest.approx(found.difference, abs=1e-6)
    assert found.delta == pytest.approx(0, abs=1e-6)


def test_occlusion_of_a_linear_network_is_the_analytic_sum_over_the_patches_that_cover_a_pixel() -> None:
    image, inside = breast()
    network, lesion = smoothing_kernel(), spot(10, 14)
    baseline = baseline_of(image, inside)
    exact = analytic(network, lesion, image, baseline)
    found = occlusion(lesion_mean(network, lesion), image, baseline, PATCH_MM).map
    # the rectangle in which the two differ is the breast, and patches begin at its corner, every half side
    of_patches = nn.functional.avg_pool2d(exact[..., :28, 4:36], PATCH, PATCH // 2) * PATCH**2
    spread, count = (
        nn.functional.conv_transpose2d(one, torch.ones(1, 1, PATCH, PATCH), stride=PATCH // 2)
        for one in (of_patches, torch.ones_like(of_patches))
    )
    torch.testing.assert_close(found[..., :28, 4:36], spread / count, atol=1e-6, rtol=1e-4)
    assert found[..., 28:, :].abs().max() == 0


def test_occlusion_and_integrated_gradients_agree_where_a_patch_is_one_pixel() -> None:
    image, inside = breast()
    network, lesion = smoothing_kernel(), spot(10, 14)
    target, baseline = lesion_mean(network, lesion), baseline_of(image, inside)
    ig = integrated_gradients(target, image, baseline, steps=3)
    found = occlusion(target, image, baseline, pixel_mm(image))
    torch.testing.assert_close(found.map, ig.map, atol=1e-6, rtol=1e-3)
    assert found.difference == pytest.approx(ig.difference, abs=1e-6)


def test_a_network_that_bends_is_complete_with_enough_steps_and_says_how_far_it_is_with_too_few() -> None:
    image, inside = breast()
    target = lesion_mean(Network(lambda x: torch.sigmoid(30 * (x - 0.5))), spot(10, 14))
    baseline = baseline_of(image, inside)
    deltas = [abs(integrated_gradients(target, image, baseline, steps).delta) for steps in (1, 50)]
    assert deltas[0] > 0.01
    assert deltas[1] < 1e-5


@pytest.mark.parametrize("kind", ["smoothed", "median"])
def test_the_baseline_keeps_the_outline_of_the_breast_and_loses_its_lesion(kind: str) -> None:
    image, inside = breast()
    image[..., 35:, 35:] = 0.01  # below the threshold of the breast
    lesion = spot(12, 12)
    image[lesion] = 1.0
    baseline = baseline_of(image, inside, "smoothed" if kind == "smoothed" else "median")
    assert torch.equal(baseline > 0, inside)
    tissue = baseline[inside & ~lesion].mean()
    assert (baseline[lesion].mean() - tissue).abs() < 0.2 * (image[lesion].mean() - image[inside & ~lesion].mean())


def test_the_smoothed_baseline_of_even_tissue_is_that_tissue_up_to_the_skin() -> None:
    image, inside = breast()
    image[inside] = 0.4
    torch.testing.assert_close(baseline_of(image, inside), image)
    image[..., :14, :] *= 0.5  # half of the breast is thinner, over more than the smoothing
    baseline = baseline_of(image, inside)
    assert SMOOTHING_MM / pixel_mm(image) < 14
    assert baseline[0, 0, 0, 20] < baseline[0, 0, 27, 20]


def test_an_image_without_a_breast_has_an_empty_map() -> None:
    image = torch.zeros(1, 1, SIZE, SIZE)
    baseline = baseline_of(image, image > 0)
    target = lesion_mean(Network(lambda x: x), spot(10, 10))
    found = occlusion(target, image, baseline, PATCH_MM)
    assert not found.map.any()
    assert np.isnan(list(shares(found.map, regions_of(spot(10, 10), image > 0)).values())).all()


def test_an_image_that_is_not_square_is_explained() -> None:
    image = torch.rand(1, 1, 24, 48) + 0.1
    inside = breast_region(image)
    lesion = torch.zeros_like(inside)
    lesion[..., 8:12, 30:34] = True
    target, baseline = lesion_mean(Network(lambda x: x * 2), lesion), baseline_of(image, inside)
    for found in (integrated_gradients(target, image, baseline, 3), occlusion(target, image, baseline, 10.0)):
        assert found.map.shape == image.shape
        assert found.map.abs().sum() > 0


def test_the_shares_of_the_regions_add_up_to_one_and_lie_where_the_map_is() -> None:
    _, inside = breast()
    regions = regions_of(spot(12, 12), inside)
    parts = torch.stack([getattr(regions, name) for name in REGIONS])
    assert (parts.sum(0) == 1).all()
    found = shares(torch.where(regions.lesion, -1.0, 0.0) + torch.where(regions.outside, 0.5, 0.0), regions)
    size = {name: int(getattr(regions, name).sum()) for name in REGIONS}
    total = size["lesion"] + 0.5 * size["outside"]
    assert found["lesion"] == pytest.approx(size["lesion"] / total)
    assert found["ring"] == 0
    assert sum(found.values()) == pytest.approx(1)


def test_parts_of_a_mask_are_lesions_of_their_own_and_specks_and_what_is_outside_the_breast_are_none() -> None:
    _, inside = breast()
    mask = (spot(4, 8, 3) | spot(18, 20, 5) | spot(10, 30, 1) | spot(33, 10)).float()
    mask[0, 0, 23, 25] = 1  # touches a corner of the large one: the same lesion
    assert [int(one.sum()) for one in lesion_masks(mask, inside)] == [26, 9]
    assert lesion_masks(torch.zeros_like(mask), inside) == []


def test_a_lesion_is_lost_where_less_than_half_of_an_enhancement_is_left() -> None:
    _, inside = breast()
    lesion, noise = spot(12, 12), 0.01 * torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    label = 0.3 + noise + 0.2 * lesion
    nothing = torch.zeros_like(inside)
    found = [lesion_figures(0.3 + noise + rest * lesion, label, lesion, nothing, inside) for rest in (0.15, 0.05)]
    assert [one["lost"] for one in found] == [0, 1]
    assert found[1]["lesion_contrast_virtual"] == pytest.approx(0.05, abs=0.01)
    assert found[1]["lesion_mae"] == pytest.approx(0.15, abs=1e-6)
    assert np.isnan(lesion_figures(label, 0.3 + noise, lesion, nothing, inside)["lost"])


def test_another_lesion_is_no_reference_tissue() -> None:
    _, inside = breast()
    lesion, other = spot(10, 12), spot(14, 12)
    label = 0.3 + 0.2 * lesion + 0.6 * other
    alone = lesion_figures(label, label, lesion, torch.zeros_like(inside), inside)
    beside = lesion_figures(label, label, lesion, other, inside)
    assert beside["lesion_contrast_real"] == pytest.approx(0.2, abs=1e-6)
    assert alone["lesion_contrast_real"] < 0.15


def test_without_the_pixels_that_a_true_map_names_more_is_lost_than_without_random_ones() -> None:
    image, inside = breast()
    network, lesion = smoothing_kernel(), spot(10, 14)
    target, baseline = lesion_mean(network, lesion), baseline_of(image, inside)
    exact = analytic(network, lesion, image, baseline)
    found = deletion(target, image, baseline, exact, inside)
    first = exact[inside].sort(descending=True).values[: round(0.01 * int(inside.sum()))].sum()
    assert found.start - found.named[0] == pytest.approx(float(first), abs=1e-5)
    assert found.gain > 0
    assert deletion(target, image, baseline, -exact, inside).gain < 0


def test_deletion_of_all_that_matters_leaves_the_baseline() -> None:
    image, inside = breast()
    lesion = spot(10, 14)
    target, baseline = lesion_mean(Network(lambda x: x), lesion), baseline_of(image, inside)
    found = deletion(target, image, baseline, lesion.float(), inside)  # names the lesion before anything else
    assert found.named[2:] == pytest.approx([float(target(baseline))] * 4)
