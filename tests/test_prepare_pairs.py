from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.data import checked_cases, section_cases
from bundle.reader import read_pixels
from scripts import prepare_data
from tests.archives.pairs import breast, lesion, write, write_dicom
from tests.archives.pairs import names as pair_names
from tests.archives.phantom import phantom_pairs

PATTERN = r"(?P<patient>P\d+)_(?P<laterality>L|R)_(?P<view>CC|MLO)"
NAMES = [f"P{patient}_{side}_{view}" for patient in range(8) for side in "LR" for view in ("CC", "MLO")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part in ("LE", "DES", "mask"):
        (tmp_path / part).mkdir()
        for name in NAMES if part != "mask" else NAMES[::3]:
            grey = random.integers(0, 256, (20, 20)).astype(np.uint8)
            Image.fromarray(grey if part != "mask" else (grey > 128) * np.uint8(255)).save(
                tmp_path / part / f"{name}.png"
            )
    return tmp_path


def command(folder: Path, *more: str, pattern: bool = True, output: Path | None = None) -> list[str]:
    words = ["pairs", "--image-dir", str(folder / "LE"), "--label-dir", str(folder / "DES")]
    words += ["--mask-dir", str(folder / "mask"), "--output", str(output or folder), "--quiet", "--workers", "1"]
    return [*words, *(("--pattern", PATTERN) if pattern else ()), *more]


def datalist(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "datalist.json").read_text())
    return content


def test_pairs_become_a_checked_datalist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_data.main(command(folder, "--folds", "4")) == 0
    content = datalist(folder)
    assert (content["synthetic"], content["num_folds"], len(content["cases"])) == (False, 4, 32)
    assert content["cases"][0] == {
        "image": "LE/P0_L_CC.png",
        "label": "DES/P0_L_CC.png",
        "mask": "mask/P0_L_CC.png",
        "patient_id": "P0",
        "laterality": "L",
        "view": "CC",
        "fold": content["cases"][0]["fold"],
        "image_window": [127.5, 255.0],
        "label_window": [127.5, 255.0],
    }
    assert "mask" not in content["cases"][1]
    assert "32 pairs of 8 patients, 11 with a lesion mask" in capsys.readouterr().out


def test_folds_share_no_patient_and_spread_the_lesions(folder: Path) -> None:
    prepare_data.main(command(folder, "--folds", "4"))
    cases = checked_cases(folder)
    folds = [section_cases(cases, fold, "test") for fold in range(4)]
    assert sum(len({case["patient_id"] for case in part}) for part in folds) == 8
    assert all(2 <= sum("mask" in case for case in part) <= 4 for part in folds)


def test_the_same_command_gives_the_same_bytes_and_the_seed_changes_the_folds(folder: Path) -> None:
    written = []
    for seed in ("0", "0", "1"):
        assert prepare_data.main(command(folder, "--folds", "4", "--seed", seed)) == 0
        written.append((folder / "datalist.json").read_bytes())
    assert written[0] == written[1] != written[2]
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == [".prepared"]


