from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch
from monai.transforms.compose import Compose
from monai.transforms.post.dictionary import Invertd
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from bundle.transforms import (
    EnsureMasksd,
    FitSquared,
    MoveOnDevice,
    RandSharedAffined,
    ScaleMammogramd,
    chest_wall_side,
)

SHAPES = [(40, 90), (90, 40), (33, 57), (57, 33), (64, 64), (61, 61), (301, 517), (1, 9)]
KEYS = ("image", "label", "mask", "label_mask")
MODES = ("bilinear", "bilinear", "nearest", "nearest")


# ------------------------------------------------------------------------------------------------ intensities
def test_minmax_spans_zero_to_one() -> None:
    pixels = torch.tensor([[[100.0, 300.0], [200.0, 500.0]]])
    scaled = ScaleMammogramd("image")({"image": pixels})["image"]
    torch.testing.assert_close(scaled, torch.tensor([[[0.0, 0.5], [0.25, 1.0]]]))


def test_minmax_clips_to_the_window_before_it_stretches() -> None:
    pixels = torch.tensor([[[0.0, 150.0, 200.0, 9000.0]]])
    scaled = ScaleMammogramd("image")({"image": pixels, "image_window": [200, 200]})["image"]
    torch.testing.assert_close(scaled, torch.tensor([[[0.0, 0.25, 0.5, 1.0]]]))


def test_a_window_of_the_config_serves_the_items_that_have_none() -> None:
    pixels = torch.tensor([[[0.0, 150.0, 200.0, 9000.0]]])
    scale = ScaleMammogramd("image", window=[200, 200])
    torch.testing.assert_close(scale({"image": pixels})["image"], torch.tensor([[[0.0, 0.25, 0.5, 1.0]]]))
    own = scale({"image": pixels, "image_window": [150, 100]})["image"]
    torch.testing.assert_close(own, torch.tensor([[[0.0, 0.5, 1.0, 1.0]]]))


def test_window_scaling_gives_equal_values_to_equal_pixels_of_different_images() -> None:
    scale = ScaleMammogramd("label", "window")
    first, second = torch.tensor([[[0.0, 2105.0, 2200.0]]]), torch.tensor([[[0.0, 2105.0, 9999.0]]])
    one, two = (scale({"label": pixels, "label_window": [2105, 380]})["label"] for pixels in (first, second))
    torch.testing.assert_close(one, torch.tensor([[[0.0, 0.5, 0.75]]]))
    assert torch.equal(one[..., :2], two[..., :2])
    assert two.max() == 1


def test_window_scaling_without_a_window_is_minmax() -> None:
    item = {"image": torch.rand(1, 5, 5) * 900}
    assert torch.equal(ScaleMammogramd("image", "window")(item)["image"], ScaleMammogramd("image")(item)["image"])


@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_gives_zeros(value: int) -> None:
    scaled = ScaleMammogramd("image")({"image": torch.full((1, 4, 4), value, dtype=torch.uint8)})["image"]
    assert scaled.dtype == torch.float32
    assert not scaled.any()


@pytest.mark.parametrize("window", [[1], [5, 0], [5, -1], [math.nan, 4], [1, 2, 3]])
def test_a_bad_window_is_refused(window: list[float]) -> None:
    with pytest.raises(ValueError, match="image_window"):
        ScaleMammogramd("image")({"image": torch.rand(1, 4, 4), "image_window": window})
    with pytest.raises(ValueError, match="window is"):
        ScaleMammogramd("image", window=window)


def test_a_window_from_a_collated_tensor_is_taken() -> None:
    item = {"image": torch.tensor([[[0.0, 255.0]]]), "image_window": torch.tensor([127.5, 255.0])}
    torch.testing.assert_close(ScaleMammogramd("image", "window")(item)["image"], torch.tensor([[[0.0, 1.0]]]))


