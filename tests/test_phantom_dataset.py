"""Writing phantom datasets: files, folds, interruption, the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle.phantom import dataset, make_phantom
from bundle.phantom.patient import draw_patient
from scripts.make_phantom import main

ROOT = Path(__file__).resolve().parents[1]


def quick(folder: Path, **changes: Any) -> Path:
    return make_phantom(folder, **({"patients": 4, "size": 32, "workers": 1, "progress": False} | changes))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    quick(tmp_path / "one")
    quick(tmp_path / "three", workers=3)
    quick(tmp_path / "other", seed=1)
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert content(tmp_path / "one") != content(tmp_path / "other")


def test_datalist_describes_every_file(tmp_path: Path) -> None:
    datalist = json.loads(quick(tmp_path, patients=6).read_text())
    assert datalist["synthetic"] is True
    assert datalist["num_folds"] == 6
    named = {case[key] for case in datalist["cases"] for key in ("image", "label", "mask") if key in case}
    assert named == {name for name in content(tmp_path) if name.endswith(".png")}
    for case in datalist["cases"]:
        image, label = (np.asarray(Image.open(tmp_path / case[key])) for key in ("image", "label"))
        assert image.shape == label.shape == (32, 32)
        assert image.dtype == label.dtype == np.uint16
        assert case["label_window"] == [2105, 380]
        assert "image_window" not in case  # the LE is stored as displayed: the same min-max serves it everywhere
        assert image.max() <= 4095
        assert case["laterality"] in "LR"
        if "mask" in case:
            assert set(np.unique(np.asarray(Image.open(tmp_path / case["mask"])))) == {0, 255}
            assert case["info"]["lesion"] != "none"


def test_masks_can_be_left_out(tmp_path: Path) -> None:
    datalist = json.loads(quick(tmp_path, masks=False).read_text())
    assert not any("mask" in case for case in datalist["cases"])
    assert not list((tmp_path / "mask").iterdir())


def test_sites_share_no_picture(tmp_path: Path) -> None:
    quick(tmp_path / "W", site="W")
    quick(tmp_path / "Rh", site="Rh")
    first, second = (
        {data for name, data in content(tmp_path / site).items() if name.startswith("LE/")} for site in ("W", "Rh")
    )
    assert not first & second


def test_folds_hold_whole_patients_and_are_balanced() -> None:
    people = [draw_patient(0, 0, number) for number in range(43)]
    folds = dataset.assign_folds(people, 10, seed=0)
    patients = Counter(folds)
    assert len(patients) == 10
    assert max(patients.values()) - min(patients.values()) <= 1
    views: Counter[int] = Counter()
    for person, fold in zip(people, folds, strict=True):
        views[fold] += len(person.views)
    assert max(views.values()) - min(views.values()) <= 5
    assert folds == dataset.assign_folds(people, 10, seed=0)
    assert folds != dataset.assign_folds(people, 10, seed=1)


def test_no_patient_is_in_two_folds(tmp_path: Path) -> None:
    cases = json.loads(quick(tmp_path, patients=7, num_folds=3).read_text())["cases"]
    assert all(
        len({case["fold"] for case in cases if case["patient_id"] == name}) == 1
        for name in {case["patient_id"] for case in cases}
    )
    assert {case["fold"] for case in cases} == {0, 1, 2}


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_run_leaves_no_datalist_and_the_next_one_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    quick(tmp_path / "whole")
    quick(tmp_path / "cut", seed=9)  # an older dataset must not seem to be the new one
    written = []
    write_png = dataset.write_png

    def failing(path: Path, pixels: NDArray[np.generic]) -> None:
        written.append(path)
        if len(written) == 8:
            path.with_name(f".{path.stem}.123.png").write_bytes(b"half")  # what a process that is killed leaves
            raise KeyboardInterrupt
        write_png(path, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_png", failing)
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path / "cut", workers=workers)
    assert not (tmp_path / "cut" / "datalist.json").exists()
    quick(tmp_path / "cut")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_smaller_dataset_replaces_a_larger_one_completely(tmp_path: Path) -> None:
    quick(tmp_path / "small", patients=3)
    quick(tmp_path / "both", patients=6)
    quick(tmp_path / "both", patients=3)
    assert content(tmp_path / "both") == content(tmp_path / "small")


@pytest.mark.parametrize("name", ["datalist.json", "LE/P0001_L_CC.png"])
def test_folder_with_other_data_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match="was not made by the phantom"):
        quick(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "changes", [{"size": 31}, {"patients": 2}, {"site": "GE"}, {"seed": -1}, {"num_folds": 2}, {"workers": 0}]
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected (at least|one of)"):
        quick(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_command_writes_a_dataset_and_says_that_it_is_synthetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path / "d"), "--patients", "3", "--size", "32", "--workers", "1", "--quiet"]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    assert (tmp_path / "d" / "datalist.json").exists()


def test_command_names_a_bad_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path), "--size", "8"]) == 2
    assert "size=8 is too small" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path), "--site", "GE"])


ONLY_LIGHT_IMPORTS = """
import runpy, sys
sys.argv = ["make_phantom", "--help"]
try:
    runpy.run_path("scripts/make_phantom.py", run_name="__main__")
finally:
    assert not {"torch", "monai"} & set(sys.modules)
"""


def test_command_runs_as_a_file_without_importing_torch() -> None:
    command = [sys.executable, "-c", ONLY_LIGHT_IMPORTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--patients" in done.stdout
