from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from torch import Tensor

from bundle.predictors import fit_predictors, is_mirrored


def left_breast(level: float) -> dict[str, Any]:
    image = torch.zeros(1, 16, 12)
    image[:, :6, 2:10] = 0.5
    label = torch.where(image > 0, level, 0.0)
    label[:, 2, 4] += 0.1
    return {"image": image, "label": label, "laterality": "L"}


def right_breast(level: float) -> dict[str, Any]:
    item = left_breast(level)
    return {"image": item["image"].flip(1), "label": item["label"].flip(1), "laterality": "R"}


def batched(item: dict[str, Any]) -> dict[str, Tensor]:
    return {key: item[key][None] for key in ("image", "label")}


def test_right_breasts_are_recognised_from_the_pixels() -> None:
    images = torch.stack([left_breast(0.2)["image"], right_breast(0.2)["image"]])
    assert is_mirrored(images).tolist() == [False, True]


def test_the_copy_is_the_low_energy_image() -> None:
    batch = batched(left_breast(0.3))
    assert torch.equal(fit_predictors([batch])["le_copy"](batch), batch["image"])


def test_the_constant_is_the_training_mean_inside_the_breast_and_0_outside() -> None:
    items = [left_breast(0.2), right_breast(0.4)]
    values = torch.cat([item["label"][item["image"] > 0] for item in items])
    batch = batched(right_breast(0.9))
    pred = fit_predictors([batched(item) for item in items])["breast_constant"](batch)
    inside = batch["image"] > 0
    torch.testing.assert_close(pred[inside], torch.full_like(pred[inside], float(values.mean())))
    assert not pred[~inside].any()


def test_the_mean_is_mirrored_to_the_side_of_the_case() -> None:
    predictors = fit_predictors([batched(left_breast(0.2)), batched(right_breast(0.4))])
    left, right = (predictors["mean_des"](batched(make(0.0))) for make in (left_breast, right_breast))
    torch.testing.assert_close(left[0], left_breast(0.3)["label"])
    torch.testing.assert_close(right[0], right_breast(0.3)["label"])


def test_a_mixed_batch_is_predicted_case_by_case() -> None:
    items = [left_breast(0.2), right_breast(0.4)]
    predictors = fit_predictors([batched(item) for item in items])
    both = {key: torch.stack([item[key] for item in items]) for key in ("image", "label")}
    for name, predict in predictors.items():
        alone = torch.cat([predict(batched(item)) for item in items])
        assert torch.equal(predict(both), alone), name


def test_loaders_data_sets_and_generators_give_the_same_fit() -> None:
    items = [left_breast(0.2), right_breast(0.4), left_breast(0.6)]
    tracked = [item | {"image": MetaTensor(item["image"])} for item in items]
    batch = batched(left_breast(0.0))
    sources: list[Any] = [Dataset(tracked), DataLoader(Dataset(items), batch_size=2), (batched(item) for item in items)]
    fits = [fit_predictors(source) for source in sources]
    for name, predict in fits[0].items():
        for other in fits[1:]:
            torch.testing.assert_close(predict(batch), other[name](batch))


def test_no_training_data_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="0 training images"):
        fit_predictors([])


def test_black_images_are_an_error_that_says_so() -> None:
    black = {"image": torch.zeros(1, 1, 8, 8), "label": torch.zeros(1, 1, 8, 8)}
    with pytest.raises(ValueError, match="1 training images with 0 breast pixels"):
        fit_predictors([black])


def test_images_of_different_size_are_refused() -> None:
    small = {key: value[..., :8] for key, value in batched(left_breast(0.2)).items()}
    with pytest.raises(ValueError, match="different sizes"):
        fit_predictors([batched(left_breast(0.2)), small])
    with pytest.raises(ValueError, match="fitted on"):
        fit_predictors([batched(left_breast(0.2))])["mean_des"](small)