# ------------------------------------------------------------------------------------------------ square fit
def breast(shape: tuple[int, int], side: str) -> Tensor:
    """(1, W, H): bright at the chest wall, fading away from it."""
    ramp = torch.linspace(0, 1, shape[0]) ** 2
    return (ramp if side == "right" else ramp.flip(0))[None, :, None].expand(1, *shape).contiguous()


@pytest.mark.parametrize(("laterality", "filled"), [("L", slice(0, 16)), ("R", slice(48, 64))])
def test_a_tall_image_is_padded_away_from_the_chest_wall(laterality: str, filled: slice) -> None:
    fitted = FitSquared("image", 64)({"image": torch.ones(1, 16, 64), "laterality": laterality})["image"]
    expected = torch.zeros(1, 64, 64)
    expected[:, filled] = 1
    assert torch.equal(fitted, expected)


def test_a_wide_image_is_padded_above_and_below() -> None:
    fitted = FitSquared("image", 64)({"image": torch.ones(1, 64, 32), "laterality": "R"})["image"]
    assert fitted[..., 16:48].min() == 1
    assert fitted.sum() == 64 * 32


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_comes_from_the_pixels_when_the_laterality_is_unknown(side: str) -> None:
    image = breast((20, 48), side)
    assert chest_wall_side(image) == side
    assert chest_wall_side(image + 1000) == side
    unknown = FitSquared(("image", "mask"), 48, "nearest")({"image": image, "mask": torch.ones(1, 20, 48)})
    known = FitSquared("mask", 48, "nearest")({"mask": torch.ones(1, 20, 48), "laterality": side[0].upper()})
    assert torch.equal(unknown["mask"], known["mask"])


