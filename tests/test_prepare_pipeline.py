from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.data import checked_cases
from scripts.prepare import pipeline
from scripts.prepare.datalist import check, path_in
from scripts.prepare.view import LeftOut, Pixels, View
from tests.archives.dataset import content_of, datalist, excluded_rows, imported, options
from tests.archives.pairs import Deadly, Made, breast, write


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


def test_nothing_usable_is_exit_code_1_and_writes_only_what_was_left_out(
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
    assert f"what was left out: {output / 'excluded.csv'}" in printed
    assert [row["name"] for row in excluded_rows(output)] == ["a"]
    assert {name for name in content_of(output) if not name.startswith(".prepared/")} == {"excluded.csv"}


def test_a_datalist_that_an_earlier_run_left_is_named_as_such(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    assert imported([], output, left_out=[LeftOut("a", "a.png", "no partner", "Add it")]) == 1
    assert f"{output / 'datalist.json'} is still that of an earlier run" in capsys.readouterr().err
    for view in views:
        view.label.path.write_bytes(b"broken")
    assert imported(views, output) == 1
    assert "earlier run" not in capsys.readouterr().err
    assert {file.name for file in output.iterdir()} == {"LE", "DES", "mask", "excluded.csv", ".prepared"} - {
        part for part in ("LE", "DES", "mask") if not (output / part).exists()
    }


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
    (row,) = excluded_rows(output)
    assert row["file"] == str(beside.image.path)


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_problem_that_the_data_check_finds_is_said_of_the_file_that_has_it(
    key: str, views: list[View], output: Path
) -> None:
    source = getattr(views[1], key)
    changes: dict[str, Any] = {key: replace(source, window=(60000.0, 10.0))}
    beside = replace(views[1], **changes)
    assert imported([views[0], beside, *views[2:]], output) == 3
    (row,) = excluded_rows(output)
    assert row["file"] == str(source.path)


def test_names_that_are_not_utf_8_are_left_out_and_the_rest_goes_on(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = replace(views[1], name="P0_L_\udce9")
    left_out = [LeftOut("\udce8", "\udce8.png", "no partner", "Add it")]
    assert imported([views[0], odd, *views[2:]], output, left_out=left_out) == 3
    assert len(datalist(output)["cases"]) == 15
    rows = {row["name"]: row["reason"] for row in excluded_rows(output)}
    assert rows == {r"P0_L_\udce9": r"its name is not UTF-8: 'P0_L_\udce9'", r"\udce8": "no partner"}
    assert r"\udce9" in capsys.readouterr().err
    assert r"\udce9" in (output / "data_card.html").read_text()


def test_images_that_stay_in_a_folder_whose_name_is_not_utf_8_are_left_out(views: list[View], tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    image = replace(views[1].image, path=folder / "a.png")  # type: ignore[type-var]
    write(image.path, breast(99)[0])
    moved = [views[0], replace(views[1], image=image), *views[2:]]
    in_place = options(tmp_path / "data")
    in_place.size = None
    assert pipeline.import_views(moved, [], in_place) == 3
    (row,) = excluded_rows(tmp_path / "data")
    assert "its path is not UTF-8" in row["reason"]
    assert imported(moved, tmp_path / "written") == 0


def test_texts_in_the_csv_files_are_no_formulas_to_a_spreadsheet(views: list[View], output: Path) -> None:
    sick = replace(views[0], patient_id="=1+1", info={"label": "-5", "density": "@SUM(A1)"})
    left_out = [LeftOut("+a", "=cmd()", "no partner", "Add it"), LeftOut("-", "b.png", "no partner", "Add it")]
    assert imported([sick, *views[1:]], output, left_out=left_out) == 3
    rows = {row["file"]: row["name"] for row in excluded_rows(output)}
    assert rows == {"'=cmd()": "'+a", "b.png": "-"}
    with (output / "cases.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["patient_id"], first["label"], first["density"]) == ("'=1+1", "'-5", "'@SUM(A1)")
    assert datalist(output)["cases"][0]["patient_id"] == "=1+1"


def test_links_are_named_themselves_and_not_what_they_lead_to(tmp_path: Path) -> None:
    blob = tmp_path / "cache" / "4f" / "a1"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x")
    (tmp_path / "data" / "LE").mkdir(parents=True)
    link = tmp_path / "data" / "LE" / "a.png"
    link.symlink_to(blob)
    (tmp_path / "data" / "DES").symlink_to(blob.parent)
    assert path_in(tmp_path / "data", link) == "LE/a.png"
    assert path_in(tmp_path / "data", tmp_path / "data" / "DES" / "a1") == "DES/a1"
    assert path_in(tmp_path / "data", tmp_path / "data" / "LE" / ".." / "b.png") == "b.png"
    assert path_in(tmp_path / "other", link) == link.as_posix()
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    assert path_in(tmp_path / "alias", link) == "LE/a.png"


def test_the_data_check_names_the_datalist_and_not_its_draft(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output.mkdir()
    monkeypatch.setattr("scripts.prepare.datalist.datalist_text", lambda _: "{")
    (problem,) = check(output, {}, progress=False, known={})
    assert problem.file == "datalist.json"


def test_names_that_are_taken_or_no_file_names_are_left_out(views: list[View], output: Path) -> None:
    odd = [replace(views[0], name=name) for name in ("", "../P0", ".P0", views[1].name)]
    assert imported([*views, *odd], output) == 3
    reasons = [row["reason"] for row in excluded_rows(output)]
    assert sum("cannot be that of a file" in reason for reason in reasons) == 3
    assert sum("a second view of this name" in reason for reason in reasons) == 1
    assert len(datalist(output)["cases"]) == 16


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
