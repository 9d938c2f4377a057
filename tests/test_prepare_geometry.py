from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scripts.prepare.geometry import (
    Alignment,
    align,
    common_field,
    mask_onto_grid,
    onto_grid,
    silhouette,
    target_shape,
    within,
)
from scripts.prepare.silhouette import background_level
from tests.archives.phantom import phantom_pairs

Floats = NDArray[np.float64]


def placed(scale: float, x: float, y: float) -> Alignment:
    return Alignment(scale, x, y, 0.0, 0.0, registered=True)


def smooth(x: Floats, y: Floats) -> Floats:
    return np.asarray(100 + 40 * np.sin(x / 29) + 30 * np.cos(y / 37 + x / 60))


def sampled(shape: tuple[int, int], scale: float = 1.0, x: float = 0.0, y: float = 0.0) -> Floats:
    """The smooth picture, at pixels that lie at (scale * column + x, scale * row + y)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    return smooth(scale * columns + x, scale * rows + y)


def breast(shape: tuple[int, int] = (240, 160)) -> NDArray[np.bool_]:
    """A half disc at the left edge."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    region: NDArray[np.bool_] = ((rows - 118) / 95) ** 2 + (columns / 120) ** 2 < 1
    return region


def textured(seed: int = 0) -> Floats:
    """A breast with strands and spots, 0 outside."""
    noise = np.random.default_rng(seed).standard_normal((240, 160))
    strands = ndimage.gaussian_filter(noise, 2.5)
    return np.where(breast(), 90 + 25 * strands / strands.std(), 0.0).clip(0)


def as_des(image: Floats, scale: float, x: float, y: float, shape: tuple[int, int]) -> Floats:
    """The same strands with another contrast, cut out at another scale: DES pixel (u, v) is LE (scale * u + x, ...)."""
    shown = np.where(breast(), 60 - 0.3 * (image - 90), 0.0)
    moved: Floats = ndimage.affine_transform(shown, [scale, scale], [y, x], shape, order=1)
    return moved


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((2549, 1671), None, (2549, 1671)), ((2549, 1671), 512, (512, 336)), ((100, 200), 50, (25, 50))],
)
def test_the_longer_side_gets_the_size_and_the_aspect_stays(
    shape: tuple[int, int], size: int | None, expected: tuple[int, int]
) -> None:
    assert target_shape(shape, size) == expected


def test_pixels_are_exact_where_the_grids_agree() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (41, 33)).astype(np.uint16)
    kept = onto_grid(values, None, values.shape, values.shape)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, values)
    np.testing.assert_array_equal(onto_grid(values, placed(1, 0, 0), (41, 33), (41, 33)), values)


def test_a_shift_by_whole_pixels_moves_values_exactly_and_puts_the_background_beside() -> None:
    values = np.random.default_rng(0).integers(1, 65536, (41, 33)).astype(np.uint16)
    moved = onto_grid(values, placed(1, 5, -3), (50, 40), (50, 40), background=7)
    np.testing.assert_array_equal(moved[:38, 5:38], values[3:])
    assert (moved[38:] == 7).all()
    assert (moved[:, :5] == 7).all()
    assert (moved[:, 38:] == 7).all()


def test_resampling_agrees_with_scipy() -> None:
    values = sampled((120, 100))
    scale, x, y = 1.04, 2.3, -4.6
    expected = ndimage.affine_transform(values, [1 / scale] * 2, [-y / scale, -x / scale], (110, 90), order=1)
    np.testing.assert_allclose(
        onto_grid(values, placed(scale, x, y), (110, 90), (110, 90))[:, 4:], expected[:, 4:], atol=0.05
    )


@pytest.mark.parametrize("size", [300, 60, 24])
def test_target_pixels_hold_the_picture_at_their_centres(size: int) -> None:
    # Target pixel i covers LE pixels [i * 120 / size, (i + 1) * 120 / size], counted from the edge of the first one.
    step = 120 / size
    target = target_shape((120, 80), size)
    expected = sampled(target, step, step / 2 - 0.5, step / 2 - 0.5)
    inner = (slice(2, -2), slice(2, -2))
    from_le = onto_grid(sampled((120, 80)), None, (120, 80), target)
    from_des = onto_grid(sampled((160, 130), 0.9, -6.5, -4.25), placed(0.9, -6.5, -4.25), (120, 80), target)
    np.testing.assert_allclose(from_le[inner], expected[inner], atol=0.01 * step**2 + 0.2)
    np.testing.assert_allclose(from_des[inner], expected[inner], atol=0.01 * step**2 + 0.2)


