"""The further terms of the objective are their equations, and do what they are for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bundle.losses import GeneratorObjective
from bundle.metrics import breast_region, lesion_contrast, lesion_ring
from bundle.step_images import CycleGANImages
from bundle.terms import LesionContrast, PairedL1, PairedLesionL1, lesion_and_ring

SIZE = 96


@pytest.fixture
def images() -> CycleGANImages:
    """Two cases, one with a lesion; the virtual DES is a blur of everything."""
    random = torch.Generator().manual_seed(0)
    real_A, real_B, fake_B = (
        0.1 + 0.8 * torch.rand(2, 1, SIZE, SIZE, generator=random, dtype=torch.float64) for _ in range(3)
    )
    real_A[:, :, 60:] = 0  # background
    mask = torch.zeros_like(real_A)
    mask[0, 0, 20:31, 30:38] = 1
    mask[0, 0, 55:64, 70:74] = 1  # reaches beyond the breast
    return CycleGANImages(real_A, real_B, mask, mask, *[fake_B] * 6)


def test_the_paired_terms_are_their_equations(images: CycleGANImages) -> None:
    error = (images.fake_B - images.real_B).abs()
    assert PairedL1(3.0)(images) == {"paired": pytest.approx(3 * error.mean().item())}
    inside = error[0][images.mask_B[0] > 0].mean().item()
    assert PairedLesionL1(2.0)(images)["paired_lesion"].item() == pytest.approx(2 * inside / 2)
    whole = PairedLesionL1(2.0, "image")(images)["paired_lesion"].item()
    assert whole == pytest.approx(2 * (error * images.mask_B).mean().item())


def test_lesion_and_ring_are_those_of_the_metrics(images: CycleGANImages) -> None:
    breast = breast_region(images.real_A)
    lesion, ring = lesion_and_ring(images.mask_B, images.real_A)
    torch.testing.assert_close(ring, lesion_ring(images.mask_B, breast)[1])
    torch.testing.assert_close(lesion, (images.mask_B > 0.5) & breast)


def test_the_contrast_term_is_the_difference_of_the_metric(images: CycleGANImages) -> None:
    breast = breast_region(images.real_A)
    virtual, real = (lesion_contrast(x, images.mask_B, breast)[0].item() for x in (images.fake_B, images.real_B))
    assert LesionContrast(4.0)(images)["contrast"].item() == pytest.approx(4 * abs(virtual - real) / 2, rel=1e-5)


def test_the_contrast_term_lights_up_a_lesion_that_is_too_dim(images: CycleGANImages) -> None:
    fake = torch.full_like(images.real_B, 0.3).requires_grad_()
    real = torch.full_like(images.real_B, 0.3) + 0.4 * images.mask_B
    LesionContrast()(replace(images, fake_B=fake, real_B=real))["contrast"].backward()
    lesion, ring = lesion_and_ring(images.mask_B, images.real_A)
    assert fake.grad is not None
    assert (fake.grad[lesion] < 0).all()
    assert (fake.grad[ring] > 0).all()
    assert (fake.grad[~lesion & ~ring] == 0).all()


def test_brightness_of_the_whole_image_is_no_contrast(images: CycleGANImages) -> None:
    shifted = replace(images, fake_B=images.real_B + 0.1)
    assert LesionContrast()(shifted)["contrast"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("term", [PairedLesionL1(), LesionContrast()])
def test_without_a_lesion_a_lesion_term_is_0_and_has_a_gradient_of_0(
    images: CycleGANImages, term: torch.nn.Module
) -> None:
    fake = images.fake_B.clone().requires_grad_()
    (value,) = term(replace(images, fake_B=fake, mask_B=torch.zeros_like(images.mask_B))).values()
    value.backward()
    assert value == 0
    assert fake.grad is not None
    assert torch.equal(fake.grad, torch.zeros_like(fake))


def test_the_objective_adds_them_to_its_own_and_leaves_those_alone(images: CycleGANImages) -> None:
    logits = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    plain = GeneratorObjective(gamma=35)(images, logits, logits)
    more: dict[str, Tensor] = GeneratorObjective(gamma=35, terms=[PairedL1(), LesionContrast()])(images, logits, logits)
    assert more.keys() == plain.keys() | {"paired", "contrast"}
    assert all(torch.equal(more[name], value) for name, value in plain.items())


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        PairedL1(-1.0)
