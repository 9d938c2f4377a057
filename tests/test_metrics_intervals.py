"""Intervals and tests count patients, not images."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, mannwhitneyu, pearsonr, wilcoxon

from bundle.metrics.intervals import Resampling, compare, figures

RESAMPLING = Resampling(resamples=4000)


def rows(patients: int = 30, views: int = 2, seed: int = 0) -> pd.DataFrame:
    """Cases whose error depends on the patient, every third without a lesion."""
    rng = np.random.default_rng(seed)
    of_patient = np.repeat(rng.normal(0, 1, patients), views)
    n = patients * views
    real = rng.uniform(0, 0.3, n)
    frame = pd.DataFrame(
        {
            "patient_id": np.repeat([f"P{i}" for i in range(patients)], views),
            "laterality": "L",
            "view": [("CC", "MLO", "LM", "ML")[i % 4] for i in range(n)],
            "source": [f"case{i}" for i in range(n)],
            "psnr": 25 + of_patient + rng.normal(0, 0.1, n),
            "lesion_mae": np.where(np.arange(n) % 3 == 0, np.nan, rng.uniform(0, 0.2, n)),
            "lesion_contrast_real": real,
            "lesion_contrast_virtual": 0.5 * real + rng.normal(0, 0.03, n),
        }
    )
    return frame.assign(
        lesion_cnr_real=frame["lesion_contrast_real"] / 0.15, lesion_cnr_virtual=frame["lesion_contrast_virtual"] / 0.15
    )


def width(frame: pd.DataFrame, metric: str = "psnr") -> float:
    figure = figures(frame, RESAMPLING)[metric]
    return figure["high"] - figure["low"]


def test_the_interval_is_that_of_scipys_bootstrap_where_each_patient_has_one_image() -> None:
    frame = rows(40, views=1)
    found = figures(frame, RESAMPLING)["psnr"]
    expected = bootstrap(
        (frame["psnr"],), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found["low"] == pytest.approx(expected.low, abs=0.03)
    assert found["high"] == pytest.approx(expected.high, abs=0.03)


def test_more_images_of_the_same_patients_do_not_make_the_interval_narrower() -> None:
    frame = rows(30, views=1)
    repeated = pd.concat([frame.assign(source=frame["source"] + str(i)) for i in range(10)])
    assert width(repeated) == pytest.approx(width(frame), rel=1e-9)


def test_images_of_one_patient_are_drawn_together() -> None:
    frame = rows(30, views=4)
    as_if_independent = frame.assign(patient_id=[f"Q{i}" for i in range(len(frame))])
    assert width(frame) > 1.5 * width(as_if_independent)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    quick = Resampling(resamples=300)
    hits = 0
    for seed in range(200):
        found = figures(rows(25, views=2, seed=seed)[["patient_id", "psnr"]], quick)["psnr"]
        hits += found["low"] <= 25.0 <= found["high"]
    assert 0.87 <= hits / 200 <= 0.99


def test_mean_sd_and_median_skip_cases_without_the_figure() -> None:
    frame = rows()
    known = frame["lesion_mae"].dropna()
    found = figures(frame, RESAMPLING)["lesion_mae"]
    assert found["n"] == len(known) == 40
    assert [found["mean"], found["sd"], found["median"]] == pytest.approx([known.mean(), known.std(), known.median()])
    assert found["low"] < found["mean"] < found["high"]


def test_figures_over_several_cases_have_the_value_of_scipy_and_an_interval_around_it() -> None:
    frame = rows()
    found = figures(frame, RESAMPLING)
    real, virtual = frame["lesion_contrast_real"], frame["lesion_contrast_virtual"]
    enhancing = frame["lesion_cnr_real"] > 1
    u = mannwhitneyu(frame["lesion_cnr_virtual"][enhancing], frame["lesion_cnr_virtual"][~enhancing]).statistic
    expected = {
        "lesion_contrast_r": pearsonr(real, virtual).statistic,
        "contrast_recovery": virtual.mean() / real.mean(),
        "enhancement_auc": u / (enhancing.sum() * (~enhancing).sum()),
    }
    for name, value in expected.items():
        assert found[name]["mean"] == pytest.approx(value)
        assert found[name]["low"] < value < found[name]["high"]
        assert math.isnan(found[name]["sd"])


def test_every_sample_of_those_figures_is_the_figure_of_the_drawn_patients() -> None:
    frame, resampling = rows(12), Resampling(resamples=5, confidence=0.0)
    draws = resampling.row_weights(frame["patient_id"]).astype(int)
    repeated = [frame.loc[frame.index.repeat(draw)] for draw in draws]
    expected = [pearsonr(one["lesion_contrast_real"], one["lesion_contrast_virtual"]).statistic for one in repeated]
    assert figures(frame, resampling)["lesion_contrast_r"]["low"] == pytest.approx(np.median(expected))
    aucs = [figures(one, resampling)["enhancement_auc"]["mean"] for one in repeated]
    assert figures(frame, resampling)["enhancement_auc"]["low"] == pytest.approx(np.median(aucs))


def test_no_samples_are_refused_with_what_to_set() -> None:
    with pytest.raises(ValueError, match="set resamples to 1 or more"):
        Resampling(resamples=0)


def test_one_patient_has_figures_but_no_interval() -> None:
    found = figures(rows(1, views=4), RESAMPLING)["psnr"]
    assert math.isfinite(found["mean"])
    assert math.isnan(found["low"])


def test_perfect_images_have_an_infinite_psnr_and_no_interval() -> None:
    found = figures(rows(3).assign(psnr=math.inf), RESAMPLING)["psnr"]
    assert math.isinf(found["mean"])
    assert math.isnan(found["low"])


def test_the_same_cases_give_the_same_interval_in_any_order() -> None:
    frame = rows()
    shuffled = frame.sample(frac=1, random_state=3)
    for name, found in figures(frame, RESAMPLING).items():
        assert figures(shuffled, RESAMPLING)[name] == pytest.approx(found, nan_ok=True), name


def test_seeds_are_averaged_within_a_case_and_do_not_count_as_patients() -> None:
    one, other = rows(seed=0).assign(seed=0), rows(seed=0).assign(seed=1)
    other["lesion_contrast_virtual"] = other["lesion_contrast_virtual"].sample(frac=1, random_state=0).to_numpy()
    both = pd.concat([one, other])
    assert width(both) == pytest.approx(width(one))
    expected = [figures(part, RESAMPLING)["lesion_contrast_r"]["mean"] for part in (one, other)]
    assert figures(both, RESAMPLING)["lesion_contrast_r"]["mean"] == pytest.approx(np.mean(expected))


def test_a_comparison_is_wilcoxons_test_over_patients() -> None:
    a = rows()
    b = a.assign(psnr=a["psnr"] + 0.2 + np.random.default_rng(1).normal(0, 0.5, len(a)))
    found = compare(a, b.sample(frac=1, random_state=1), RESAMPLING)["psnr"]
    change = (b["psnr"] - a["psnr"]).groupby(a["patient_id"]).mean()
    assert found["p"] == pytest.approx(wilcoxon(change).pvalue)
    assert found["difference"] == pytest.approx((b["psnr"] - a["psnr"]).mean())
    assert (found["patients"], found["cases"]) == (30, 60)
    assert found["low"] < found["difference"] < found["high"]
    back = compare(b, a, RESAMPLING)["psnr"]
    assert [back["difference"], back["low"], back["effect"]] == pytest.approx(
        [-found["difference"], -found["high"], -found["effect"]]
    )


def test_pairing_makes_small_steady_differences_visible() -> None:
    a = rows()
    found = compare(a, a.assign(psnr=a["psnr"] + 0.05), RESAMPLING)["psnr"]
    assert [found["low"], found["high"], found["effect"]] == pytest.approx([0.05, 0.05, 1.0])
    assert found["p"] < 1e-6
    assert width(a) > 0.5


def test_equal_predictors_differ_by_nothing() -> None:
    found = compare(rows(), rows(), RESAMPLING)
    assert found["psnr"]["difference"] == 0
    assert math.isnan(found["psnr"]["p"])
    assert [found["lesion_contrast_r"][key] for key in ("difference", "low", "high")] == [0, 0, 0]


def test_only_cases_that_both_have_are_compared() -> None:
    a = rows()
    found = compare(a, a.iloc[10:].assign(psnr=a["psnr"] + 1), RESAMPLING)
    assert (found["psnr"]["cases"], found["psnr"]["patients"]) == (50, 25)
    assert found["contrast_recovery"]["cases"] == 50
    assert compare(a, a.assign(source="other"), RESAMPLING) == {}


def test_figures_over_several_cases_are_compared_by_their_interval_alone() -> None:
    a = rows()
    found = compare(a, a.assign(lesion_contrast_virtual=a["lesion_contrast_real"]), RESAMPLING)["contrast_recovery"]
    assert found["difference"] == pytest.approx(1 - figures(a, RESAMPLING)["contrast_recovery"]["mean"])
    assert 0 < found["low"] < found["high"]
    assert math.isnan(found["p"])
