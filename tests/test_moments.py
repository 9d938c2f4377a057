"""Mean and variance of large maps, against 64-bit sums."""

from __future__ import annotations

import pytest
import torch

from bundle.moments import channel_moments
from bundle.networks import InstanceNorm, ResnetGenerator


def large_map() -> torch.Tensor:
    """(1, 3, 1200, 1100) in channels-last memory, far from zero in one channel."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 1200, 1100) + torch.tensor([0.0, 3.0, -5.0])[:, None, None]
    return image.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("strips", [1, 7])
def test_moments_are_those_of_64_bit_sums_however_the_map_is_cut(strips: int) -> None:
    image = large_map()
    variance, mean = torch.var_mean(image.double(), dim=(0, 2, 3), unbiased=False)
    found_mean, found_variance = channel_moments(image.split(-(-1200 // strips), dim=2))
    torch.testing.assert_close(found_mean.double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found_variance.double(), variance, rtol=1e-5, atol=0)


def test_a_large_image_is_normalised_as_in_64_bits() -> None:
    image = large_map()
    expected = torch.nn.functional.instance_norm(image.double(), eps=1e-5)
    with torch.no_grad():
        found = InstanceNorm()(image)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_gradients_are_those_of_64_bits() -> None:
    image = torch.randn(2, 5, 180, 170, generator=torch.Generator().manual_seed(0)) + 4
    onward = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    exact = image.double().requires_grad_()
    torch.nn.functional.instance_norm(exact, eps=1e-5).backward(onward.double())
    found = image.to(memory_format=torch.channels_last).requires_grad_()
    InstanceNorm()(found).backward(onward)
    assert exact.grad is not None
    assert found.grad is not None
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=0, atol=2e-5)


def test_an_activation_may_change_the_result_of_one_image_in_place() -> None:
    image = torch.randn(1, 5, 18, 17, generator=torch.Generator().manual_seed(0))
    exact, found = image.double().requires_grad_(), image.clone().requires_grad_()
    torch.nn.functional.instance_norm(exact, eps=1e-5).relu().square().sum().backward()
    torch.relu_(InstanceNorm()(found)).square().sum().backward()
    assert exact.grad is not None
    assert found.grad is not None
    torch.testing.assert_close(found.grad.double(), exact.grad, rtol=0, atol=2e-5)


def test_a_bright_shape_on_black_leaves_the_generator_as_in_64_bits() -> None:
    """Sums of one pixel after the other were off by 6e-4 here."""
    torch.manual_seed(0)
    network, image = ResnetGenerator(width=32, blocks=2).eval(), torch.zeros(1, 1, 256, 256)
    image[..., :180, 40:200] = 0.4 + 0.5 * torch.rand(180, 160)
    with torch.no_grad():
        exact = network.double()(image.double())
        network.float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(network(image).double(), exact, rtol=0, atol=2e-5)