def test_files_outside_the_dataset_folder_are_named_absolutely_and_not_copied(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "data"
    assert prepare_data.main(command(folder, "--folds", "4", output=output)) == 0
    assert datalist(output)["cases"][0]["image"] == str(folder / "LE/P0_L_CC.png")
    written = ["cases.csv", "data_card.html", "datalist.json", "excluded.csv"]
    assert sorted(file.name for file in output.iterdir() if file.is_file()) == written
    assert not list(output.rglob("*.png"))


def test_windows_are_kept_and_16_bit_files_get_none_by_default(folder: Path) -> None:
    for file in (folder / "LE").iterdir():
        Image.fromarray(np.asarray(Image.open(file)).astype(np.uint16) * 9).save(file)
    assert prepare_data.main(command(folder, "--folds", "4", "--label-window", "100", "50")) == 0
    case = datalist(folder)["cases"][0]
    assert "image_window" not in case
    assert case["label_window"] == [100.0, 50.0]


def test_a_table_gives_the_names_the_information_and_what_to_leave_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["file,who,side,projection,birads,iou"]
    for number, name in enumerate(NAMES):
        patient, side, view = name.split("_")
        rows.append(
            f"{name},{patient},{'left' if side == 'L' else 'right'},{view.lower()},5,{['0.95', '0.5', ''][number % 3]}"
        )
    (folder / "index.csv").write_text("\n".join(rows))
    table = ["--table", str(folder / "index.csv"), "--name-column", "file", "--patient-column", "who"]
    table += ["--laterality-column", "side", "--view-column", "projection", "--info-columns", "birads", "iou"]
    more = [*table, "--exclude-below", "iou", "0.9", "--folds", "3"]
    assert prepare_data.main(command(folder, *more, pattern=False)) == 3
    printed = capsys.readouterr().err
    assert "iou is 0.5, expected at least 0.9" in printed
    assert "iou is empty, expected at least 0.9" in printed
    cases = datalist(folder)["cases"]
    assert [Path(case["image"]).stem for case in cases] == [
        name for number, name in enumerate(NAMES) if number % 3 == 0
    ]
    assert (cases[0]["laterality"], cases[0]["view"], cases[0]["info"]) == ("L", "CC", {"birads": "5", "iou": "0.95"})


def test_unmatched_files_and_odd_names_are_named_and_the_rest_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "LE/P0_L_CC.png").rename(folder / "LE/extra.png")
    (folder / "mask/P0_R_MLO.png").rename(folder / "mask/P9_R_CC.png")
    for part in ("LE", "DES"):
        (folder / part / "P7_R_CC.png").rename(folder / part / "P7_R_XCC.png")
    assert prepare_data.main(command(folder, "--folds", "4")) == 3
    printed = capsys.readouterr().err
    for expected in (
        "LE/extra.png: LE without DES of that name",
        "DES/P0_L_CC.png: DES without LE of that name",
        "mask/P9_R_CC.png: mask without LE of that name",
        "P7_R_XCC.png: the name does not match --pattern",
        "--ignore",
    ):
        assert expected in printed
    assert len(datalist(folder)["cases"]) == 30
    assert (folder / "excluded.csv").read_text().count("\n") == 1 + 6


def test_a_pattern_that_no_name_matches_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = ["--pattern", "(?P<patient>X)(?P<laterality>L)(?P<view>CC)"]
    assert prepare_data.main(command(folder, *pattern, pattern=False)) == 1
    printed = capsys.readouterr().err
    assert "does not match --pattern" in printed
    assert "and 12 more" in printed
    assert not (folder / "datalist.json").exists()


def test_names_that_differ_in_a_part_are_matched_without_it(folder: Path) -> None:
    for part, mark in (("LE", "DM"), ("DES", "CM")):
        for file in list((folder / part).iterdir()):
            file.rename(file.with_name(f"{file.stem}_{mark} .png"))
    assert prepare_data.main(command(folder, "--ignore", "_(DM|CM)", "--folds", "4")) == 0
    assert datalist(folder)["cases"][0]["label"] == "DES/P0_L_CC_CM .png"


def test_a_bad_image_is_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "DES/P0_L_CC.png").write_text("not an image")
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(folder / "DES/P0_R_CC.png")
    assert prepare_data.main(command(folder, "--folds", "4")) == 3
    printed = capsys.readouterr().err
    assert "DES/P0_L_CC.png: DES: cannot be decoded" in printed
    assert "LE and DES of different sizes: 20x20 and 9x9" in printed
    assert "Give --size" in printed
    assert len(datalist(folder)["cases"]) == 30


def test_an_earlier_datalist_stays_when_nothing_can_be_written(folder: Path) -> None:
    assert prepare_data.main(command(folder, "--folds", "4")) == 0
    before = (folder / "datalist.json").read_bytes()
    assert prepare_data.main(command(folder, "--folds", "4", "--min-overlap", "1")) == 1
    assert prepare_data.main(command(folder, "--folds", "99")) == 2
    assert (folder / "datalist.json").read_bytes() == before


