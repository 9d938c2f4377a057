from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scripts import prepare_data
from scripts.prepare.cdd_cesm import read_archive
from tests.archives.cdd_cesm import CSV, DES_FOLDER, LE_FOLDER, XLSX, Archive, grey, write_archive

ORIGINALS = "cdd-cesm-originals"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return write_archive(tmp_path / "archive")


def prepare(archive: Path, output: Path, *more: str) -> int:
    words = ["cdd-cesm", str(archive), "--output", str(output), "--workers", "1", "--quiet", *more]
    return prepare_data.main(words)


def cases_of(output: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((output / "datalist.json").read_text())
    return {Path(case["image"]).stem: case for case in content["cases"]}


def facts_of(output: Path) -> dict[str, dict[str, Any]]:
    rows = pd.read_csv(output / "cases.csv").to_dict("records")
    return {row["name"]: {str(key): value for key, value in row.items()} for row in rows}


def png(output: Path, case: dict[str, Any], key: str) -> NDArray[Any]:
    return np.asarray(Image.open(output / case[key]))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, Path, int]:
    folder = tmp_path_factory.mktemp("cdd")
    archive = write_archive(folder / "archive")
    return archive, folder / "data", prepare(archive.root, folder / "data", "--size", "native", "--folds", "4")


def test_an_archive_gives_back_its_pairs_sides_and_labels(prepared: tuple[Archive, Path, int]) -> None:
    archive, output, status = prepared
    assert status == 0
    cases = cases_of(output)
    assert sorted(cases) == sorted(archive.pairs)
    for name, case in cases.items():
        patient, side, view = name.split("_")[:3]
        lesion = bool(archive.pairs[name].mask.any())
        assert (case["patient_id"], case["laterality"], case["view"]) == (patient, side, view)
        assert case["info"]["label"] == ("malignant" if lesion else "normal")
        assert case["info"].get("label_des") == ("benign" if name == "P2_L_CC" else None)
        assert case["info"]["birads"] == ("3, 2" if lesion else "1")
        assert case["info"]["density"] == "ABCD"[int(patient[1:]) - 1]
        assert case["info"]["findings"] == (["Mass with calcification", "IMLN"] if lesion else ["Normal"])
        assert case["info"]["vendor"] == ("machine 2" if patient == "P4" else "machine 1")
    assert len({(case["patient_id"], case["fold"]) for case in cases.values()}) == 4


def test_the_pixels_are_those_of_the_jpeg_files(prepared: tuple[Archive, Path, int]) -> None:
    archive, output, _ = prepared
    for name, case in cases_of(output).items():
        for key, folder, made in (
            ("image", LE_FOLDER, archive.pairs[name].image),
            ("label", DES_FOLDER, archive.pairs[name].label),
        ):
            kind = "DM" if key == "image" else "CM"
            file = archive.image(name, kind)
            file = file if file.exists() else file.with_name("P2_L_DM_CC .jpg")
            assert file.parent.name == folder
            written = png(output, case, key)
            assert case[f"{key}_window"] == [32767.5, 65535.0]
            np.testing.assert_array_equal(written, np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 257)
            assert np.abs(written / 257.0 - grey(made)).max() <= 2  # what JPEG rounds


def test_each_image_gets_the_mask_of_its_own_regions(prepared: tuple[Archive, Path, int]) -> None:
    archive, output, _ = prepared
    for name, case in cases_of(output).items():
        expected = archive.pairs[name].mask
        assert {"mask", "label_mask"} & case.keys() == ({"mask", "label_mask"} if expected.any() else set())
        for key in {"mask", "label_mask"} & case.keys():
            np.testing.assert_array_equal(png(output, case, key) > 0, expected)


def test_the_same_command_changes_nothing(prepared: tuple[Archive, Path, int]) -> None:
    archive, output, _ = prepared
    before = everything(output)
    assert prepare(archive.root, output, "--size", "native", "--folds", "4") == 0
    assert everything(output) == before