def test_masks_stay_binary_and_lie_where_the_lesion_lies() -> None:
    mask = torch.zeros(1, 300, 500)
    mask[:, 100:180, 200:300] = 1
    item = {"image": mask * 1.0, "mask": mask, "laterality": "L"}
    fitted = FitSquared(("image", "mask"), 128, mode=("bilinear", "nearest"))(item)
    assert set(fitted["mask"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(fitted["mask"], (fitted["image"] >= 0.5).float())


def landmark(shape: tuple[int, int], place: tuple[int, int]) -> Tensor:
    image = torch.zeros(1, *shape)
    image[0, place[0], place[1]] = 1
    return image


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_bright_dot_returns_to_its_pixel_through_monai_invertd(shape: tuple[int, int], laterality: str) -> None:
    affine = torch.diag(torch.tensor([0.1, 0.2, 1.0, 1.0], dtype=torch.float64))
    for size in (max(shape) // 2 * 4, max(shape) * 5 // 12 * 4 + 4):
        fit = Compose([FitSquared("image", size)])
        for place in [(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 3, shape[1] // 2)]:
            item = fit({"image": MetaTensor(landmark(shape, place), affine=affine), "laterality": laterality})
            item["pred"] = item["image"] * 1
            pred = Invertd("pred", transform=fit, orig_keys="image", nearest_interp=False)(item)["pred"]
            assert pred.shape == (1, *shape)
            assert torch.equal(pred.affine, affine)
            assert [int(n) for n in np.unravel_index(int(pred.argmax()), pred.shape)] == [0, *place]


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize("shape", [(301, 517), (517, 300), (640, 640)])
def test_a_lesion_seen_at_fewer_pixels_returns_to_its_place(shape: tuple[int, int], laterality: str) -> None:
    x, y = np.meshgrid(*map(np.arange, shape), indexing="ij")
    centre = (0.3 * shape[0], 0.61 * shape[1])
    spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 8**2))
    fit = Compose([FitSquared("image", 128)])
    item = fit({"image": MetaTensor(torch.from_numpy(spot)[None].float()), "laterality": laterality})
    item["pred"] = item["image"] * 1
    pred = Invertd("pred", transform=fit, orig_keys="image", nearest_interp=False)(item)["pred"][0].numpy()
    assert pred.shape == shape
    np.testing.assert_allclose(ndimage.center_of_mass(pred), centre, atol=0.05)


@pytest.mark.parametrize("shape", [(40, 92), (92, 40), (33, 56), (56, 33), (64, 64), (301, 516), (1, 16)])
def test_an_identity_prediction_comes_back_exactly_when_nothing_is_resized(shape: tuple[int, int]) -> None:
    fit = Compose([FitSquared("image", max(shape))])
    source = torch.rand(1, *shape)
    item = fit({"image": MetaTensor(source)})
    item["pred"] = item["image"] * 1
    assert torch.equal(Invertd("pred", fit, "image")(item)["pred"].as_tensor(), source)


def test_the_affine_names_the_same_places_before_and_after() -> None:
    image = MetaTensor(torch.zeros(1, 30, 60), affine=torch.diag(torch.tensor([0.1, 0.1, 1, 1], dtype=torch.float64)))
    fitted = FitSquared("image", 20)({"image": image, "laterality": "R"})["image"]
    corner = fitted.affine @ torch.tensor([19.5, 19.5, 0, 1], dtype=torch.float64)  # outer corner of the last pixel
    torch.testing.assert_close(corner[:2], torch.tensor([2.95, 5.95], dtype=torch.float64))
    corner = fitted.affine @ torch.tensor([-0.5, -0.5, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(corner[:2], torch.tensor([-3.05, -0.05], dtype=torch.float64))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_predictions_of_a_batch_of_different_sizes_return_to_their_grids(num_workers: int) -> None:
    fit = Compose([FitSquared(("image", "label"), 48, allow_missing_keys=True)])
    shapes = [(40, 90), (91, 40), (33, 57)]
    items = [{"image": MetaTensor(torch.rand(1, *shape)), "laterality": "R"} for shape in shapes]
    loader = DataLoader(Dataset(items, fit), batch_size=3, num_workers=num_workers)
    batch = next(iter(loader))
    batch["pred"] = batch["image"] * 0.5
    inverted = [Invertd("pred", fit, "image", nearest_interp=False)(item) for item in decollate_batch(batch)]
    assert [tuple(item["pred"].shape[1:]) for item in inverted] == shapes


def test_the_inverse_of_one_item_leaves_the_item_as_it_was() -> None:
    fit = FitSquared("image", 32)
    item = fit({"image": MetaTensor(torch.rand(1, 20, 40))})
    affine = item["image"].affine.clone()
    fit.inverse(item)
    assert len(item["image"].applied_operations) == 1
    assert torch.equal(item["image"].affine, affine)


def test_a_label_item_without_masks_and_laterality_is_fitted() -> None:
    keys = ("image", "label", "mask")
    fit = FitSquared(keys, 32, ("bilinear", "bilinear", "nearest"), allow_missing_keys=True)
    item = fit({"image": torch.rand(1, 20, 40), "label": torch.rand(1, 20, 40)})
    assert {key: tuple(item[key].shape) for key in item} == {"image": (1, 32, 32), "label": (1, 32, 32)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"spatial_size": 0}, "spatial_size"), ({"spatial_size": 16, "mode": "cubic"}, "mode is 'cubic'")],
)
def test_bad_arguments_of_the_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitSquared("image", **arguments)


@pytest.mark.parametrize("size", [0, 12, 18, 50, 64.0, "64"])
def test_a_size_that_the_generator_cannot_halve_twice_is_refused(size: Any) -> None:
    words = r"expected 'native' or a multiple of 4 that is at least 16.* Correct image_size"
    with pytest.raises(ValueError, match=words):
        FitSquared("image", size)


# ------------------------------------------------------------------------------------------------ masks
@pytest.mark.parametrize("given", [(), ("mask",), ("label_mask",), ("mask", "label_mask")])
def test_every_item_has_two_binary_masks(given: tuple[str, ...]) -> None:
    drawn = {"mask": torch.eye(4)[None] * 255, "label_mask": torch.eye(4).flip(0)[None] * 3}
    item = EnsureMasksd()({"image": torch.rand(1, 4, 4), **{key: drawn[key] for key in given}})
    for key in ("mask", "label_mask"):
        source = drawn[key if key in given else given[0]] if given else torch.zeros(1, 4, 4)
        assert torch.equal(item[key], (source > 0).float())


# ------------------------------------------------------------------------------------------------ augmentation
def test_all_keys_move_alike() -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:40, 10:30] = 1
    item = dict.fromkeys(KEYS, mask)
    augment = RandSharedAffined(KEYS, MODES, prob=1)
    augment.set_random_state(3)
    moved = augment(item)
    assert torch.equal(moved["image"], moved["label"])
    assert torch.equal(moved["mask"], moved["label_mask"])
    assert torch.equal(moved["mask"], (moved["image"] >= 0.5).float())
    assert not torch.equal(moved["mask"], mask)


def test_nothing_drawn_returns_the_pixels_untouched() -> None:
    image = torch.rand(1, 16, 16)
    assert RandSharedAffined("image", prob=0)({"image": image})["image"] is image


def test_flip_mirrors_left_to_right() -> None:
    image = torch.rand(1, 16, 16)
    flipped = RandSharedAffined("image", prob=1, rotate=0, shift=0, zoom=0)({"image": image})["image"]
    torch.testing.assert_close(flipped, image.flip(1), atol=1e-5, rtol=0)


def test_the_map_is_the_documented_one() -> None:
    """Against scipy: the same matrix, applied to pixel positions around the middle of the picture."""
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((41, 41)), 2).astype(np.float32)
    augment = RandSharedAffined("image", prob=1)
    augment.set_random_state(5)
    moved = augment({"image": torch.from_numpy(image)[None]})["image"][0].numpy()
    assert augment.theta is not None
    matrix, shift = augment.theta[:, :2].double().numpy(), augment.theta[:, 2].double().numpy() * 41 / 2
    offset = 20 + shift - matrix @ np.array([20.0, 20.0])
    expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="constant")
    np.testing.assert_allclose(moved[6:-6, 6:-6], expected[6:-6, 6:-6], atol=2e-5)


