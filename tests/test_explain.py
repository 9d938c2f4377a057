"""scripts/explain.py from a trained run to the files and the page, on a tiny study."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bundle.phantom import make_phantom
from scripts import explain, report
from scripts.evidence.arms import gamma_arm
from scripts.evidence.jobs import run_job
from scripts.evidence.study import Study
from scripts.explaining.lesions import REGIONS
from tests.conftest import ROOT, TINY
from tests.report_study import write_job, write_json, write_study
from tests.test_report import HOSTILE, Elements

FAST = ("--steps", "4", "--patch-mm", "40", "--tta", "3", "--sanity-lesions", "1", "--resamples", "100", "--quiet")


@pytest.fixture(scope="module")
def arm(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arm of one fold with two seeds: one is trained, the other is that with its weights moved a little."""
    folder = tmp_path_factory.mktemp("study")
    overrides = {**TINY, "max_epochs": 1, "warmup_epochs": 0, "device": "cpu", "panel_interval": 100}
    configs = (str(ROOT / "configs" / "train.json"),)
    (job,) = Study(folder, tiny_dataset, (gamma_arm(35),), (0,), (0,), configs, overrides).jobs()
    assert run_job(job) is None
    other = shutil.copytree(job.folder, folder / "seg35" / "fold_0_seed_1") / "model.pt"
    torch.save({name: 1.1 * weight for name, weight in torch.load(other, weights_only=True).items()}, other)
    return folder / "seg35"


