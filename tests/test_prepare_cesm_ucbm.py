"""CESM@UCBM's lists and NRRD files become a dataset without patients in two folds."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.data import checked_cases
from scripts import prepare_data
from scripts.prepare.ucbm_lists import read_lists
from tests.archives.cesm_ucbm import Archive, write_archive, write_nrrd

Case = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("ucbm"))


@pytest.fixture
def archive(original: Archive, tmp_path: Path) -> Archive:
    """An archive of its own for every test, without lists."""
    shutil.copytree(original.folder, tmp_path / "archive")
    return Archive(tmp_path / "archive", dict(original.pairs), {k: dict(v) for k, v in original.rows.items()})


def command(archive: Archive, output: Path, *more: str, lists: Path | None = None) -> int:
    words = ["cesm-ucbm", str(lists or archive.lists), "--images", str(archive.folder), "--output", str(output)]
    return prepare_data.main([*words, "--size", "native", "--workers", "1", "--quiet", *more])


def content(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "datalist.json").read_text())
    return found


def by_name(output: Path) -> dict[str, Case]:
    return {Path(case["image"]).stem: case for case in content(output)["cases"]}


def pixels(output: Path, path: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(output / path))


def write_folds(archive: Archive) -> None:
    """Three folds without leaks: fold k is tested on patient k, validated on the next, trained on the other."""
    for fold in range(3):
        for part, patient in (("test", fold), ("val", (fold + 1) % 3), ("train", (fold + 2) % 3)):
            archive.write_list(f"fold{fold}_{part}.txt", archive.of(patient))


# ------------------------------------------------------------------------------------------------ what comes back
def test_pairs_masks_sides_windows_and_pixels_come_back_exactly(archive: Archive, tmp_path: Path) -> None:
    write_folds(archive)
    output = tmp_path / "out"
    masks = str(archive.folder / "masks")
    assert command(archive, output, "--folds", "3", "--mask-dir", masks, "--label-mask-dir", masks) == 0
    cases = by_name(output)
    assert list(cases) == list(archive.rows)
    for name, pair in archive.pairs.items():
        case, row = cases[name], archive.rows[name]
        assert (case["patient_id"], case["laterality"], case["view"]) == (
            f"P{pair.patient + 1}",
            pair.laterality,
            pair.view,
        )
        assert case["image_window"] == [float(row["wc_x"]), float(row["ww_x"])]
        assert case["label_window"] == [float(row["wc_y"]), float(row["ww_y"])]
        assert case["info"]["id"] == name
        np.testing.assert_array_equal(pixels(output, case["image"]), pair.image)
        np.testing.assert_array_equal(pixels(output, case["label"]), pair.label)
        assert ("mask" in case) == ("label_mask" in case) == pair.mask.any()
        for key in ("mask", "label_mask"):
            if key in case:
                np.testing.assert_array_equal(pixels(output, case[key]) > 0, pair.mask)
    assert "allow_leak" not in content(output)


def test_new_folds_are_drawn_by_patient(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(archive.rows)
    for part, chosen in (("train", names[::3]), ("val", names[1::3]), ("test", names[2::3])):
        archive.write_list(f"fold0_{part}.txt", [archive.rows[name] for name in chosen])
    assert command(archive, tmp_path / "out", "--folds", "3") == 0
    folds = defaultdict(set)
    for case in content(tmp_path / "out")["cases"]:
        folds[case["patient_id"]].add(case["fold"])
    assert [len(used) for used in folds.values()] == [1, 1, 1]
    printed = capsys.readouterr().err
    assert "3 of 3 patients are in several: P1, P2, P3" in printed
    assert "new ones are drawn by patient" in printed


def test_one_list_may_be_an_external_test_set(archive: Archive, tmp_path: Path) -> None:
    file = archive.write_list("mine.tsv", archive.of(1))
    assert command(archive, tmp_path / "out", "--folds", "0", lists=file) == 0
    found = content(tmp_path / "out")
    assert "num_folds" not in found
    assert len(found["cases"]) == 4


@pytest.mark.parametrize("inside", [False, True])
def test_paths_are_found_with_and_without_their_first_folder_and_in_any_case(
    archive: Archive, tmp_path: Path, inside: bool
) -> None:
    (archive.folder / "Dataset" / "Low Energy").rename(archive.folder / "Dataset" / "LOW energy")
    (archive.folder / "Dataset").rename(archive.folder / "dataset")
    file = archive.write_list("mine.txt", archive.of(0, 1, 2))
    images = ["--images", str(archive.folder / "dataset")] if inside else []
    assert command(archive, tmp_path / "out", "--folds", "3", *images, lists=file) == 0
    assert len(content(tmp_path / "out")["cases"]) == 12


def test_masks_are_found_by_id_or_file_name_in_any_format(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "drawn"
    folder.mkdir()
    with_lesion = [name for name, pair in archive.pairs.items() if pair.mask.any()]
    first, second, third, twice = with_lesion[:4]
    for name, drawn in (
        (first, f"{first}_mask.png"), (second, f"{second}_LOW_ENERGY_mask.tif"), (twice, f"{twice}.png"),
        (twice, f"{twice}_mask.png"),
    ):  # fmt: skip
        Image.fromarray(archive.pairs[name].mask.astype(np.uint8) * 255).save(folder / drawn)
    write_nrrd(folder / f"{third.lower()}.mha", archive.pairs[third].mask.astype(np.uint8))
    Image.fromarray(archive.pairs[first].mask).save(folder / "P99_1_LCC.png")
    (folder / "notes.txt").write_text("who drew what")
    lists = archive.write_list("mine.txt", archive.of(0, 1, 2))
    assert command(archive, tmp_path / "out", "--folds", "3", "--mask-dir", str(folder), lists=lists) == 3
    cases = by_name(tmp_path / "out")
    assert {name for name, case in cases.items() if "mask" in case} == {first, second, third}
    for name in (first, second, third):
        np.testing.assert_array_equal(pixels(tmp_path / "out", cases[name]["mask"]) > 0, archive.pairs[name].mask)
    printed = capsys.readouterr().err
    assert f"several masks of one image: {twice}.png, {twice}_mask.png" in printed
    assert "P99_1_LCC.png: a mask of no pair in the lists" in printed
    assert "notes.txt" not in printed


# ------------------------------------------------------------------------------------------------ the authors' folds
def test_a_leak_free_split_is_imported_with_exactly_its_folds(archive: Archive, tmp_path: Path) -> None:
    write_folds(archive)
    assert command(archive, tmp_path / "out", "--published-folds") == 0
    found = content(tmp_path / "out")
    assert found["num_folds"] == 3
    assert {(case["patient_id"], case["fold"]) for case in found["cases"]} == {("P1", 0), ("P2", 1), ("P3", 2)}
    assert "allow_leak" not in found


def test_test_validation_and_training_of_a_single_fold_become_three_folds(archive: Archive, tmp_path: Path) -> None:
    for part, patient in (("train", 0), ("val", 1), ("test", 2)):
        archive.write_list(f"fold4_{part}.txt", archive.of(patient))
    assert command(archive, tmp_path / "out", "--published-folds") == 0
    cases = content(tmp_path / "out")["cases"]
    assert {(case["patient_id"], case["fold"]) for case in cases} == {("P3", 0), ("P2", 1), ("P1", 2)}


@pytest.mark.parametrize("patient", range(3))
def test_a_fold_of_which_no_image_is_there_is_named(
    patient: int, archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(archive)
    for row in archive.of(patient):
        archive.image(row["id"]).unlink()
    assert command(archive, tmp_path / "out", "--published-folds") == 1
    printed = capsys.readouterr().err
    assert f"datalist.json  fold {patient} of 3 has no case" in printed
    assert "draft" not in printed


def write_leaks(archive: Archive) -> None:
    """Patient 1 is trained and tested on, patient 3 trained and validated on."""
    one, two, three = (archive.of(patient) for patient in range(3))
    archive.write_list("fold0_train.txt", one[:3] + three[:2])
    archive.write_list("fold0_val.txt", three[2:])
    archive.write_list("fold0_test.txt", one[3:] + two)


def test_leaking_sections_are_refused_before_any_image_is_looked_for(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_leaks(archive)
    shutil.rmtree(archive.folder / "Dataset")
    assert command(archive, tmp_path / "out", "--published-folds") == 1
    assert capsys.readouterr().err.splitlines()[:4] == [
        "The lists share patients between sections:",
        "  fold0 test - fold0 train: 1 patients",
        "  fold0 val - fold0 train: 1 patients",
        "2 of 3 patients are in several: P1, P3",
    ]
    assert not (tmp_path / "out").exists()


def test_leaking_sections_can_be_kept_and_then_say_so_at_every_use(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_leaks(archive)
    assert command(archive, tmp_path / "out", "--published-folds", "--allow-leak") == 0
    found = content(tmp_path / "out")
    assert (found["allow_leak"], found["num_folds"]) == (True, 3)
    assert [case["fold"] for case in found["cases"]] == [2, 2, 2, 0, 0, 0, 0, 0, 2, 2, 1, 1]
    checked_cases(tmp_path / "out")
    assert "LEAKING FOLDS (allow_leak; 2 of 3 patients are in several folds)" in caplog.text


def test_test_lists_of_a_complete_set_that_share_patients_are_refused(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = archive.of(0, 1, 2)
    for fold in range(3):
        archive.write_list(f"fold{fold}_test.txt", rows[fold::3])
        archive.write_list(f"fold{fold}_train.txt", [row for row in rows if row not in rows[fold::3]])
    assert command(archive, tmp_path / "out", "--published-folds") == 1
    printed = capsys.readouterr().err
    assert "fold0 test - fold2 test: 3 patients" in printed
    assert "P1, P2, P3" in printed


def test_the_real_lists_are_refused_with_all_leaking_patients_named(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = shared_data / "cesm-ucbm-lists"
    tables = {part: pd.read_csv(lists / f"fold0_{part}.txt", sep="\t") for part in ("train", "val", "test")}
    patients = {part: set(table["id"].str.split("_").str[0]) for part, table in tables.items()}
    train, val, test = patients.values()
    leaking = sorted((train & val) | (train & test) | (val & test), key=lambda patient: int(patient[1:]))
    assert (len(train | val | test), len(leaking)) == (105, 72)
    words = ["cesm-ucbm", str(lists), "--output", str(tmp_path / "out")]
    for more, said in ((["--published-folds"], "Nothing was written"), ([], "No image of the lists was found")):
        assert prepare_data.main([*words, *more]) == 1
        printed = capsys.readouterr().err
        assert f"72 of 105 patients are in several: {', '.join(leaking)}\n" in printed
        for pair, count in (({"train", "val"}, 46), ({"train", "test"}, 45), ({"val", "test"}, 19)):
            lines = [line for line in printed.splitlines() if all(f"fold0 {part}" in line for part in pair)]
            assert [line.split(": ")[1] for line in lines] == [f"{count} patients"]
        assert said in printed
    assert "Looked for 1138 files" in printed
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ what is refused
BAD_ROWS = {
    "wrong side": ({"r_l": "L"}, "r_l is 'L', but the id says R"),
    "no window": ({"wc_x": "", "ww_x": ""}, "wc_x is '' and ww_x is '', expected a window"),
    "words for a window": ({"ww_y": "wide"}, "wc_y is '2085' and ww_y is 'wide'"),
    "no width": ({"ww_y": "0"}, "ww_y is '0', expected a window"),
    "not a number": ({"wc_y": "nan"}, "wc_y is 'nan'"),
    "no path": ({"img_y": " "}, "img_y is empty"),
    "path out of the archive": ({"img_x": "..\\P1_24_RCC.nrrd"}, "expected a path within the archive"),
    "another image": ({"img_x": "Dataset\\Low Energy\\P2_30_LCC_LOW_ENERGY.nrrd"}, "LOW_ENERGY.nrrd, another image"),
    "exchanged": ({"img_x": "Dataset\\Recombined\\P1_24_RCC_RECOMBINED.nrrd"}, "RECOMBINED.nrrd, another image"),
    "one file": ({"img_x": "one.nrrd", "img_y": "ONE.nrrd"}, "img_x and img_y are the same file one.nrrd"),
    "odd id": ({"id": "P1-24-RCC"}, "the id is 'P1-24-RCC', expected patient, number, side and view"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_left_out_alone_with_its_place_and_a_remedy(kind: str, archive: Archive) -> None:
    changed, expected = BAD_ROWS[kind]
    archive.rows["P1_24_RCC"].update(changed)
    lists = read_lists(archive.write_list("mine.txt", archive.of(0)))
    assert set(lists.rows) == {"P1_20_LCC", "P1_22_LMLO", "P1_26_RMLO"}
    (left_out,) = lists.left_out
    assert (left_out.name, left_out.file) == (archive.rows["P1_24_RCC"]["id"], "mine.txt:4")
    assert expected in left_out.reason
    assert left_out.remedy


def test_bad_rows_and_truncated_or_missing_files_are_named_and_the_rest_is_written(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = archive.label("P1_22_LMLO")
    file.write_bytes(file.read_bytes()[:-200])
    archive.image("P2_28_LCC").write_text("not an image")
    archive.image("P3_36_LCC").unlink()
    archive.rows["P3_38_LMLO"]["r_l"] = "R"
    write_folds(archive)
    assert command(archive, tmp_path / "out", "--published-folds") == 3
    assert len(content(tmp_path / "out")["cases"]) == 8
    printed = capsys.readouterr().err
    for expected in (
        "P1_22_LMLO_RECOMBINED.nrrd",
        "P2_28_LCC_LOW_ENERGY.nrrd",
        "P3_36_LCC_LOW_ENERGY.nrrd: no such file",
        "P3_38_LMLO  fold0_train.txt:3: r_l is 'R', but",
    ):
        assert expected in printed
    assert len((tmp_path / "out" / "excluded.csv").read_text().splitlines()) == 1 + 4


def test_rows_that_contradict_each_other_are_named_and_equal_ones_are_one(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(archive)
    archive.rows["P2_28_LCC"]["wc_x"] = "1300"
    archive.write_list("fold0_val.txt", archive.of(1) + archive.of(1))
    assert command(archive, tmp_path / "out", "--published-folds") == 3
    assert len(content(tmp_path / "out")["cases"]) == 11
    printed = capsys.readouterr().err
    assert "different rows of one id in fold0_val.txt:2, fold1_test.txt:2" in printed


@pytest.mark.parametrize(
    ("lists", "more", "message"),
    [
        ([], [], "no such file or folder"),
        (["notes.txt"], [], "holds no list: expected foldK_train.txt"),
        (["fold0_test.txt", "FOLD0_test.txt"], [], "are lists of one section"),
        (["fold0_test.txt"], ["--published-folds"], "these are without fold0_val.txt, fold0_train.txt"),
        (["fold0_test.txt", "fold1_test.txt"], ["--published-folds"], "these are of 2 folds"),
        (["fold0_test.txt"], ["--published-folds", "--folds", "5"], "exclude each other"),
        (["fold0_test.txt"], ["--allow-leak"], "--allow-leak is for --published-folds"),
        (["fold0_test.txt"], ["--mask-dir", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_wrong_command_is_explained(
    lists: list[str],
    more: list[str],
    message: str,
    archive: Archive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in lists:
        archive.write_list(name, archive.of(0, 1, 2))
    assert command(archive, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


def test_a_list_without_the_columns_or_without_rows_is_explained(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, other = archive.write_list("fold0_test.txt", []), archive.folder / "other.txt"
    other.write_text("id,img_x\n")
    assert command(archive, tmp_path / "out", lists=empty) == 2
    assert "no row in any list" in capsys.readouterr().err
    assert command(archive, tmp_path / "out", lists=other) == 2
    assert "lacks the column id, img_x, img_y, r_l" in capsys.readouterr().err


def test_folds_that_lack_an_image_or_have_it_twice_are_explained(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folds(archive)
    archive.write_list("fold2_test.txt", archive.of(2)[1:])
    archive.write_list("fold1_test.txt", archive.of(1) + archive.of(0)[:1])
    assert command(archive, tmp_path / "out", "--published-folds", "--allow-leak") == 2
    printed = capsys.readouterr().err
    assert "2 images are not in exactly one of fold0 test, fold1 test, fold2 test" in printed
    assert "P1_20_LCC (fold0 test, fold1 test), P3_36_LCC (none)" in printed