def test_each_component_is_drawn_with_the_probability_and_within_the_ranges() -> None:
    augment = RandSharedAffined("image", prob=0.3)
    augment.set_random_state(0)
    found = []
    for _ in range(3000):
        augment.randomize(None)
        theta = np.eye(2, 3) if augment.theta is None else augment.theta.double().numpy()
        mirror = np.sign(np.linalg.det(theta[:, :2]))
        zoom = 1 / math.sqrt(abs(np.linalg.det(theta[:, :2])))
        angle = math.degrees(math.atan2(theta[1, 0], theta[1, 1]))
        found.append((angle, zoom, mirror, *theta[:, 2]))
    angle, zoom, mirror, x, y = np.array(found).T
    for drawn in (abs(angle) > 1e-6, abs(zoom - 1) > 1e-6, mirror < 0, abs(x) + abs(y) > 1e-6):
        assert 0.26 < drawn.mean() < 0.34
    assert 14 < abs(angle).max() <= 15
    assert 0.9 <= zoom.min() < 0.91
    assert 1.09 < zoom.max() <= 1.1 + 1e-6
    assert 0.19 < abs(x).max() <= 0.2 + 1e-6  # a tenth of the side is 0.2 of [-1, 1]
    assert abs(np.corrcoef(abs(angle) > 1e-6, mirror < 0)[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(33, 33), (20, 44)])
