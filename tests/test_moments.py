"""Mean and variance of large maps, against 64-bit sums."""

from __future__ import annotations

import pytest
import torch

from bundle.moments import channel_moments
from bundle.networks import InstanceNorm


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
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)
