"""Square neighbourhoods and holes are those of scipy; pictures in columns come out in rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bundle.memory_order import in_rows
from bundle.neighbourhoods import all_around, any_around, filled

RANDOM = np.random.default_rng(0)


def picture(shape: tuple[int, int], coarse: float) -> NDArray[np.bool_]:
    return np.asarray(ndimage.gaussian_filter(RANDOM.standard_normal(shape), coarse) > 0.02)


PICTURES = [
    picture((5, 9), 1),
    picture((40, 31), 0.7),
    picture((64, 50), 3),
    np.zeros((4, 4), bool),
    np.ones((3, 7), bool),
]


@pytest.mark.parametrize("radius", [1, 2, 5, 8])
@pytest.mark.parametrize("binary", PICTURES)
def test_squares_around_a_pixel_are_those_of_the_filters(binary: NDArray[np.bool_], radius: int) -> None:
    size = 2 * radius + 1
    modes: Any = (("nothing", "constant"), ("nearest", "nearest"))
    for beyond, mode in modes:
        any_of = any_around(binary, radius, radius, beyond)
        all_of = all_around(binary, radius, radius, beyond)
        assert np.array_equal(any_of, ndimage.maximum_filter(binary, size, mode=mode))
        assert np.array_equal(all_of, ndimage.minimum_filter(binary, size, mode=mode))


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("binary", PICTURES)
def test_uneven_neighbourhoods_are_those_of_dilation_and_erosion(binary: NDArray[np.bool_], size: int) -> None:
    before, after = size // 2, size - 1 - size // 2
    grey = binary.astype(np.uint8)
    block: Any = {"size": (size, size), "mode": "constant", "cval": 0}
    assert np.array_equal(any_around(binary, after, before), ndimage.grey_dilation(grey, **block) > 0)
    assert np.array_equal(all_around(binary, before, after), ndimage.grey_erosion(grey, **block) > 0)


@pytest.mark.parametrize("binary", PICTURES)
def test_holes_are_those_of_binary_fill_holes(binary: NDArray[np.bool_]) -> None:
    assert np.array_equal(filled(binary), ndimage.binary_fill_holes(binary))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", ">u2"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (130, 65), (513, 257)])
def test_an_array_in_columns_comes_out_in_rows(shape: tuple[int, int], dtype: str) -> None:
    array = RANDOM.integers(0, 200, shape).astype(dtype)
    for one in (array.T, array[::-1].T, array.T[::2], array, array[:, ::-1]):
        found = in_rows(one)
        assert found.flags.c_contiguous
        assert found.dtype == one.dtype
        assert np.array_equal(found, one)
    assert in_rows(array) is array