def test_there_and_back_is_the_same_picture() -> None:
    values = sampled((130, 110))
    there = onto_grid(values, placed(0.93, 3.2, 4.7), (130, 110), (130, 110))
    back = onto_grid(there, placed(1 / 0.93, -3.2 / 0.93, -4.7 / 0.93), (130, 110), (130, 110))
    np.testing.assert_allclose(back[10:-10, 10:-10], values[10:-10, 10:-10], atol=0.2)


def test_shrinking_averages_what_is_finer_than_a_pixel() -> None:
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 100.0
    np.testing.assert_allclose(onto_grid(checks, None, (128, 128), (16, 16)), 50, atol=0.5)


def test_beside_the_des_is_its_own_air() -> None:
    label = np.where(breast(), 2000.0, 300.0)
    assert background_level(label) == 300
    moved = onto_grid(label, placed(1, 0, 10), (240, 160), (120, 80))
    assert (moved[:5] == 300).all()


def test_masks_keep_their_area_and_every_lesion_a_pixel() -> None:
    mask = np.zeros((200, 160), dtype=bool)
    mask[40:80, 30:90] = True
    mask[150, 100] = mask[151, 101] = True
    mask[190, 20] = True
    small = mask_onto_grid(mask, None, (200, 160), (25, 20))
    assert ndimage.label(small)[1] == 3
    assert abs(small[:12].sum() * 64 - 2400) <= 300
    assert small[18, 12]
    assert small[23, 2]
    assert mask_onto_grid(mask, None, (200, 160), (200, 160)).sum() == mask.sum()


def test_a_lesion_beside_the_le_image_is_gone() -> None:
    mask = np.zeros((60, 60), dtype=bool)
    mask[2:4, 2:4] = mask[30, 30] = True
    moved = mask_onto_grid(mask, placed(1, 0, -10), (60, 60), (30, 30))
    assert np.argwhere(moved).tolist() == [[10, 15]]


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v * 256 + 3000, lambda v: (v * 16).astype(np.uint16)])
def test_the_silhouette_does_not_depend_on_the_range_of_the_values(change: Callable[[Any], Any]) -> None:
    found = silhouette(change(textured()))
    assert (found & breast()).sum() / (found | breast()).sum() > 0.97


def test_labels_strips_and_noise_are_not_breast_and_black_fat_is() -> None:
    image = np.where(breast(), 120.0, 10.0) + np.random.default_rng(0).normal(0, 0.5, (240, 160))
    image[60:70, 120:150] = 250  # a label
    image[:2] = 255  # the border of a film
    image[100:108, 40:48] = 10  # fat as black as the air
    image[150:155, :4] = 10  # the same at the chest wall
    found = silhouette(image)
    assert (found & breast()).sum() / (found | breast()).sum() > 0.97
    assert found[100:108, 40:48].all()
    assert not found[60:70, 120:150].any()
    assert not silhouette(np.full((50, 40), 3)).any()


def test_the_breast_of_the_phantom_is_found_in_its_des() -> None:
    for pair in phantom_pairs(1, 128):
        found, truth = silhouette(pair.label), pair.label > 0
        assert (found & truth).sum() / (found | truth).sum() > 0.98


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize(
    ("scale", "x", "y", "shape"),
    [
        (1.0, 0.0, -14.0, (250, 150)),
        (1.0, -9.0, 8.0, (228, 165)),
        (0.9, -6.3, 4.2, (255, 170)),
        (1.15, 2.5, -9.0, (215, 140)),
    ],
)
def test_a_known_scale_and_shift_is_found(
    scale: float, x: float, y: float, shape: tuple[int, int], laterality: str
) -> None:
    image = textured()
    label = as_des(image, scale, x, y, shape)
    if laterality == "R":
        image, label = image[:, ::-1], label[:, ::-1]
        x = 159 - x - scale * (shape[1] - 1)
    found = align(image, label, laterality)
    assert found.registered
    for n, shift, true in ((shape[1], found.shift_x, x), (shape[0], found.shift_y, y)):
        assert abs(shift - true) < 1
        assert abs((found.scale - scale) * n + shift - true) < 1
    assert found.overlap_after > max(0.97, found.overlap_before)
    if scale == 1:
        assert (found.scale, found.shift_x, found.shift_y) == (1, x, y)


def test_images_of_one_grid_are_left_alone() -> None:
    for pair in phantom_pairs(2, 64):
        found = align(pair.image, pair.label, pair.laterality, aligned_overlap=0)
        assert (found.registered, found.scale, found.shift_x, found.shift_y) == (False, 1, 0, 0)
        assert found.overlap_after == found.overlap_before > 0.9
    assert align(textured(), as_des(textured(), 1.0, 0.0, 30.0, (240, 160)), "L").registered
    moved = align(textured(), as_des(textured(), 1.0, 0.0, 4.0, (240, 160)), "L", aligned_overlap=2)
    assert (moved.scale, moved.shift_x, moved.shift_y) == (1, 0, 4)