def explained(run: Path, output: Path, *options: str) -> dict[str, Any]:
    assert explain.main([str(run), "--output", str(output), "--device", "cpu", *FAST, *options]) == 0
    content: dict[str, Any] = json.loads((output / "explanations.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def results(arm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes about the arm."""
    output = tmp_path_factory.mktemp("explained")
    explained(arm, output)
    return output


@pytest.fixture(scope="module")
def content(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "explanations.json").read_text(encoding="utf-8"))
    return found


def test_every_held_out_case_is_counted_and_lesions_alone_are_explained(content: dict[str, Any], results: Path) -> None:
    expected = {"cases": 6, "patients": 2, "lesions": 3, "explained": 3}
    assert {name: content["counts"][name] for name in expected} == expected
    assert content["counts"]["lost"] + content["counts"]["kept"] <= 3
    assert content["runs"] == ["fold_0_seed_0"]
    assert "SYNTHETIC" in content["caveats"][0]
    cases, lesions = (pd.read_csv(results / f"{name}.csv", dtype={"source": str}) for name in ("cases", "lesions"))
    assert set(lesions["source"]) == set(cases[cases["lesions"] == 1]["source"]) == {"01", "03", "05"}
    assert cases[["std_tta", "std_ensemble", "breast_mae"]].gt(0).all().all()
    assert len(content["panels_without_lesion"]) == 2


def test_a_lesion_has_its_shares_its_panel_and_its_maps_in_output_units(content: dict[str, Any], results: Path) -> None:
    for one in content["lesions"]:
        for method in ("ig", "occlusion"):
            assert sum(one[f"{method}_share_{region}"] for region in REGIONS) == pytest.approx(1)
        with Image.open(results / one["panel"]) as picture:
            assert picture.width > 500
        maps = np.load(results / one["maps"])
        assert set(maps) == {"ig", "occlusion", "std_tta", "std_ensemble", "lesion", "pred"}
        assert {maps[name].shape for name in maps} == {(32, 32)}
        assert maps["ig"].sum() == pytest.approx(one["explained_difference"] + one["ig_delta"], abs=1e-5)
        rows, columns = np.nonzero(maps["lesion"])
        assert rows.min() == 8  # drawn in rows 10 to 15 of 40, shown with 32
        assert len(set(rows)) == len(set(columns)) == 5
    contrast = [one["lesion_contrast_real"] for one in content["lesions"]]
    assert contrast == sorted(contrast)


def test_every_figure_is_a_number_or_says_why_it_is_none(content: dict[str, Any]) -> None:
    assert set(content["uncertainty"]) == {"tta", "ensemble"}
    for one in content["uncertainty"].values():
        assert one["calibration"]["raw"]["ence"]["value"] > 0
        assert one["calibration"]["patients"] == 2
        for figure in (one["lesion_error_spearman"], one["lost_auc"], one["false_enhancement"]["difference"]):
            assert (figure["value"] is None) == bool(figure["reason"])
        assert "3 lesions of 2 patients" in one["lesion_error_spearman"]["reason"]
    assert content["sanity"]["ig"]["lesions"] == 1
    assert [one["stage"] for one in content["sanity"]["occlusion"]["stages"]] == ["full"]
    assert (content["sanity"]["ig"]["passed"] is None) == (content["sanity"]["ig"]["spearman"] is None)


def test_the_same_command_gives_the_same_results(arm: Path, content: dict[str, Any], tmp_path: Path) -> None:
    again = explained(arm, tmp_path, "--lesions", "0")
    assert again["uncertainty"] == content["uncertainty"]
    assert again["counts"] == content["counts"] | {"explained": 0}


def test_named_cases_and_fewer_lesions_are_explained(arm: Path, tmp_path: Path) -> None:
    run = arm / "fold_0_seed_0"
    found = explained(run, tmp_path, "--cases", "03", "--baseline", "median", "--sanity-lesions", "0")
    assert [one["source"] for one in found["lesions"]] == ["03"]
    assert found["counts"]["lesions"] == 3
    assert found["sanity"]["ig"]["reason"] == "no map to compare"
    assert list(found["uncertainty"]) == ["tta"]


def test_further_weights_make_an_ensemble_and_uncertainty_needs_no_captum(
    arm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    run, weights = arm / "fold_0_seed_0", arm / "fold_0_seed_1" / "model.pt"
    found = explained(run, tmp_path, "--lesions", "0", "--tta", "0", "--ensemble", str(weights))
    assert list(found["uncertainty"]) == ["ensemble"]
    assert found["lesions"] == []
    assert explain.main([str(run), "--output", str(tmp_path), "--quiet"]) == 2
    assert "pip install -c constraints.txt '.[explain]'" in capsys.readouterr().err


def test_an_external_set_without_masks_has_uncertainty_and_no_attribution(arm: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "data", patients=3, size=40, masks=False, num_folds=3, workers=1, progress=False)
    found = explained(arm, tmp_path / "out", "--external_dir", str(tmp_path / "data"))
    assert found["counts"]["cases"] >= 3
    assert found["counts"]["lesions"] == found["counts"]["explained"] == 0
    assert found["uncertainty"]["ensemble"]["calibration"]["raw"]["ence"]["value"] > 0
    assert "0 lost and 0 kept" in found["uncertainty"]["tta"]["lost_auc"]["reason"]
    page = tmp_path / "report.html"
    write_job(tmp_path / "run")
    shutil.copytree(tmp_path / "out", tmp_path / "run" / "explanations")
    assert report.main([str(tmp_path / "run"), "-o", str(page)]) == 0
    assert "not checked (no map to compare)" in page.read_text(encoding="utf-8")


def test_the_folds_of_an_arm_are_taken_together_and_are_no_ensemble(
    arm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in (0, 1):
        run = shutil.copytree(arm / "fold_0_seed_0", tmp_path / "arm" / f"fold_{fold}_seed_0")
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        for part in ("config", "settings"):
            record[part]["fold"] = fold
        write_json(run / "run.json", record)
    found = explained(tmp_path / "arm", tmp_path / "out", "--tta", "0", "--lesions", "2", "--sanity-lesions", "0")
    assert found["runs"] == ["fold_0_seed_0", "fold_1_seed_0"]
    assert (found["counts"]["cases"], found["counts"]["patients"], found["counts"]["explained"]) == (12, 4, 2)
    assert found["uncertainty"] == {}
    options = ["--ensemble", str(tmp_path / "arm" / "fold_1_seed_0"), "--output", str(tmp_path / "other")]
    assert explain.main([str(tmp_path / "arm"), *options]) == 2
    assert "leave --ensemble" in capsys.readouterr().err
    assert explain.main([str(tmp_path / "arm" / "fold_0_seed_0"), *options]) == 2
    assert "cannot be in the ensemble of these cases" in capsys.readouterr().err


def test_images_of_their_own_size_are_explained(arm: Path, tmp_path: Path) -> None:
    run = shutil.copytree(arm / "fold_0_seed_0", tmp_path / "run")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for part in ("config", "settings"):
        record[part]["image_size"] = "native"
    write_json(run / "run.json", record)
    found = explained(run, tmp_path / "out", "--lesions", "1")
    assert np.load(tmp_path / "out" / found["lesions"][0]["maps"])["ig"].shape == (40, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cases", "99"], "no lesion in a held-out case '99'"),
        (["--patch-mm", "0"], "expected more than 0"),
        (["--dataset_dir", "nowhere"], "nowhere"),
        (["--config", "nowhere.json"], "no config nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arm: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        try:
            status = explain.main([str(arm), "--output", str(tmp_path / "out"), "--lesions", "1", *FAST, *options])
        except SystemExit as stopped:  # the check of the data ends the program
            status = int(stopped.code or 0)
    assert status in (1, 2)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "explanations.json").exists()


@pytest.fixture
def run(results: Path, tmp_path: Path) -> Path:
    """An evaluated run that is explained."""
    write_job(tmp_path / "run")
    shutil.copytree(results, tmp_path / "run" / "explanations")
    return tmp_path / "run"


def page_of(run: Path) -> str:
    assert report.main([str(run), "-o", str(run / "r.html"), "--cases", "2"]) == 0
    return (run / "r.html").read_text(encoding="utf-8")


def test_the_report_of_a_study_shows_what_is_explained_of_its_arms(results: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", arms=("seg35", "l1"), folds=1)
    for name in ("seg35", "l1"):
        shutil.copytree(results, study / name / "explanations", ignore=shutil.ignore_patterns("panels", "maps"))
    page = page_of(study)
    assert page.count("Mean share of the absolute attribution") == 2
    assert "attributions and standard deviations of" not in page


def test_the_report_shows_explanations_and_nothing_of_them_without(run: Path) -> None:
    page = page_of(run)
    elements = Elements(page)
    for words in ("Explanation and uncertainty", "Mean share of the absolute attribution", "ENCE, recalibrated",
                  "check with random weights", "The explained lesions", "Reliability: root mean square"):  # fmt: skip
        assert words in page
    assert page.count("attributions and standard deviations of") == 3
    assert all(address.startswith(("data:image/", "#")) for address in elements.addresses)
    assert elements.without_text == []
    assert "#s1-explanations" in elements.addresses
    (run / "explanations").rename(run / "elsewhere")
    assert "Explanation and uncertainty" not in page_of(run)


def test_what_an_explanation_says_stays_text_and_pictures_from_elsewhere_are_not_shown(run: Path) -> None:
    file = run / "explanations" / "explanations.json"
    content = json.loads(file.read_text(encoding="utf-8")) | {"title": HOSTILE}
    before = Elements(page_of(run)).tags
    content["lesions"][0]["patient_id"] = HOSTILE
    content["lesions"][0]["panel"] = "../pictures/0000.png"
    content["uncertainty"]["tta"]["lost_auc"]["reason"] = HOSTILE
    write_json(file, content)
    after = Elements(page_of(run))
    assert after.tags.count("script") == before.count("script")
    assert after.tags.count("img") == before.count("img") - 1
    assert after.handlers == []


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 2}', '{"format": 1, "counts": {}}'])
def test_a_damaged_explanation_is_named(run: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "explanations" / "explanations.json"
    file.write_text(damage, encoding="utf-8")
    assert report.main([str(run), "-o", str(run / "r.html")]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert "scripts/explain.py again" in error
    assert error.count("\n") == 1


def test_a_damaged_panel_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panel = run / "explanations" / "panels" / "lesion_001.png"
    panel.write_bytes(panel.read_bytes()[:50])
    assert report.main([str(run), "-o", str(run / "r.html")]) == 2
    assert str(panel) in capsys.readouterr().err


def test_a_failed_check_is_said_in_the_report(run: Path) -> None:
    file = run / "explanations" / "explanations.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["sanity"]["ig"]["passed"] = False
    content["lesions"][0]["lesion_mm"] = math.pi
    write_json(file, content)
    page = page_of(run)
    assert "FAILED: the maps do not depend on what was learnt" in page
    assert "<td>3.1</td>" in page