def test_pixels_are_taken_where_affine_grid_of_torch_says(shape: tuple[int, int]) -> None:
    augment = RandSharedAffined("image", prob=1)
    augment.set_random_state(4)
    image = torch.rand(1, *shape)
    moved = augment({"image": image})["image"]
    assert augment.theta is not None
    theta = augment.theta.flip(0)[:, [1, 0, 2]]  # torch calls the last axis x
    grid = functional.affine_grid(theta[None], [1, 1, *shape], align_corners=False)
    expected = functional.grid_sample(image[None], grid, align_corners=False)[0]
    torch.testing.assert_close(moved, expected, atol=2e-5, rtol=0)


def test_seeding_again_repeats_the_draws_whatever_was_seeded_before() -> None:
    fresh, used = (RandSharedAffined("image", prob=0.5) for _ in range(2))
    for seed in (3, 2**32 + 5, 3):
        used.set_random_state(seed)
        fresh.R = np.random.RandomState(seed % 2**32)
        for _ in range(5):
            fresh.randomize()
            used.randomize()
            assert (fresh.theta is None) == (used.theta is None)
            assert fresh.theta is None or used.theta is None or torch.equal(fresh.theta, used.theta)
    shared = np.random.RandomState(0)
    used.set_random_state(state=shared)
    used.set_random_state(1)
    assert shared.randint(1000) == np.random.RandomState(0).randint(1000)


def deferred_and_moved(count: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A batch whose maps are drawn but not applied, and the same items moved one by one."""
    items = [{key: torch.rand(1, 24, 24) for key in KEYS} for _ in range(count)]
    for item in items:
        item["mask"], item["label_mask"] = (item["mask"] > 0.7).float(), torch.zeros(1, 24, 24)
    parts: list[list[dict[Any, Any]]] = []
    for defer in (True, False):
        augment = RandSharedAffined(KEYS, MODES, prob=0.4, defer=defer)
        augment.set_random_state(11)
        parts.append([augment(item) for item in items])
    deferred, moved = ({key: torch.stack([one[key] for one in part]) for key in part[0]} for part in parts)
    return deferred, moved


def test_a_batch_moved_at_once_holds_the_images_that_are_moved_one_by_one() -> None:
    batch, moved = deferred_and_moved(12)
    before = batch["image"].clone()
    image, label = MoveOnDevice(KEYS, MODES)(batch, torch.device("cpu"))
    assert batch.keys() == moved.keys()
    for key in KEYS:
        torch.testing.assert_close(batch[key], moved[key], atol=1e-5, rtol=0)
    assert torch.equal(image, batch["image"])
    assert torch.equal(label, batch["label"])
    assert not torch.equal(image, before)


def test_moving_a_batch_reads_nothing_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, _ = deferred_and_moved(3)

    def forbidden(*_: Any) -> None:
        raise AssertionError("moving a batch waits for the device")

    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        monkeypatch.setattr(Tensor, method, forbidden)
    MoveOnDevice(KEYS, MODES)(batch, torch.device("cpu"))


def test_a_batch_without_maps_is_left_as_it_is() -> None:
    batch = {"image": torch.rand(2, 1, 8, 8), "label": torch.rand(2, 1, 8, 8)}
    image, label = MoveOnDevice(KEYS, MODES)(dict(batch), torch.device("cpu"))
    assert torch.equal(image, batch["image"])
    assert torch.equal(label, batch["label"])


def test_images_of_different_shapes_are_refused() -> None:
    pair = {"image": torch.rand(1, 8, 8), "label": torch.rand(1, 9, 9)}
    with pytest.raises(ValueError, match="one shape"):
        RandSharedAffined(("image", "label"), prob=1)(pair)
    batch = {key: image[None] for key, image in pair.items()} | {"theta": torch.eye(2, 3)[None]}
    with pytest.raises(ValueError, match="one shape"):
        MoveOnDevice(("image", "label"))(batch)


@pytest.mark.parametrize("arguments", [{"prob": 2}, {"rotate": -1}, {"shift": 3}, {"zoom": 1}])
def test_augmentation_out_of_range_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RandSharedAffined("image", **arguments)  # type: ignore[arg-type]
