"""The objective has the paper's terms with their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bundle.losses import (
    DiscriminatorObjective,
    GeneratorObjective,
    LeastSquaresLoss,
    MaskGuidedLoss,
    Normalisation,
    masked_mean,
)
from bundle.step_images import CycleGANImages


@pytest.fixture
def images(batch: dict[str, torch.Tensor]) -> CycleGANImages:
    generated = torch.rand(6, 3, 1, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return CycleGANImages(batch["image"], batch["label"], batch["mask"], batch["label_mask"], *generated)


LOGITS = torch.randn(3, 1, 2, 2, dtype=torch.float64)


def test_each_term_is_its_equation(images: CycleGANImages) -> None:
    terms = GeneratorObjective(10, 5, 35)(images, LOGITS, -LOGITS)
    i = images
    expected = {
        "G_AB": ((-LOGITS - 1) ** 2).mean(),
        "G_BA": ((LOGITS - 1) ** 2).mean(),
        "cycle_A": 10 * (i.rec_A - i.real_A).abs().mean(),
        "cycle_B": 10 * (i.rec_B - i.real_B).abs().mean(),
        "idt_A": 5 * (i.idt_A - i.real_A).abs().mean(),
        "idt_B": 5 * (i.idt_B - i.real_B).abs().mean(),
        "lesion_cycle_A": 35 * (i.mask_A * i.rec_A - i.mask_A * i.real_A).abs().mean(),
        "lesion_cycle_B": 35 * (i.mask_B * i.rec_B - i.mask_B * i.real_B).abs().mean(),
        "lesion_idt_A": 35 * (i.mask_A * i.idt_A - i.mask_A * i.real_A).abs().mean(),
        "lesion_idt_B": 35 * (i.mask_B * i.idt_B - i.mask_B * i.real_B).abs().mean(),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-12, rtol=0)


def test_gamma_can_differ_between_cycle_and_identity(images: CycleGANImages) -> None:
    shared = GeneratorObjective(gamma=35)(images, LOGITS, LOGITS)
    separate = GeneratorObjective(gamma=35, gamma_cycle=70, gamma_identity=0)(images, LOGITS, LOGITS)
    assert separate["lesion_cycle_A"] == pytest.approx(2 * shared["lesion_cycle_A"].item())
    assert "lesion_idt_A" not in separate


def test_gamma_does_not_multiply_the_lambdas(images: CycleGANImages) -> None:
    one = GeneratorObjective(lambda_cycle=10, gamma=35)(images, LOGITS, LOGITS)
    other = GeneratorObjective(lambda_cycle=20, gamma=35)(images, LOGITS, LOGITS)
    assert one["lesion_cycle_A"] == other["lesion_cycle_A"]


def test_gamma_0_is_plain_cyclegan_bit_for_bit(images: CycleGANImages) -> None:
    terms = GeneratorObjective(gamma=0)(images, LOGITS, LOGITS)
    no_masks = replace(images, mask_A=torch.zeros_like(images.mask_A), mask_B=torch.zeros_like(images.mask_B))
    assert not any(name.startswith("lesion") for name in terms)
    assert sum(terms.values()) == sum(GeneratorObjective(gamma=35)(no_masks, LOGITS, LOGITS).values())


@pytest.mark.parametrize("normalisation", ["image", "mask"])
def test_an_all_ones_mask_gives_the_plain_mean_and_an_empty_one_gives_0(normalisation: Normalisation) -> None:
    error = torch.rand(2, 1, 8, 8)
    assert masked_mean(error, torch.ones_like(error), normalisation) == pytest.approx(error.mean().item())
    assert masked_mean(error, torch.zeros_like(error), normalisation) == 0


def test_mask_normalisation_divides_each_image_by_its_own_mask(batch: dict[str, torch.Tensor]) -> None:
    error, mask = batch["image"], batch["mask"]
    inside = [error[n][mask[n] > 0].mean() for n in (0, 1)]
    expected = (inside[0] + inside[1] + 0) / 3
    torch.testing.assert_close(masked_mean(error, mask, "mask"), expected)


def test_least_squares_takes_raw_logits_or_squashed_ones() -> None:
    assert LeastSquaresLoss()(torch.tensor([3.0]), real=True) == 4
    assert LeastSquaresLoss()(torch.tensor([3.0]), real=False) == 9
    assert LeastSquaresLoss(sigmoid=True)(torch.tensor([0.0]), real=True) == 0.25


def test_a_discriminator_at_chance_loses_a_quarter() -> None:
    half = torch.full((4,), 0.5)
    assert DiscriminatorObjective()(half, half) == 0.25


@pytest.mark.parametrize("option", [{"gamma": -1.0}, {"lambda_cycle": -1.0}, {"normalisation": "pixels"}])
def test_impossible_weights_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"negative|normalisation"):
        GeneratorObjective(**option)


def test_a_mask_guided_loss_counts_lesion_patches_more_and_keeps_its_size() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 1, 1] = 3.0
    mask = torch.zeros(1, 1, 32, 32)
    mask[0, 0, 8:16, 8:16] = 1  # the patch at (1, 1), whole
    loss = MaskGuidedLoss(emphasis=9.0)
    weights = torch.ones(4, 4)
    weights[1, 1] = 10
    expected = ((logits[0, 0] - 1).square() * weights / weights.mean()).mean()
    torch.testing.assert_close(loss(logits, real=True, mask=mask), expected)
    same = torch.full((1, 1, 4, 4), 0.5)
    assert loss(same, real=True, mask=mask).item() == pytest.approx(0.25)


def test_without_emphasis_or_lesion_a_mask_guided_loss_is_the_plain_one() -> None:
    logits, mask = torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 32, 32)
    plain = LeastSquaresLoss()(logits, real=False)
    torch.testing.assert_close(MaskGuidedLoss(9.0)(logits, real=False, mask=mask), plain)
    torch.testing.assert_close(MaskGuidedLoss(0.0)(logits, real=False, mask=mask + 1), plain)
    torch.testing.assert_close(MaskGuidedLoss(9.0)(logits, real=False), plain)
