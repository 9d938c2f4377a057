"""Results of several trainings are put together without counting anything twice."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bundle.metrics.intervals import Resampling
from scripts import cross_validate, sweep_gamma
from scripts.evidence.arms import arm_named, gamma_arm
from scripts.evidence.command import CONFIGS, study_of
from scripts.evidence.gamma import LARGEST_LOSS_DB, choose_gamma, draw_gamma, gamma_figures
from scripts.evidence.results import collect, comparison_table, read_cases
from scripts.evidence.study import Study
from tests.evidence import case_table, write_run

RESAMPLING = Resampling(resamples=300)


def options(command: str, dataset: Path, folder: Path, *more: str) -> argparse.Namespace:
    parser = {"cv": cross_validate.argument_parser, "gamma": sweep_gamma.argument_parser}[command]()
    arms = ["--arms", "baseline"] if command == "cv" else []
    return parser.parse_args([*arms, "--dataset_dir", str(dataset), "--output", str(folder), *more])


@pytest.fixture
def study(tiny_dataset: Path, tmp_path: Path) -> Study:
    """A study of two arms and two folds whose second arm has a lower lesion error."""
    arms = [arm_named(name, CONFIGS) for name in ("baseline", "seg35")]
    made = study_of(options("cv", tiny_dataset, tmp_path / "cv", "--folds", "2"), arms, "Cross-validation", ["test"])
    for job in made.jobs():
        shift = {"lesion_mae": -0.1, "psnr": 0.01} if job.arm == "seg35" else {}
        write_run(Path(job.folder), case_table(job.fold, shift))
    return made


def test_every_case_of_every_arm_is_there_once_and_trivial_predictors_once(study: Study) -> None:
    cases = read_cases(study.jobs())
    assert cases["arm"].value_counts().to_dict() == dict.fromkeys(
        ["baseline", "seg35", "le_copy", "breast_constant", "mean_des"], 32
    )
    assert not cases.duplicated(["arm", "seed", "fold", "patient_id", "view", "source"]).any()
    assert cases[cases["arm"] == "mean_des"]["seed"].isna().all()


def test_patients_and_strata_that_look_like_numbers_stay_texts(study: Study) -> None:
    cases = read_cases(study.jobs())
    assert cases["patient_id"].iloc[0] == "0000"
    content = collect(study, cases, RESAMPLING)
    assert list(content["predictors"]["baseline"]["strata"]) == ["view", "density"]
    assert "density" not in content["predictors"]["baseline"]["metrics"]


def test_pictures_are_found_from_the_folder_of_the_study(study: Study) -> None:
    cases = read_cases(study.jobs())
    assert cases[cases["arm"] == "seg35"]["picture"].iloc[-1] == "seg35/fold_1_seed_0/pictures/0016.png"
    assert set(cases[cases["arm"] == "le_copy"]["picture"]) == {""}


def test_the_summary_pools_the_folds_and_compares_arms_on_the_same_cases(study: Study) -> None:
    cases = read_cases(study.jobs())
    table = comparison_table(collect(study, cases, RESAMPLING), "baseline")
    content = json.loads((study.folder / "summary.json").read_text())
    baseline = content["predictors"]["baseline"]
    assert (baseline["cases"], baseline["patients"], baseline["lesions"]) == (32, 16, 24)
    pooled = cases[cases["arm"] == "baseline"]["psnr"].mean()
    assert baseline["metrics"]["psnr"]["mean"] == pytest.approx(pooled)
    found = {(row["a"], row["b"], row["metric"]): row for row in content["comparisons"]}
    gain = found["baseline", "seg35", "lesion_mae"]
    assert [gain["difference"], gain["low"], gain["high"]] == pytest.approx([-0.1, -0.1, -0.1])
    assert (gain["effect"], gain["patients"], gain["cases"]) == (-1.0, 16, 24)
    assert gain["p"] <= gain["p_adjusted"] < 0.05
    assert ("breast_constant", "seg35", "psnr") in found
    assert not any(metric in ("lesion_mm", "lesion_cnr_real") for _, _, metric in found)
    assert "-0.1000" in table
    assert next(line for line in table.splitlines() if "lesion_mae" in line).count("*") == 1


def test_the_table_of_folds_has_the_mean_of_each(study: Study) -> None:
    cases = read_cases(study.jobs())
    collect(study, cases, RESAMPLING)
    folds = pd.read_csv(study.folder / "folds.csv").set_index(["arm", "fold"])
    assert len(folds) == 2 * 5
    expected = case_table(1).query("predictor == 'model'")["lesion_mae"].mean()
    assert folds.loc[("baseline", 1), "lesion_mae"] == pytest.approx(expected)
    assert folds.loc[("baseline", 1), "cases"] == 16
    assert folds["lesion_contrast_r"].notna().all()


def test_missing_or_damaged_results_are_named(study: Study) -> None:
    job = study.jobs()[1]
    for content in (None, "", "predictor\nmodel,too,many\n"):
        file = Path(job.folder) / "cases.csv"
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(ValueError, match="fold_0_seed_0: no readable results"):
            read_cases(study.jobs())


def validation(errors: dict[float, float], psnr: dict[float, float] | None = None) -> pd.DataFrame:
    """Cases of three gammas with these mean shifts of lesion MAE and breast PSNR."""
    parts = []
    for gamma, error in errors.items():
        noise = np.random.default_rng(int(gamma)).normal(0, 0.02, 16)
        rows = case_table(0, {"lesion_mae": error, "breast_psnr": (psnr or {}).get(gamma, 0.0)}).query(
            "predictor == 'model'"
        )
        rows = rows.assign(arm=gamma_arm(gamma).name, seed=0, fold=0).drop(columns="predictor")
        parts.append(rows.assign(lesion_mae=rows["lesion_mae"] + noise))
    return pd.concat(parts)


@pytest.mark.parametrize(
    ("errors", "psnr", "chosen"),
    [
        ({0: 0.0, 35: -0.1, 100: -0.2}, {}, 100),
        ({0: 0.0, 35: -0.1, 100: -0.1}, {}, 35),
        ({0: 0.0, 35: 0.001, 100: 0.1}, {}, 0),
        ({0: 0.0, 35: -0.1, 100: -0.2}, {100: -2 * LARGEST_LOSS_DB}, 35),
    ],
    ids=["each step gains", "no gain beyond the noise", "no gain at all", "a gain paid for with breast PSNR"],
)
def test_gamma_is_raised_only_for_a_gain_in_lesions_that_is_sure_and_cheap(
    errors: dict[float, float], psnr: dict[float, float], chosen: float
) -> None:
    assert choose_gamma(validation(errors, psnr), list(errors), RESAMPLING) == chosen


def test_the_curve_has_each_gamma_in_order_with_its_interval() -> None:
    curve = gamma_figures(validation({100: 0.1, 0: 0.0}), [100, 0], RESAMPLING)
    assert [entry["gamma"] for entry in curve["lesion_mae"]] == [0, 100]
    assert all(entry["low"] < entry["mean"] < entry["high"] for entry in curve["psnr"])
    figure = draw_gamma(curve, curve, 100)
    assert len(figure.axes) == 6
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "100"]


def test_arms_are_named_after_gamma_or_an_overlay(tmp_path: Path) -> None:
    assert arm_named("seg35", CONFIGS).overrides == {"gamma": 35.0}
    assert arm_named("baseline", CONFIGS).overlays == (str(CONFIGS / "baseline.yaml"),)
    own = tmp_path / "wide.yaml"
    own.write_text("# Twice as wide.\nnetwork_def#width: 128\n")
    arm = arm_named(str(own), CONFIGS)
    assert (arm.name, arm.description) == ("wide", "Twice as wide.")
    both = arm_named(f"seg35+l1+{own}", CONFIGS)
    assert (both.name, both.overrides) == ("seg35+l1+wide", {"gamma": 35.0})
    assert both.overlays == (str(CONFIGS / "l1.yaml"), str(own))
    with pytest.raises(ValueError, match=r"no arm 'sge35'; use segN for gamma N, .*baseline, .*l1, "):
        arm_named("sge35", CONFIGS)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "4"], "the datalist has 3, 0 to 2"),
        (["--only-folds", "1", "7"], "folds 1, 7"),
        (["--set", "gama=35"], "--set gama"),
        (["--set", "gamma"], "expected NAME=VALUE"),
        (["--set", "fold=1"], "each job has its own"),
        (["--config", "nowhere.json"], "no config nowhere.json"),
        (["--arms", "seg35,seg35"], "an arm is given twice"),
        (["--cpus-per-job", "0"], "--cpus-per-job must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_training(
    more: list[str], message: str, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [] if "--arms" in more else ["--arms", "seg35"]
    line = [*arms, "--dataset_dir", str(tiny_dataset), "--output", str(tmp_path / "cv"), *more]
    assert cross_validate.main(line) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cv").exists()


def test_values_given_to_all_arms_keep_their_type(tiny_dataset: Path, tmp_path: Path) -> None:
    values = ["amp=true", "max_epochs=3", "learning_rate=2e-4", "amp_dtype=float16", "network_def#width=8"]
    made = study_of(options("cv", tiny_dataset, tmp_path, "--set", *values), [gamma_arm(0)], "", ["test"])
    assert made.overrides == {
        "amp": True,
        "max_epochs": 3,
        "learning_rate": 2e-4,
        "amp_dtype": "float16",
        "network_def#width": 8,
    }
    assert [(job.fold, job.seed) for job in made.jobs()] == [(0, 0), (1, 0), (2, 0)]
