from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.data import checked_cases
from scripts import prepare_data
from scripts.prepare import pipeline, workers
from scripts.prepare.conversion import Case, Settings, converted
from scripts.prepare.datalist import patient_folds
from scripts.prepare.duplicates import leave_out_repeats
from scripts.prepare.sources import FileImage
from scripts.prepare.view import LeftOut, Pixels, View
from tests.archives.pairs import Deadly, Made, breast, write, write_views


def options(output: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    pipeline.add_options(parser)
    words = ["--output", str(output), "--size", "32", "--folds", "4", "--name", "test", "--workers", "1", "--quiet"]
    return parser.parse_args([*words, *more])


def imported(views: Sequence[View], output: Path, *more: str, left_out: Sequence[LeftOut] = (), **top: Any) -> int:
    return pipeline.import_views(views, left_out, options(output, *more), **top)


def datalist(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "datalist.json").read_text())
    return content


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def excluded_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "excluded.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def names_of_prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which every view is added when it is prepared."""
    names: list[str] = []

    def noted(view: View, settings: Settings) -> tuple[Case, float]:
        names.append(view.name)
        return converted(view, settings)

    monkeypatch.setattr(workers, "converted", noted)
    return names


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    return write_views(tmp_path / "archive")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_views_become_a_dataset_that_training_takes(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output, description="made for a test") == 0
    content = datalist(output)
    assert list(content) == ["name", "synthetic", "description", "num_folds", "cases"]
    assert content["cases"][0] == {
        "image": "LE/P0_L_CC.png",
        "label": "DES/P0_L_CC.png",
        "mask": "mask/P0_L_CC.png",
        "patient_id": "P0",
        "laterality": "L",
        "view": "CC",
        "fold": content["cases"][0]["fold"],
        "image_window": [3000.0, 2000.0],
        "label_window": [3000.0, 2000.0],
        "info": {"density": "A"},
    }
    assert len(checked_cases(output)) == 16
    assert np.asarray(Image.open(output / "LE/P0_L_CC.png")).shape == (32, 27)
    assert {file.name for file in output.iterdir()} == {
        "LE", "DES", "mask", "datalist.json", "data_card.html", "cases.csv", "excluded.csv", ".prepared",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "32 images in " in printed
    assert "images/s with 1 process, decoding " in printed
    assert "16 pairs of 4 patients, 6 with a lesion mask" in printed
    assert f"data card: {output / 'data_card.html'}" in printed


def test_a_second_run_prepares_nothing_and_changes_no_byte(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    before = content_of(output)
    monkeypatch.setattr(workers, "converted", None)
    assert imported(views, output) == 0
    assert content_of(output) == before
    assert "16 pairs were prepared before" in capsys.readouterr().out


def test_only_what_has_changed_is_prepared_again(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imported(views, output) == 0
    before = content_of(output)
    prepared = names_of_prepared(monkeypatch)
    write(views[3].image.path, breast(99, views[3].laterality)[0])
    (output / "DES" / f"{views[5].name}.png").unlink()
    (output / "LE" / f"{views[7].name}.png").write_bytes(b"cut off")
    (output / ".prepared" / f"{views[9].name}.json").write_text("{")
    changed = [*views[:-1], replace(views[-1], info={"density": "D"})]
    assert imported(changed, output) == 0
    assert prepared == [views[index].name for index in (3, 5, 7, 9, 15)]
    after = content_of(output)
    assert before.keys() == after.keys()
    differing = {name for name in before if before[name] != after[name] and name.endswith("png")}
    assert differing == {f"LE/{views[3].name}.png"}
    assert imported(changed, output, "--size", "40") == 0
    assert len(prepared) == 5 + 16


def test_an_interrupted_run_goes_on(
    views: list[View], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(view: View, settings: Settings) -> tuple[Case, float]:
        if view.name == views[6].name:
            raise KeyboardInterrupt
        return converted(view, settings)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "converted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            imported(views, output)
    assert not (output / "datalist.json").exists()
    (output / "LE" / f".{views[0].name}.4711.png").write_bytes(b"cut off while it was written")
    prepared = names_of_prepared(monkeypatch)
    assert imported(views, output) == 0
    assert prepared == [view.name for view in views[6:]]
    assert imported(views, tmp_path / "at once") == 0
    assert content_of(output) == content_of(tmp_path / "at once")


def test_a_run_that_was_killed_while_writing_goes_on(
    views: list[View], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _mask: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(workers, "write_mask", full)
        with pytest.raises(OSError, match="No space left"):  # not the fault of a case: nothing is left out for it
            imported(views, output)
    assert (output / "LE" / f"{views[0].name}.png").exists()
    assert imported(views, output) == 0
    assert imported(views, tmp_path / "at once") == 0
    assert content_of(output) == content_of(tmp_path / "at once")


def test_an_interrupt_ends_the_command_without_a_traceback(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "converted", interrupt)
    folder = views[0].image.path.parents[1]
    words = ["pairs", "--image-dir", f"{folder}/low", "--label-dir", f"{folder}/subtracted", "--output", str(output)]
    words += ["--pattern", r"(?P<patient>P\d)_(?P<laterality>.)_(?P<view>.+)", "--quiet", "--folds", "3"]
    assert prepare_data.main([*words, "--workers", "1"]) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_files_of_cases_that_are_gone_are_removed_and_those_of_others_are_not(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    (output / "LE" / "mine.png").write_text("mine")
    (output / "notes.txt").write_text("mine")
    fewer = [replace(views[3], mask=None), *views[4:]]
    assert imported(fewer, output, "--folds", "3") == 0
    left = content_of(output)
    assert not any("P0_L" in name or "P0_R_CC" in name for name in left)
    assert f"mask/{views[3].name}.png" not in left
    assert f"LE/{views[3].name}.png" in left
    assert left["LE/mine.png"] == left["notes.txt"] == b"mine"
    assert "3 cases of an earlier run were removed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["LE/P0_L_CC.png", "label_mask/P1_L_CC.png", "datalist.json", "cases.csv"])
def test_files_of_others_are_never_overwritten(name: str, views: list[View], output: Path) -> None:
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("mine")
    with pytest.raises(ValueError, match="did not write") as caught:
        imported(views, output)
    assert name in str(caught.value)
    assert content_of(output) == {name: b"mine"}


def test_sources_in_the_output_folder_are_never_overwritten(views: list[View], output: Path) -> None:
    moved = []
    for view in views:
        for part, source in (("LE", view.image), ("DES", view.label)):
            (output / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(source.path, output / part)
        image, label = (FileImage(output / part / f"{view.name}.png") for part in ("LE", "DES"))
        moved.append(replace(view, image=image, label=label, mask=None))
    in_place = options(output)
    in_place.size = None
    assert pipeline.import_views(moved, [], in_place) == 0
    before = content_of(output)
    with pytest.raises(ValueError, match=r"LE/P0_L_CC\.png"):
        imported(moved, output)
    assert content_of(output) == before


def test_a_broken_file_is_left_out_and_named_and_the_rest_goes_on(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views[2].label.path.write_bytes(b"broken")
    views[4].image.path.unlink()
    assert imported(views, output) == 3
    assert len(datalist(output)["cases"]) == 14
    printed = capsys.readouterr().err
    for view, text in ((views[2], "cannot be decoded"), (views[4], "no such file")):
        assert any(view.name in line and text in line for line in printed.splitlines())
    assert [row["name"] for row in excluded_rows(output)] == sorted([views[2].name, views[4].name])
    write(views[4].image.path, breast(99)[0])  # it is there at last
    assert imported(views, output) == 3
    assert [row["name"] for row in excluded_rows(output)] == [views[2].name]


def test_nothing_usable_is_exit_code_1_and_writes_nothing(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for view in views:
        view.label.path.write_bytes(b"broken")
    assert imported(views, output) == 1
    assert imported([], output, left_out=[LeftOut("a", "a.png", "no partner", "Add it")]) == 1
    printed = capsys.readouterr().err
    assert "left out, 16" in printed
    assert "a.png: no partner" in printed
    assert "No datalist.json was written" in printed
    assert content_of(output) == {}


def test_what_no_pair_needs_is_listed_and_excludes_nothing(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unneeded = [LeftOut("-", f"{n}.dcm", "a high-energy image", needed=False) for n in range(3)]
    assert imported(views, output, left_out=unneeded) == 0
    assert "not needed, 3: a high-energy image" in capsys.readouterr().out
    assert [row["file"] for row in excluded_rows(output)] == ["0.dcm", "1.dcm", "2.dcm"]


def test_long_lists_are_cut_on_the_screen_and_whole_in_the_csv(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = [LeftOut(f"Q{n}", f"{n}.png", f"reason {n}", "Do this") for n in range(30)]
    assert imported(views, output, left_out=left_out) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "Q" in line or "more" in line]
    assert len(lines) == 21
    assert lines[-1].strip() == "and 10 more, see excluded.csv"
    assert len(excluded_rows(output)) == 30


def test_the_data_check_leaves_out_what_it_refuses(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = replace(views[1], image=replace(views[1].image, window=(60000.0, 10.0)))  # type: ignore[type-var]
    assert imported([views[0], beside, *views[2:]], output) == 3
    assert "leaves nothing of the pixel values" in capsys.readouterr().err
    assert beside.name not in {Path(case["image"]).stem for case in datalist(output)["cases"]}
    assert not (output / "LE" / f"{beside.name}.png").exists()


def test_names_that_are_taken_or_no_file_names_are_left_out(views: list[View], output: Path) -> None:
    odd = [replace(views[0], name=name) for name in ("", "../P0", ".P0", views[1].name)]
    assert imported([*views, *odd], output) == 3
    reasons = [row["reason"] for row in excluded_rows(output)]
    assert sum("cannot be that of a file" in reason for reason in reasons) == 3
    assert sum("a second view of this name" in reason for reason in reasons) == 1
    assert len(datalist(output)["cases"]) == 16


def test_the_same_pixels_twice_in_a_patient_are_taken_once(views: list[View], output: Path) -> None:
    shutil.copy(views[0].image.path, views[1].image.path)
    assert imported(views, output) == 3
    (row,) = excluded_rows(output)
    assert (row["name"], row["reason"]) == (views[1].name, f"holds the same pixels as {views[0].name}")
    assert f"LE/{views[1].name}.png" not in content_of(output)


@pytest.mark.parametrize("seed", range(6))
def test_patients_who_share_an_image_are_one_group_and_the_copy_is_left_out(
    seed: int, views: list[View], output: Path
) -> None:
    shutil.copy(views[0].label.path, views[4].label.path)  # P0 and P1
    assert imported(views, output, "--folds", "3", "--seed", str(seed)) == 3
    (row,) = excluded_rows(output)
    assert row["name"] == views[4].name
    assert "patients P0 and P1 share an image" in row["reason"]
    assert "patient ids is wrong" in row["remedy"]
    folds = {case["patient_id"]: case["fold"] for case in datalist(output)["cases"]}
    assert folds["P0"] == folds["P1"]


def test_a_copy_also_joins_the_patients_of_what_is_left_out() -> None:
    digests = [("a", "b"), ("a", "c"), ("d", "c"), ("e", "f")]
    facts = [
        {"name": f"n{i}", "patient_id": f"P{i}", "image_digest": one, "label_digest": two}
        for i, (one, two) in enumerate(digests)
    ]
    kept, left_out, groups = leave_out_repeats(facts, ["f"] * 4)
    assert kept == [0, 2, 3]
    assert [one.name for one in left_out] == ["n1"]
    assert len({groups[f"P{i}"] for i in range(3)}) == 1
    assert groups["P3"] != groups["P0"]


def test_published_folds_are_kept_and_leaks_refused_unless_allowed(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = [replace(view, fold=int(view.patient_id[1]) % 3) for view in views]
    assert imported(published, output) == 0
    content = datalist(output)
    assert content["num_folds"] == 3
    assert [case["fold"] for case in content["cases"]] == [view.fold for view in published]
    leaking = [replace(published[0], fold=2), *published[1:]]
    assert imported(leaking, output) == 1
    assert "patient P0 is in folds 0, 2" in capsys.readouterr().err
    assert datalist(output) == content
    assert imported(leaking, output, allow_leak=True) == 0
    assert datalist(output)["allow_leak"] is True


def test_no_folds_are_an_external_test_set(views: list[View], output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(views[:2], output, "--folds", "0") == 0
    content = datalist(output)
    assert "num_folds" not in content
    assert all("fold" not in case for case in content["cases"])
    assert "an external test set" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "folds", "message"),
    [
        (16, "5", "--folds is 5, expected 3 to 4 (the number of patients), or 0"),
        (16, "2", "--folds is 2, expected 3 to 4"),
        (8, "10", "there are 2 patients: at least 3 are needed"),
    ],
)
def test_folds_that_cannot_be_filled_are_refused_before_the_work(
    count: int, folds: str, message: str, views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "converted", None)
    with pytest.raises(ValueError, match="--folds") as caught:
        imported(views[:count], output, "--folds", folds)
    assert message in str(caught.value)


def test_too_few_patients_after_exclusions_are_explained_with_the_exclusions(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for view in views[:4]:
        view.image.path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="expected 3 to 3"):
        imported(views, output)
    assert views[0].name in capsys.readouterr().err
    assert not (output / "datalist.json").exists()


def random_cases(seed: int) -> tuple[list[str], list[tuple[str, str]]]:
    rng = np.random.default_rng(seed)
    patients, strata = [], []
    for patient in range(int(rng.integers(12, 60))):
        sick, density = rng.random() < 0.4, "ABCD"[int(rng.integers(4))]
        for _ in range(int(rng.integers(1, 9))):
            patients.append(f"P{patient}")
            strata.append(("lesion" if sick and rng.random() < 0.7 else "none", density))
    return patients, strata


@pytest.mark.parametrize("seed", range(20))
def test_folds_split_no_patient_fill_every_fold_and_spread_the_lesions(seed: int) -> None:
    patients, strata = random_cases(seed)
    num_folds = (3, 5, 10)[seed % 3]
    folds = patient_folds(patients, strata, num_folds, seed)
    assert set(folds) == set(range(num_folds))
    assert len({(patient, fold) for patient, fold in zip(patients, folds, strict=True)}) == len(set(patients))
    assert folds == patient_folds(patients, strata, num_folds, seed)
    assert any(folds != patient_folds(patients, strata, num_folds, other) for other in range(seed + 1, seed + 4))
    sizes = Counter(folds)
    lesions = Counter(fold for fold, (kind, _) in zip(folds, strata, strict=True) if kind == "lesion")
    for counts in (sizes, lesions):  # a patient has up to 8 views: no fold is further from an equal share than that
        assert all(abs(counts[fold] - counts.total() / num_folds) <= 8 for fold in range(num_folds))


@pytest.mark.parametrize("patients", [3, 4, 7])
def test_every_fold_is_filled_even_with_as_many_folds_as_patients(patients: int) -> None:
    names = [f"P{n}" for n in range(patients) for _ in range(1 + 3 * (n == 0))]
    strata = [(name, "A") for name in names]  # too rare to be spread
    for seed in range(10):
        assert set(patient_folds(names, strata, patients, seed)) == set(range(patients))


@pytest.mark.parametrize(
    "words", [["--size", "31"], ["--size", "big"], ["--min-overlap", "2"], ["--workers", "0"], ["--min-overlap", "x"]]
)
def test_wrong_options_are_refused(words: list[str], output: Path) -> None:
    with pytest.raises(SystemExit):
        options(output, *words)


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_and_survive_a_case_that_kills_one(
    views: list[View], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, tmp_path / "inline") == 0
    assert imported(views, output, "--workers", "2") == 0
    assert content_of(output) == content_of(tmp_path / "inline")
    assert "with 2 processes" in capsys.readouterr().out
    monkeypatch.setenv("SPARED_PROCESS", str(os.getpid()))
    deadly = replace(views[1], name="deadly", image=Deadly(views[1].image.path))
    assert imported([views[0], deadly, *views[2:]], output, "--workers", "2") == 3
    (row,) = excluded_rows(output)
    assert row["name"] == "deadly"
    assert "died" in row["reason"]
    assert len(datalist(output)["cases"]) == 15


def test_memory_images_need_no_file(output: Path, tmp_path: Path) -> None:
    views = []
    for number in range(3):
        image, label = breast(number)
        le, des = (Made(tmp_path / f"{number}.made", Pixels(one)) for one in (image, label))
        views.append(View(f"P{number}", f"P{number}", "L", "CC", le, des))
    assert imported(views, output, "--folds", "3") == 0