def test_with_a_size_the_images_are_written_on_one_grid(tmp_path: Path) -> None:
    for number, (name, _, side, _) in enumerate(pair_names(3)):
        image, label = breast(number, side)
        write(tmp_path / "LE" / f"{name}.tif", image)
        write(tmp_path / "DES" / f"{name}.png", (label // 16).astype(np.uint8))
        write(tmp_path / "mask" / f"{name}.bmp", lesion(side))
    output = tmp_path / "data"
    assert prepare_data.main(command(tmp_path, "--folds", "3", "--size", "native", output=output)) == 0
    case = datalist(output)["cases"][0]
    assert case["image"] == "LE/P0_L_CC.png"
    assert case["label_window"] == [127.5 * 257, 255 * 257]
    assert case["info"]["label_rescale"][0] == 1 / 257
    stored = [np.asarray(Image.open(output / case[key])) for key in ("image", "label", "mask")]
    assert [pixels.shape for pixels in stored] == [(48, 40)] * 3
    np.testing.assert_array_equal(stored[0], breast(0)[0])
    assert (output / "cases.csv").read_text().count("\n") == 1 + 12


@pytest.mark.parametrize(
    ("more", "pattern", "message"),
    [
        (["--folds", "9"], True, "expected 3 to 8 (the number of patients)"),
        ([], False, "Give --pattern or --table"),
        (["--pattern", "(?P<patient>P)"], False, "lacks the named groups laterality, view"),
        (["--pattern", "("], False, "is not a regular expression"),
        (["--exclude-below", "iou", "0.9"], True, "--exclude-below needs --table"),
        (["--label-mask-dir", "/nowhere"], True, "/nowhere is not a folder"),
        (["--label-window", "5", "0"], True, "--label-window has the width 0"),
    ],
)
def test_a_wrong_command_is_explained(
    more: list[str], pattern: bool, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_data.main(command(folder, *more, pattern=pattern)) == 2
    assert message in capsys.readouterr().err


def test_a_table_without_the_columns_is_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "index.csv").write_text("name,side\nP0_L_CC,L\n")
    assert prepare_data.main(command(folder, "--table", str(folder / "index.csv"), pattern=False)) == 2
    assert "has no column patient, laterality, view; it has: name, side" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_pairs_are_taken(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "cdd-cesm-512"
    words = ["pairs", "--image-dir", f"{root}/LE", "--label-dir", f"{root}/DES", "--mask-dir", f"{root}/mask_LE"]
    words += ["--label-mask-dir", f"{root}/mask_DES", "--table", f"{root}/index.csv", "--laterality-column", "side"]
    words += ["--exclude-below", "breast_iou", "0.9", "--output", str(tmp_path), "--quiet", "--workers", "1"]
    assert prepare_data.main(words) == 3
    content = datalist(tmp_path)
    assert len(content["cases"]) == 228
    assert {case["fold"] for case in content["cases"]} == set(range(10))


@pytest.mark.parametrize("size", [None, "native"])
def test_dicom_pairs_come_with_the_window_of_their_header(size: str | None, tmp_path: Path) -> None:
    for number, (name, _, side, _) in enumerate(pair_names(3)):
        for part, pixels in zip(("LE", "DES"), breast(number, side), strict=True):
            (tmp_path / part).mkdir(exist_ok=True)
            write_dicom(tmp_path / part / f"{name}.dcm", pixels, WindowCenter=3001, WindowWidth=2001)
    (tmp_path / "mask").mkdir()
    write(tmp_path / "mask" / "P0_L_CC.png", lesion())
    output = tmp_path / "data"
    more = ["--folds", "3", *([] if size is None else ["--size", size])]
    assert prepare_data.main(command(tmp_path, *more, output=output)) == 0
    case = datalist(output)["cases"][0]
    assert case["image"] == (str(tmp_path / "LE/P0_L_CC.dcm") if size is None else "LE/P0_L_CC.png")
    assert (case["image_window"], case["label_window"]) == ([3000.5, 2000.0], [3000.5, 2000.0])
    assert (case["laterality"], case["view"]) == ("L", "CC")
    np.testing.assert_array_equal(read_pixels(output / case["image"]).T, breast(0)[0])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("name,who\nMüller,1\n".encode("latin-1"), "can't decode byte"),
        ("name,who\nP0_L_CC,P0\n".encode("utf-16"), "can't decode byte"),
        (b"", "it is empty"),
        (b"name,patient,laterality,view\nP0_L_CC,P0,L,CC,5\n", "line 2 has 5 cells, the first line 4"),
        (b"name,patient,laterality,view\nP0_L_CC,P0\n", "line 2 has 2 cells, the first line 4"),
        (b"name,name\nP0_L_CC,P0\n", "several columns are called 'name'"),
        (b"name;patient;laterality;view\nP0_L_CC;P0;L;CC\n", "has no column name, patient"),
    ],
)
def test_a_table_that_is_no_csv_in_utf8_is_explained(
    content: bytes, found: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "index.csv").write_bytes(content)
    assert prepare_data.main(command(folder, "--table", str(folder / "index.csv"), pattern=False)) == 2
    printed = capsys.readouterr().err
    assert str(folder / "index.csv") in printed
    assert found in printed
    assert "Save it as CSV UTF-8, comma separated" in printed


def test_a_table_as_excel_saves_it_is_read(folder: Path) -> None:
    rows = [f"{name},{','.join(name.split('_'))},," for name in NAMES]
    text = "\r\n".join(["name,patient,laterality,view,,", *rows, ",,,,,", ""])
    (folder / "index.csv").write_text("\ufeff" + text, newline="")
    table = ["--table", str(folder / "index.csv"), "--folds", "4"]
    assert prepare_data.main(command(folder, *table, pattern=False)) == 0
    assert len(datalist(folder)["cases"]) == len(NAMES)


def test_reports_name_files_below_the_folders_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "DES/P0_L_CC.png").write_text("not an image")
    (folder / "LE/P0_R_CC.png").rename(folder / "LE/extra.png")
    (folder / "mask/P0_L_CC.png").rename(folder / "mask/P1_L_CC.png")
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(folder / "mask/P1_L_CC.png")
    for size in ((), ("--size", "native", "--min-overlap", "0")):
        output = folder / f"data{len(size)}"
        assert prepare_data.main(command(folder, "--folds", "4", *size, output=output)) == 3
        for text in (capsys.readouterr().err, (output / "excluded.csv").read_text()):
            for file in ("DES/P0_L_CC.png", "LE/extra.png", "DES/P0_R_CC.png", "mask/P1_L_CC.png"):
                assert file in text
            assert str(folder) not in text
        assert str(folder) not in (output / "data_card.html").read_text()


