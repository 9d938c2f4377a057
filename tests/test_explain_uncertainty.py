"""Uncertainty and its calibration: no spread where there is none, and exact figures for errors of a known kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bundle.metrics.intervals import Resampling
from bundle.transforms import RandSharedAffined
from scripts.explaining.calibration import BINS, calibration, recalibrated, reliability
from scripts.explaining.figures import bootstrapped
from scripts.explaining.flags import bright_areas, false_enhancement, lesion_spearman, lost_auc
from scripts.explaining.uncertainty import _moved, augmented_std, draw_maps, ensemble_std
from tests.test_explain_attribution import Network, breast

RANGES = {"rotate": 15, "shift": 0.1, "zoom": 0.1, "flip": True}
FEW = Resampling(100)


def pointwise(function: Callable[[Tensor], Tensor]) -> Tensor:
    """Standard deviation of a pointwise network on a textured breast."""
    return augmented_std(Network(function), breast()[0], draw_maps(8, RANGES, seed=0))


def test_a_network_that_moves_with_its_image_has_no_spread_wherever_it_is_known() -> None:
    for function in (lambda x: x, lambda x: 0.5 * x + 0.2):
        found = pointwise(function)
        assert found[..., 14:26, 14:26].isfinite().all()
        assert found[found.isfinite()].max() < 1e-6


def test_a_pointwise_network_that_bends_has_no_spread_under_flips_and_in_even_tissue() -> None:
    flips = {"rotate": 0, "shift": 0, "zoom": 0, "flip": True}
    assert augmented_std(Network(lambda x: x**2), breast()[0], draw_maps(4, flips, seed=0)).max() < 1e-6
    even = torch.full((1, 1, 40, 40), 0.5)
    found = augmented_std(Network(torch.sigmoid), even, draw_maps(8, RANGES, seed=0))
    assert found[..., 14:26, 14:26].max() < 1e-6


def test_a_network_that_depends_on_the_place_has_a_spread() -> None:
    ramp = torch.linspace(0, 1, 40).view(1, 1, -1, 1)
    assert pointwise(lambda x: x * ramp)[..., 14:26, 14:26].min() > 0.01


def test_where_maps_lead_out_of_the_picture_nothing_is_said() -> None:
    maps = torch.eye(2, 3).repeat(6, 1, 1)
    maps[:, :, 2] = torch.linspace(0.1, 0.4, 6)[:, None]  # up and to the left
    found = augmented_std(Network(lambda x: x), breast()[0], maps)
    assert found[..., 18:22, 18:22].isfinite().all()
    assert found[..., :4, :4].isnan().all()


def test_the_maps_are_those_of_the_training() -> None:
    maps = draw_maps(3, RANGES, seed=5)
    transform = RandSharedAffined("image", prob=0.5, **RANGES)  # type: ignore[arg-type]
    transform.set_random_state(5)
    image = breast()[0]
    for one in maps:
        expected = transform({"image": image[0]})["image"]
        torch.testing.assert_close(_moved(image, one[None])[0], expected, atol=1e-5, rtol=1e-4)


def test_the_ranges_of_the_augmentation_can_be_left_to_their_defaults_and_the_seed_decides() -> None:
    assert draw_maps(4, {}, 0).equal(draw_maps(4, {}, 0))
    assert not draw_maps(4, {}, 0).equal(draw_maps(4, {}, 1))


def test_the_spread_of_an_ensemble_is_the_standard_deviation_over_its_networks() -> None:
    networks: list[nn.Module] = [Network(lambda x, k=k: x + 0.1 * k) for k in range(4)]  # type: ignore[misc]
    found = ensemble_std(networks, breast()[0])
    torch.testing.assert_close(found, torch.full_like(found, float(np.std([0, 0.1, 0.2, 0.3], ddof=1))))
    with pytest.raises(ValueError, match="at least two"):
        ensemble_std(networks[:1], breast()[0])


def gaussian_pixels(factor: float = 1.0, patients: int = 20, pixels: int = 1000) -> pd.DataFrame:
    """Errors drawn from the normal distribution whose standard deviation is predicted, ``factor`` times too small."""
    rng = np.random.default_rng(0)
    std = rng.uniform(0.02, 0.2, patients * pixels)
    names = np.repeat([f"P{number:02d}" for number in range(patients)], pixels)
    return pd.DataFrame({"patient_id": names, "error": rng.normal(0, factor * std), "std": std})


def test_the_true_standard_deviation_is_calibrated() -> None:
    found = calibration(gaussian_pixels().rename(columns={"std": "tta"}), "tta", FEW)
    assert found["raw"]["ence"]["value"] < 0.03
    assert found["factor"] == pytest.approx(1, abs=0.02)
    assert (found["pixels"], found["patients"], len(found["raw"]["bins"])) == (20_000, 20, BINS)
    assert [one["n"] for one in found["raw"]["bins"]] == [2000] * BINS
    rmv = [one["rmv"] for one in found["raw"]["bins"]]
    assert rmv == sorted(rmv)
    assert found["raw"]["ence"]["low"] <= found["raw"]["ence"]["value"] * 1.5


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_standard_deviation_of_another_size_is_off_by_the_factor_and_mended(factor: float) -> None:
    found = calibration(gaussian_pixels(factor).rename(columns={"std": "tta"}), "tta", FEW)
    assert found["raw"]["ence"]["value"] == pytest.approx(abs(factor - 1), rel=0.03)
    assert found["factor"] == pytest.approx(factor, rel=0.02)
    assert found["recalibrated"]["ence"]["value"] < 0.03


def test_an_error_that_stays_where_nothing_is_spread_is_mended_by_no_factor_but_by_recalibration() -> None:
    rows = gaussian_pixels()
    rows["error"] = np.hypot(rows["error"], 0.3)
    found = calibration(rows.rename(columns={"std": "tta"}), "tta", FEW)
    scaled = reliability(rows.assign(std=rows["std"] * found["factor"]), FEW)
    assert scaled["ence"]["value"] > 0.5
    assert found["recalibrated"]["ence"]["value"] < 0.02


def test_a_patient_is_recalibrated_by_the_others() -> None:
    rows = gaussian_pixels(patients=4)
    own = rows["patient_id"] == "P02"
    rows.loc[own, "error"] *= 100
    expected = recalibrated(rows)
    assert expected[own] == pytest.approx(rows.loc[own, "std"].to_numpy(), rel=0.4)
    assert expected[~own].mean() > 10 * rows.loc[~own, "std"].mean()


def test_a_spread_that_says_nothing_of_the_error_is_recalibrated_to_the_mean_error() -> None:
    rows = gaussian_pixels()
    rows["std"] = rows["std"].to_numpy()[np.random.default_rng(1).permutation(len(rows))]
    found = calibration(rows.rename(columns={"std": "tta"}), "tta", FEW)
    assert found["raw"]["ence"]["value"] > 0.3
    errors = [one["rmv"] for one in found["recalibrated"]["bins"]]
    assert errors == pytest.approx([float(np.sqrt(rows["error"].pow(2).mean()))] * BINS, rel=0.05)


def test_a_calibration_that_cannot_be_judged_says_why() -> None:
    rows = gaussian_pixels(patients=1)
    found = calibration(rows.rename(columns={"std": "tta"}), "tta", FEW)
    assert found["raw"]["ence"]["value"] < 0.1
    assert math.isnan(found["raw"]["ence"]["low"])
    assert "one patient" in found["recalibrated"]["ence"]["reason"]
    assert "100 pixels" in reliability(rows.head(100), FEW)["ence"]["reason"]
    none = reliability(gaussian_pixels(patients=2).assign(std=0.0), FEW)["ence"]
    assert math.isnan(none["value"])
    assert "0 in a whole bin" in none["reason"]
    empty = calibration(rows.head(0).rename(columns={"std": "tta"}), "tta", FEW)
    assert empty["pixels"] == 0
    assert math.isnan(empty["factor"])


def lesions(std: list[float], lost: list[float], error: list[float] | None = None) -> pd.DataFrame:
    names = [f"P{number:02d}" for number in range(len(std))]
    return pd.DataFrame({"patient_id": names, "std_tta": std, "lost": lost, "lesion_mae": error or std})


LOST = [1.0] * 6 + [0.0] * 6


@pytest.mark.parametrize(
    ("std", "expected"),
    [([2.0] * 6 + [1.0] * 6, 1.0), ([1.0] * 6 + [2.0] * 6, 0.0), ([1.0] * 12, 0.5), ([1, 2, 3, 4, 5, 6] * 2, 0.5)],
)
def test_the_auc_is_one_for_a_perfect_warning_and_a_half_for_none(std: list[float], expected: float) -> None:
    found = lost_auc(lesions(std, LOST), "tta", FEW)
    assert found["value"] == pytest.approx(expected)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["n"] == 12


@pytest.mark.parametrize(
    ("lost", "words"),
    [([1.0] * 12, "12 lost and 0 kept"), ([1.0] * 4 + [0.0] * 8, "4 lost and 8 kept"), ([], "0 lost")],
)
def test_an_auc_of_too_few_lesions_is_not_made_up(lost: list[float], words: str) -> None:
    found = lost_auc(lesions([1.0] * len(lost), lost), "tta", FEW)
    assert math.isnan(found["value"])
    assert words in found["reason"]


def test_lesions_that_do_not_enhance_or_have_no_spread_are_not_counted() -> None:
    rows = lesions([2.0] * 6 + [1.0] * 6 + [9.0, math.nan], [*LOST, math.nan, 0.0])
    assert lost_auc(rows, "tta", FEW)["n"] == 12
    assert lost_auc(rows, "tta", FEW)["value"] == 1


def test_the_rank_correlation_with_the_lesion_error_is_exact_and_needs_enough_lesions() -> None:
    std = [float(number) for number in range(12)]
    found = lesion_spearman(lesions(std, LOST, [-one for one in std]), "tta", FEW)
    assert found["value"] == pytest.approx(-1)
    assert "9 lesions of 9 patients" in lesion_spearman(lesions(std[:9], LOST[:9]), "tta", FEW)["reason"]
    assert lesion_spearman(pd.DataFrame(), "tta", FEW)["n"] == 0


def test_an_interval_is_drawn_by_patient_and_one_patient_has_none() -> None:
    def mean(part: pd.DataFrame) -> float:
        return float(part["x"].mean())

    rows = pd.DataFrame({"patient_id": ["a"] * 50 + ["b"] * 50, "x": [0.0] * 50 + [1.0] * 50})
    found = bootstrapped(rows, mean, Resampling(400))
    assert (found["value"], found["low"], found["high"]) == (0.5, 0, 1)
    assert math.isnan(bootstrapped(rows.head(50), mean, FEW)["low"])


def areas_of(pred: Tensor, label: Tensor, near: Tensor, std: Tensor) -> list[dict[str, Any]]:
    inside = torch.zeros_like(near)
    inside[..., :36, :] = True
    return bright_areas(pred, label, inside, near, {"tta": std})


def test_a_bright_area_is_true_if_the_real_one_has_half_of_it_and_lost_at_a_lesion_it_does_not_count() -> None:
    noise = 0.01 * torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    pred, label, std = 0.3 + noise, 0.3 + noise, torch.full_like(noise, 0.1)
    near = torch.zeros_like(noise, dtype=torch.bool)
    places = {"false": (4, 4), "true": (4, 20), "false at a lesion": (16, 4), "true at a lesion": (16, 20)}
    for name, (x, y) in places.items():
        pred[..., x : x + 4, y : y + 4] += 0.3
        label[..., x : x + 4, y : y + 4] += 0.05 if "false" in name else 0.2
        near[..., x : x + 2, y : y + 2] = "lesion" in name
    std[..., 4:8, 4:8] = 0.4
    std[..., 4, 4] = math.nan
    pred[..., 37:, :] = 1.0  # the background
    found = areas_of(pred, label, near, std)
    assert [one["false"] for one in found] == [1, 0, 0]
    assert [one["excess"] for one in found] == pytest.approx([0.3] * 3, abs=0.02)
    assert [one["std_tta"] for one in found] == pytest.approx([0.4, 0.1, 0.1])
    assert found[0]["area_mm2"] == pytest.approx(16 * (220 / 40) ** 2)
    assert areas_of(0.3 + noise, 0.3 + noise, near, std) == []
    assert areas_of(pred, label, torch.ones_like(near), std) == []


def areas(difference: float) -> pd.DataFrame:
    """False areas are darker, and spread grows with brightness; beyond that false ones have ``difference`` more."""
    rng = np.random.default_rng(0)
    excess = np.concatenate([rng.uniform(0.1, 0.4, 200), rng.uniform(0.2, 0.8, 200)])
    false = np.repeat([1, 0], 200)
    patients = [f"P{number % 20:02d}" for number in range(400)]
    std = 0.5 * excess + difference * false
    return pd.DataFrame({"patient_id": patients, "false": false, "excess": excess, "std_tta": std})


def test_uncertainty_of_false_areas_is_compared_with_equally_bright_true_ones() -> None:
    rows = areas(0.1)
    found = false_enhancement(rows, "tta", FEW)
    plain = rows.groupby("false")["std_tta"].mean()
    assert plain[1] - plain[0] < 0.02
    assert found["difference"]["value"] == pytest.approx(0.1, abs=0.03)
    assert found["higher"] is True
    assert (found["false"], found["true"]) == (200, 200)
    assert false_enhancement(areas(-0.2), "tta", FEW)["higher"] is False


def test_a_comparison_of_too_few_areas_or_of_none_as_bright_is_not_made_up() -> None:
    few = false_enhancement(areas(0.1).head(203), "tta", FEW)
    assert few["higher"] is None
    assert "200 false and 3 true" in few["difference"]["reason"]
    apart = areas(0.1).assign(excess=lambda rows: 1.0 - rows["false"])
    assert "as bright" in false_enhancement(apart, "tta", FEW)["difference"]["reason"]
    assert false_enhancement(pd.DataFrame(), "tta", FEW)["true"] == 0