@pytest.mark.parametrize(
    ("folder", "xlsx"),
    [
        ("PKG-CDD-CESM/CDD-CESM", "Radiology manual annotations.xlsx"),
        ("", XLSX),
        ("pkg - cdd-cesm", "radiology_manual_annotations.XLSX"),
    ],
)
def test_every_spelling_of_the_download_is_found(folder: str, xlsx: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, folder, xlsx)
    (archive.images / LE_FOLDER).rename(archive.images / "low  energy images of CDD-CESM ")
    views, left_out = read_archive(tmp_path)
    assert sorted(view.name for view in views) == sorted(archive.pairs)
    assert [one for one in left_out if one.needed] == []


def test_csv_and_xlsx_may_lie_elsewhere(archive: Archive, tmp_path: Path) -> None:
    for name in (CSV, XLSX):
        shutil.move(archive.root / name, tmp_path / name)
    assert len(read_archive(archive.images, tmp_path / CSV, tmp_path / XLSX)[0]) == len(archive.pairs)


def test_le_and_des_of_different_frames_come_onto_one_grid(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", size=128)
    names = [name for name, pair in archive.pairs.items() if pair.mask.sum() > 100]
    assert len(names) >= 2
    for name in names:  # the DES lacks 10 rows at the top and 4 at the bottom
        file = archive.image(name, "CM")
        Image.fromarray(np.asarray(Image.open(file))[10:-4]).save(file, quality=100, subsampling=0)
    text = (archive.root / CSV).read_text()
    (archive.root / CSV).write_text("".join(_raised(line, names) for line in text.splitlines(keepends=True)))
    assert prepare(archive.root, tmp_path / "data", "--size", "native", "--folds", "4") == 0
    facts = facts_of(tmp_path / "data")
    for name in names:
        case, expected = cases_of(tmp_path / "data")[name], archive.pairs[name].mask
        assert facts[name]["registered"]
        assert facts[name]["overlap_after"] > max(0.9, facts[name]["overlap_before"] + 0.05)
        assert facts[name]["shift_y"] == pytest.approx(10, abs=2)
        mask, label_mask = (png(tmp_path / "data", case, key) > 0 for key in ("mask", "label_mask"))
        top, left = (max(0, round(facts[name][key])) for key in ("shift_y", "shift_x"))
        expected = expected[top : top + len(mask), left : left + mask.shape[1]]  # what both images show
        np.testing.assert_array_equal(mask, expected)
        off = np.subtract(ndimage.center_of_mass(label_mask), ndimage.center_of_mass(expected))
        assert np.abs(off).max() <= 2.5


def _raised(line: str, names: list[str]) -> str:
    """The row of the csv with the region of a cropped DES 10 pixels higher."""
    name = line.partition(".jpg")[0].strip()
    if "_CM_" not in name or name.replace("_CM_", "_") not in names:
        return line
    head, points = line.split('all_points_y"": [')
    values, tail = points.split("]", 1)
    return f'{head}all_points_y"": [{", ".join(str(int(value) - 10) for value in values.split(","))}]{tail}'


def test_files_that_cannot_be_used_are_named_and_the_rest_is_written(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated = archive.image("P1_L_CC")
    truncated.write_bytes(truncated.read_bytes()[:-600])
    archive.image("P1_L_MLO", "CM").write_text("not an image")
    for kind in ("DM", "CM"):
        shutil.copy(archive.image("P1_R_CC", kind), archive.image("P3_R_CC", kind))
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[8:50, 8:50] = 200, 120, 40
    Image.fromarray(colour).save(archive.image("P4_L_CC"))
    archive.add_regions("P4_R_CC", "CM", {"name": "circle", "cx": 500, "cy": 20, "r": 9})
    assert prepare(archive.root, tmp_path / "data", "--folds", "3") == 3
    assert sorted(cases_of(tmp_path / "data")) == sorted(
        set(archive.pairs) - {"P1_L_CC", "P1_L_MLO", "P3_R_CC", "P4_L_CC", "P4_R_CC"}
    )
    excluded = pd.read_csv(tmp_path / "data/excluded.csv").set_index("name")["reason"]
    printed = capsys.readouterr().err
    for name, reason in {
        "P1_L_CC": "LE: cannot be decoded as .jpg",
        "P1_L_MLO": "DES: cannot be decoded as .jpg",
        "P3_R_CC": "the same pixels as P1_R_CC: patients P1 and P3 share an image",
        "P4_L_CC": "LE: a colour image",
        "P4_R_CC": "region 2 of P4_R_CM_CC (circle, x 500 to 500, y 20 to 20) lies outside its image of 64x64",
    }.items():
        found = excluded[excluded.index == name].str.cat(sep="\n")
        assert reason in found
        assert reason in printed


def test_images_without_partner_row_or_proper_name_are_named(archive: Archive) -> None:
    archive.image("P1_L_CC", "CM").unlink()
    archive.image("P1_L_MLO").unlink()
    archive.image("P1_R_CC").rename(archive.images / LE_FOLDER / "P77_R_DM_CC.jpg")
    archive.image("P1_R_CC", "CM").rename(archive.images / DES_FOLDER / "P77_R_CM_CC.jpg")
    archive.image("P2_R_CC").rename(archive.images / DES_FOLDER / "P2_R_DM_CC.jpg")
    shutil.copy(archive.image("P3_L_CC"), archive.image("P3_L_CC").with_name("P3_L_DM_CC .jpg"))
    archive.image("P3_R_CC").rename(archive.image("P3_R_CC").with_name("P3_R_DM_CC copy.jpg"))
    (archive.images / LE_FOLDER / "notes.txt").write_text("seen")
    views, left_out = read_archive(archive.root)
    gone = {"P1_L_CC", "P1_L_MLO", "P1_R_CC", "P2_R_CC", "P3_L_CC", "P3_R_CC"}
    assert sorted(view.name for view in views) == sorted(set(archive.pairs) - gone)
    assert sorted((one.name, Path(one.file).name, one.reason) for one in left_out if one.needed) == [
        ("-", "P3_R_DM_CC copy.jpg", "the name is not one such as P1_L_DM_MLO.jpg"),
        ("P1_L_CC", "P1_L_DM_CC.jpg", "no subtracted (DES) image of this view"),
        ("P1_L_MLO", "P1_L_CM_MLO.jpg", "no low-energy (LE) image of this view"),
        ("P1_R_CC", XLSX, "listed there, but there is no image of it"),
        ("P2_R_CC", "P2_R_CM_CC.jpg", "no low-energy (LE) image of this view"),
        ("P2_R_CC", "P2_R_DM_CC.jpg", "a DM image in the folder of the DES images"),
        ("P3_L_CC", "P3_L_DM_CC .jpg", "several files of one image: 'P3_L_DM_CC .jpg' and 'P3_L_DM_CC.jpg'"),
        ("P3_R_CC", "P3_R_CM_CC.jpg", "no low-energy (LE) image of this view"),
        ("P77_R_CC", "P77_R_DM_CC.jpg", "no usable row in the table for P77_R_DM_CC and P77_R_CM_CC"),
    ]
    assert [(one.file, one.needed) for one in left_out if not one.needed] == [
        ((archive.images / LE_FOLDER / "notes.txt").relative_to(archive.root).as_posix(), False)
    ]
    assert all(one.remedy for one in left_out if one.needed)


def test_broken_rows_of_csv_and_xlsx_are_named(archive: Archive) -> None:
    archive.add_regions("P1_L_CC", "DM", {"name": "rect", "x": 1, "y": 2})
    archive.add_regions("P1_QQ_CC", "DM", {"name": "circle", "cx": 9, "cy": 9, "r": 3})
    table = pd.read_excel(archive.root / XLSX, sheet_name="all", dtype=str, keep_default_na=False)
    table.loc[table["Image_name"] == "P2_R_DM_CC", "Pathology Classification/ Follow up"] = "unclear"
    table.to_excel(archive.root / XLSX, sheet_name="all", index=False)
    views, left_out = read_archive(archive.root)
    assert "P1_L_CC" in {view.name for view in views}
    assert "P2_R_CC" not in {view.name for view in views}
    reasons = "\n".join(f"{one.name}: {one.reason}" for one in left_out if one.needed)
    assert "a region of kind 'rect', expected one of polygon" in reasons
    assert "the image is called 'P1_QQ_DM_CC', expected a name such as P1_L_DM_MLO.jpg" in reasons
    assert "P2_R_DM_CC: row 14: the pathology is 'unclear'" in reasons
    assert "P2_R_CC: no usable row in the table for P2_R_DM_CC" in reasons


def test_an_image_without_regions_has_no_mask(archive: Archive) -> None:
    views = {view.name: view for view in read_archive(archive.root)[0]}
    name = next(name for name, view in views.items() if view.mask is None)
    assert views[name].label_mask is None
    archive.add_regions(name, "DM", {"name": "circle", "cx": 20, "cy": 30, "r": 5})
    view = {view.name: view for view in read_archive(archive.root)[0]}[name]
    assert view.mask is not None
    assert view.label_mask is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a.root / CSV).unlink(), "has no csv of the hand-drawn regions, expected one. It is part of"),
        (lambda a: (a.root / XLSX).unlink(), "or give it with --table"),
        (lambda a: shutil.copy(a.root / CSV, a.images / CSV), "has 2 csv of the hand-drawn regions, expected one: "),
        (lambda a: shutil.rmtree(a.images / LE_FOLDER), "has no folder 'Low energy images of CDD-CESM', expected one"),
        (lambda a: shutil.copytree(a.images, a.root / "again"), "has 2 folders 'Low energy images of CDD-CESM'"),
        (lambda a: shutil.rmtree(a.root), "is not a folder"),
        (lambda a: (a.root / XLSX).write_bytes(b"PK"), "cannot be read as xlsx"),
    ],
)
def test_an_archive_that_is_not_as_downloaded_is_explained(
    spoil: Any, message: str, archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(archive)
    assert prepare(archive.root, tmp_path / "data") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_originals_are_prepared(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(shared_data / ORIGINALS, tmp_path, "--folds", "0") == 3
    assert "1998 of the 2006 images listed there are absent (999 views" in capsys.readouterr().err
    cases = cases_of(tmp_path)
    assert sorted(cases) == ["P3_L_MLO", "P3_R_MLO", "P40_L_MLO", "P40_R_MLO"]
    assert Counter(case["info"]["label"] for case in cases.values()) == {"benign": 3, "malignant": 1}
    assert all(case["overlap_after"] > 0.95 for case in facts_of(tmp_path).values())
    for case in cases.values():
        shapes = {key: png(tmp_path, case, key).shape for key in ("image", "label", "mask", "label_mask")}
        assert len(set(shapes.values())) == 1
        assert max(shapes["image"]) == 512
        masks = [png(tmp_path, case, key) > 0 for key in ("mask", "label_mask")]
        assert (masks[0] & masks[1]).sum() > 0.4 * max(mask.sum() for mask in masks)  # one lesion, drawn twice
    before = everything(tmp_path)
    assert prepare(shared_data / ORIGINALS, tmp_path, "--folds", "0") == 3
    assert everything(tmp_path) == before
    assert "4 pairs were prepared before" in capsys.readouterr().out


def test_two_crops_of_equal_size_are_registered_too(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", size=128)
    name = next(name for name, pair in archive.pairs.items() if not pair.mask.any())
    for kind, rows in (("DM", slice(None, -4)), ("CM", slice(4, None))):
        file = archive.image(name, kind)
        Image.fromarray(np.asarray(Image.open(file))[rows]).save(file, quality=100, subsampling=0)
    assert prepare(archive.root, tmp_path / "data", "--size", "native", "--folds", "4") == 0
    facts = facts_of(tmp_path / "data")[name]
    assert facts["image_height"] == facts["label_height"]
    assert facts["overlap_before"] > 0.9
    assert facts["registered"]
    assert facts["shift_y"] == pytest.approx(4, abs=2)


def test_reports_do_not_say_where_the_archive_lies(archive: Archive, tmp_path: Path) -> None:
    archive.image("P1_L_CC").write_text("not an image")
    assert prepare(archive.root, tmp_path / "data", "--folds", "3") == 3
    excluded = pd.read_csv(tmp_path / "data/excluded.csv")
    expected = archive.image("P1_L_CC").relative_to(archive.root).as_posix()
    assert excluded[excluded["needed"]]["file"].tolist() == [expected]
    for file in ("excluded.csv", "data_card.html", "cases.csv"):
        assert str(tmp_path) not in (tmp_path / "data" / file).read_text()