def test_files_without_suffix_are_images_only_if_they_are_dicom(tmp_path: Path) -> None:
    for number, (name, _, side, _) in enumerate(pair_names(3)):
        for part, pixels in zip(("LE", "DES"), breast(number, side), strict=True):
            (tmp_path / part).mkdir(exist_ok=True)
            write_dicom(tmp_path / part / name, pixels)
    (tmp_path / "LE/README").write_text("Licence: none")
    (tmp_path / "mask").mkdir()
    write(tmp_path / "mask" / "P0_L_CC.png", lesion())
    output = tmp_path / "data"
    assert prepare_data.main(command(tmp_path, "--folds", "3", output=output)) == 0
    assert len(datalist(output)["cases"]) == 12


@pytest.mark.parametrize("register", [False, True])
def test_images_of_equal_size_are_registered_on_demand(register: bool, tmp_path: Path) -> None:
    for pair in phantom_pairs(3, 96):
        name = f"P{pair.patient}_{pair.laterality}_{pair.view}"
        write(tmp_path / "LE" / f"{name}.png", pair.image[:-6])
        write(tmp_path / "DES" / f"{name}.png", pair.label[6:])
        write(tmp_path / "mask" / f"{name}.png", pair.mask[:-6])
    more = ["--folds", "3", "--size", "native", "--min-overlap", "0.5", *(["--register"] if register else [])]
    output = tmp_path / "data"
    assert prepare_data.main(command(tmp_path, *more, output=output)) == 0
    facts = pd.read_csv(output / "cases.csv")
    assert facts["registered"].tolist() == [register] * len(facts)
    if register:
        assert facts["shift_y"].median() == pytest.approx(6, abs=1)