def test_phantoms_are_registered_in_spite_of_skin_that_only_the_des_shows() -> None:
    pair = phantom_pairs(1, 256)[0]
    label = onto_grid(pair.label, placed(1 / 0.9, -4 / 0.9, -6 / 0.9), (280, 270), (280, 270))
    found = align(pair.image, label, pair.laterality)
    assert abs(found.scale - 0.9) < 0.02
    assert max(abs(found.shift_x - 4), abs(found.shift_y - 6)) < 4


def test_different_breasts_do_not_overlap_in_a_small_common_field() -> None:
    rows, columns = np.mgrid[:240, :160]
    narrow = np.where((rows > 20) & (rows < 220) & (columns < 45), 100.0, 0.0)
    found = align(textured(), narrow[:230], "L")
    assert found.overlap_after < 0.8


def test_an_empty_image_overlaps_with_nothing() -> None:
    found = align(textured(), np.zeros((100, 100)), "L")
    assert (found.registered, found.overlap_after) == (False, 0)


def test_the_real_pairs_overlap_after_registration(shared_data: Path) -> None:
    files = sorted((shared_data / "cdd-cesm-originals").rglob("*_DM_*.jpg"))
    assert len(files) == 4
    for file in files:
        other = next(file.parents[1].rglob(file.name.replace("_DM_", "_CM_")))
        image, label = (np.asarray(Image.open(one).convert("L")) for one in (file, other))
        found = align(image, label, file.name.split("_")[1])
        assert found.overlap_after > 0.98
        assert found.overlap_after > found.overlap_before
        assert found.scale == 1  # one detector, two crops


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_the_common_field_is_what_lies_wholly_in_both_images(scale: float) -> None:
    alignment = Alignment(scale, -3.4, 5.3, 1.0, 1.0, registered=True)
    rows, columns = common_field((60, 50), (48, 70), alignment)
    for span, length, own, shift in ((rows, 60, 48, 5.3), (columns, 50, 70, -3.4)):
        low, high = scale * -0.5 + shift, scale * (own - 0.5) + shift  # the edges of the DES on the LE
        inside = [pixel for pixel in range(length) if low <= pixel - 0.5 and pixel + 0.5 <= high]
        assert list(range(length))[span] == inside


def test_the_common_field_of_aligned_images_is_all_of_them() -> None:
    assert common_field((6, 5), (6, 5), Alignment(1.0, 0.0, 0.0, 1.0, 1.0, registered=False)) == (
        slice(0, 6),
        slice(0, 5),
    )


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_a_field_of_the_le_holds_the_des_pixels_whose_centre_lies_in_it(scale: float) -> None:
    alignment = Alignment(scale, -3.4, 5.3, 1.0, 1.0, registered=True)
    field = common_field((60, 50), (48, 70), alignment)
    for span, own, length, shift in zip(field, within(field, alignment), (48, 70), (5.3, -3.4), strict=True):
        centres = scale * np.arange(length) + shift
        expected = np.flatnonzero((centres >= span.start - 0.5) & (centres <= span.stop - 0.5))
        assert list(range(length))[own] == expected.tolist()


def test_two_crops_of_one_size_are_registered_unless_they_coincide() -> None:
    image = textured()
    crops = image[:-12, :-6], as_des(image, 1.0, 0.0, 0.0, (240, 160))[12:, 6:]
    assert crops[0].shape == crops[1].shape
    found = align(*crops, "L")
    assert 0.8 < found.overlap_before < found.overlap_after
    assert (found.scale, found.shift_x, found.shift_y) == (1, 6, 12)
    assert not align(*crops, "L", aligned_overlap=0).registered
    assert not align(image, as_des(image, 1.0, 0.0, 0.0, (240, 160)), "L").registered


def test_a_real_pair_cut_to_one_size_is_registered(shared_data: Path) -> None:
    root = shared_data / "cdd-cesm-originals"
    files = [next(root.rglob(f"P3_L_{kind}_MLO.jpg")) for kind in ("DM", "CM")]
    image, label = (np.asarray(Image.open(file).convert("L")) for file in files)
    height, width = (min(sides) for sides in zip(image.shape, label.shape, strict=True))
    found = align(image[:height, :width], label[:height, :width], "L")
    free = align(image, label, "L")
    assert (found.scale, found.registered) == (1, True)
    assert abs(found.shift_x - free.shift_x) + abs(found.shift_y - free.shift_y) < 8
    assert found.overlap_after > found.overlap_before
