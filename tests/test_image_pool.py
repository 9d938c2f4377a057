"""The image pool remembers, replaces half of the time, and can be saved."""

from __future__ import annotations

import pytest
import torch

from bundle.image_pool import ImagePool


def numbered(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1)


def test_a_pool_of_size_0_returns_what_it_gets() -> None:
    images = numbered(1, 2, 3)
    assert torch.equal(ImagePool(0)(images), images)


def test_the_first_images_fill_the_pool_and_are_returned() -> None:
    images = numbered(1, 2, 3)
    pool = ImagePool(3)
    assert torch.equal(pool(images), images)
    assert torch.equal(torch.stack(pool.images), images)


def test_a_full_pool_returns_an_old_image_half_of_the_time_and_keeps_the_new_one() -> None:
    pool = ImagePool(5, seed=3)
    pool(numbered(*range(5)))
    returned = torch.cat([pool(numbered(n)) for n in range(100, 1100)]).flatten()
    new = returned == torch.arange(100, 1100)
    assert 0.45 < new.float().mean() < 0.55
    shown, kept = set(returned.tolist()), {image.item() for image in pool.images}
    assert shown | kept == set(map(float, range(5))) | set(map(float, range(100, 1100)))


def test_results_carry_no_gradient() -> None:
    images = numbered(1, 2).requires_grad_()
    assert not ImagePool(0)(images).requires_grad
    assert not ImagePool(1)(images).requires_grad


def test_a_restored_pool_goes_on_as_the_saved_one() -> None:
    pool = ImagePool(4, seed=1)
    pool(numbered(*range(9)))
    other = ImagePool(4, seed=7)
    other.load_state_dict(pool.state_dict())
    for start in range(10, 50, 5):
        images = numbered(*range(start, start + 5))
        assert torch.equal(pool(images), other(images))


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="pool size is -1"):
        ImagePool(-1)
